"""Protects the front ends: LAION's log-mel against transformers, windows that lose nothing, exact PCM and FLAC."""

import numpy as np
import pytest
import torch

from clepdg.audio import frontend, io
from clepdg.audio.frontend import LAION_FRONT_END, MICRO_FRONT_END
from clepdg.errors import IndexingError
from clepdg.models.log_mel_statistics import log_mel_statistics


def reference(waveform):
    """Return transformers' log-mel (1001, 64) as LAION CLAP hears it; its class default, "fusion", is random."""
    from transformers import ClapFeatureExtractor

    extractor = ClapFeatureExtractor(
        truncation="rand_trunc", padding="repeatpad", frequency_min=50, frequency_max=14000
    )
    return extractor(waveform, sampling_rate=48000, return_tensors="pt").input_features[0, 0]


def assert_close(ours, expected):
    """A float32 STFT differs from the reference's float64 in bands that hold next to nothing."""
    assert ours.shape == expected.shape == (1001, 64)
    loud = expected > -80
    assert loud.float().mean() > 0.3
    assert (ours - expected)[loud].abs().max() < 1e-3
    assert (ours - expected).abs().max() < 1e-2


@pytest.mark.parametrize("seconds", [0.7, 3.3, 10.0])
@pytest.mark.parametrize("rate", [48000, 16000])
def test_log_mel_equals_the_reference_extractor(tone, seconds, rate):
    waveform = tone(seconds, rate)
    expected = reference(io.resample(waveform, rate, 48000))
    assert rate == 48000 or (expected < -80).float().mean() > 0.1  # the emptied bands of what is stored at 16 kHz
    windows = torch.from_numpy(frontend.windows(waveform, rate, LAION_FRONT_END))
    assert_close(frontend.log_mel(windows, LAION_FRONT_END)[0, 0], expected)


@pytest.mark.parametrize("front_end", [LAION_FRONT_END, MICRO_FRONT_END], ids=["laion", "micro"])
def test_log_mel_is_in_float32_whatever_the_precision(tone, front_end):
    cut = torch.from_numpy(frontend.crop(tone(1.0, 16000), 16000, front_end, 0.5))[None]
    with torch.autocast("cpu", torch.bfloat16):
        heard = frontend.log_mel(cut, front_end)
    assert heard.dtype == torch.float32
    assert torch.equal(heard, frontend.log_mel(cut, front_end))


def test_log_mel_of_a_crop_equals_the_reference_extractors_crop(tone):
    waveform, size = tone(13.7, 48000), LAION_FRONT_END.samples
    np.random.seed(5)
    start = np.random.randint(0, len(waveform) - size + 1)  # what the reference draws next
    np.random.seed(5)
    expected = reference(waveform)
    cut = torch.from_numpy(waveform[start : start + size])[None]
    assert_close(frontend.log_mel(cut, LAION_FRONT_END)[0, 0], expected)


def test_long_audio_is_heard_whole(tone):
    waveform = tone(23.0, 48000)
    windows = frontend.windows(waveform, 48000, LAION_FRONT_END)
    assert windows.shape == (4, 480000)  # at 0, 5, 10 and, to the end, 13 s
    np.testing.assert_array_equal(windows[0], waveform[:480000])
    np.testing.assert_array_equal(windows[1], waveform[240000:720000])
    np.testing.assert_array_equal(windows[-1], waveform[-480000:])


def test_short_audio_is_repeated_whole_then_padded(tone):
    waveform = tone(3.0, 48000)
    window = frontend.windows(waveform, 48000, LAION_FRONT_END)[0]
    np.testing.assert_array_equal(window[: 3 * len(waveform)], np.tile(waveform, 3))
    assert not window[3 * len(waveform) :].any()


def test_micro_repeats_and_cuts_and_normalises(tone):
    waveform = tone(1.5, 16000)
    window = frontend.windows(waveform, 16000, MICRO_FRONT_END)
    assert window.shape == (1, 64000)
    mel = frontend.log_mel(torch.from_numpy(window), MICRO_FRONT_END)
    assert mel.shape == (1, 1, 256, 64)
    assert abs(mel.mean()) < 1e-4
    assert abs(mel.std() - 1) < 1e-3


def test_crop_is_one_window_of_the_waveform(tone):
    waveform = tone(12.0, 16000)
    cut = frontend.crop(waveform, 16000, MICRO_FRONT_END, 0.5)
    starts = np.flatnonzero(waveform[: len(waveform) - len(cut) + 1] == cut[0])
    assert any(np.array_equal(waveform[start : start + len(cut)], cut) for start in starts)
    assert len(frontend.crop(waveform[:500], 16000, MICRO_FRONT_END, 0.5)) == 64000


def test_resampling_keeps_a_tone_and_its_length():
    time = np.arange(24414) / 24414
    resampled = io.resample(np.sin(2 * np.pi * 440 * time).astype(np.float32), 24414, 16000)
    assert abs(len(resampled) - 16000) <= 1
    spectrum = np.abs(np.fft.rfft(resampled))
    assert spectrum.argmax() == pytest.approx(440, abs=1)


def test_flac_is_exact_and_full_scale_clips(tone):
    pcm = io.to_pcm(np.array([-1.5, -1.0, 0.0, 0.5, 1.0, 1.5], dtype=np.float32))
    assert pcm.tolist() == [-32768, -32768, 0, 16384, 32767, 32767]
    pcm = io.to_pcm(tone(0.5, 16000))
    samples, rate = io.decode(io.encode_flac(pcm, 16000))
    assert rate == 16000
    np.testing.assert_array_equal(io.to_pcm(samples[:, 0]), pcm)


def test_what_is_no_audio_is_named(tmp_path):
    path = tmp_path / "a.wav"
    path.write_text("hello")
    with pytest.raises(IndexingError, match="not readable as audio"):
        io.decode(path)


def test_statistics_of_very_short_audio_are_finite():
    features = log_mel_statistics(np.full(300, 0.1, dtype=np.float32), 16000)
    assert features.shape == (256,)
    assert np.isfinite(features).all()
