"""Protects the log-mel of padded waveforms: that of the whole window, though equal frames are transformed once."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from clepdg.audio.frontend import LAION_FRONT_END, MICRO_FRONT_END, distinct_frames, log_mel, mel_filters, pad, split
from clepdg.audio.pieces import fill_windows, log_mel_of

FRONT_ENDS = [replace(front_end, normalise=False) for front_end in (LAION_FRONT_END, MICRO_FRONT_END)]
FIXED = (1, 2, 3, 100, 511, 512, 513, 1023, 1024, 1025)


def whole(windows: torch.Tensor, front_end) -> torch.Tensor:
    """The plain transform of every frame, by torch.stft."""
    window = torch.hann_window(front_end.n_fft)
    spectrum = torch.stft(
        windows, front_end.n_fft, hop_length=front_end.hop, window=window, pad_mode="reflect", return_complex=True
    )
    bank = mel_filters(front_end.n_fft, front_end.low_hz, front_end.high_hz, front_end.mels, front_end.sample_rate)
    power = spectrum.abs().square().transpose(1, 2)[:, : front_end.frames]
    return 10 * (power @ bank).clamp_min(1e-10).log10()


def lengths(front_end) -> list[int]:
    """Short ones, multiples of the hop and their neighbours, ones just below a window or half of it, and others."""
    size, hop = front_end.samples, front_end.hop
    near = [n * hop + d for n in (1, 2, 7, 100) for d in (-1, 0, 1)]
    ends = [size // part + d for part in (1, 2, 3) for d in (-1, 0, 1) if size // part + d <= size]
    return [*FIXED, *near, *ends, *np.random.default_rng(0).integers(1, size, 12).tolist()]


@pytest.mark.parametrize("front_end", FRONT_ENDS, ids=["repeatpad", "repeat"])
def test_it_is_the_whole_windows_whatever_the_length(front_end):
    rng, own = np.random.default_rng(1), lengths(front_end)
    for part in np.array_split(own, 4):
        pieces = [torch.from_numpy(rng.normal(0, 0.1, n).astype(np.float32)) for n in part]
        windows = fill_windows(pieces, front_end)
        assert all(
            np.array_equal(row, pad(piece.numpy(), front_end)) for row, piece in zip(windows, pieces, strict=True)
        )
        found, expected = log_mel(windows, front_end, part.tolist())[:, 0], whole(windows, front_end)
        assert torch.equal(log_mel_of(pieces, front_end)[:, 0], found)
        assert found.shape == expected.shape
        assert float((found - expected).abs().max()) < 1e-3  # dB


def test_frames_are_transformed_once_and_silent_ones_not_at_all():
    size, count = LAION_FRONT_END.samples, LAION_FRONT_END.frames

    def transformed(length):
        return len(distinct_frames(length, size, count, LAION_FRONT_END)[0])

    assert transformed(480 * 370) == 370 + 5  # 3.7 s, a multiple of the hop: one period, and the seams
    assert transformed(480 * 370 + 13) == 742  # no frame recurs, but a quarter of the window is silent
    assert transformed(size) == count
    assert transformed(1) <= 6


def test_a_long_waveform_is_split_as_its_windows_are():
    waveform = np.arange(2.3 * MICRO_FRONT_END.samples, dtype=np.float32)
    pieces = split(waveform, MICRO_FRONT_END)
    assert [len(piece) for piece in pieces] == [MICRO_FRONT_END.samples] * 4
    assert pieces[-1][-1] == waveform[-1] and pieces[1][0] == MICRO_FRONT_END.samples // 2
