"""Corrupt speech by rooms, noises and channels.

A condition is "clean" or parts joined by "+", applied in this order: a room ("room-short"), a noise at an SNR over
active speech ("babble-10dB"), a channel ("telephone" or "clipping"). It is applied at 16 kHz before windowing; length,
RMS and the time of the direct sound stay the same. The random draws depend only on the condition without its SNR and on
the utterance's id, so all rows get the same audio. Training uses other kinds of noise and other rooms.
"""

import io
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np

from clepdg.audio import rooms
from clepdg.audio.io import Waveform, resample
from clepdg.audio.noise import COLOURS, RATE, TRAINING_NOISES, active_frames, active_power, float32, make_noise
from clepdg.config.conditions import Condition
from clepdg.hashing import generator

CLIPPED_SHARE: Final = 0.1  # of the samples of active speech
LINE_HZ: Final = (300.0, 3400.0)


def corrupt(
    waveform: Waveform,
    rate: int,
    utterance_id: str,
    condition: Condition,
    recordings: Sequence[Waveform] = (),
    noise: Callable[[Callable[[], Waveform]], Waveform] = operator.call,
) -> Waveform:
    """Resample an utterance (T,) to 16 kHz and corrupt it.

    Args:
        recordings: waveforms at 16 kHz: speech for babble, or the user's own noises.
        noise: returns what a function makes, the utterance's noise (T,), which all SNRs share.

    Raises:
        ConfigError: the noise needs recordings, and there are none.
    """
    waveform = resample(waveform, rate, RATE)
    rng = generator("corruption", condition.curve, utterance_id)
    changed = waveform
    if condition.room:
        changed = in_room(changed, "test", condition.room, int(rng.integers(rooms.ROOMS_PER_BAND)))
    if condition.noise:
        made = noise(partial(make_noise, condition.noise, len(changed), recordings, rng))
        changed = add_noise(changed, made, condition.snr)
    if condition.channel:
        changed = telephone(changed) if condition.channel == "telephone" else clip(changed)
    return match_rms(waveform, changed)


def augment(waveform: Waveform, rate: int, rng: np.random.Generator) -> Waveform:
    """Resample to 16 kHz; add a room and a noise, each by chance.

    The SNR is 0 to 20 dB.
    """
    waveform = resample(waveform, rate, RATE)
    changed = waveform
    if rng.random() < 0.5:
        changed = in_room(
            changed, "training", str(rng.choice(list(rooms.BANDS))), int(rng.integers(rooms.ROOMS_PER_BAND))
        )
    if rng.random() < 0.75:
        noise = COLOURS[str(rng.choice(TRAINING_NOISES))](len(changed), rng)
        changed = add_noise(changed, noise, float(rng.uniform(0, 20)))
    return match_rms(waveform, changed)


def in_room(waveform: Waveform, bank: str, band: str, number: int) -> Waveform:
    """Convolve a waveform (T,) with a room's impulse response; keep T samples."""
    from scipy.signal import fftconvolve

    response = rooms.impulse_response(bank, band, number)
    return float32(fftconvolve(waveform, response)[: len(waveform)])


def add_noise(waveform: Waveform, noise: Waveform, snr: float) -> Waveform:
    """Add a noise (T,) at `snr` dB below active speech."""
    speech, power = active_power(waveform), float(np.mean(np.square(noise, dtype=np.float64)))
    if speech <= 0 or power <= 0:
        return waveform
    gain = np.sqrt(speech / power / 10 ** (snr / 10))
    return float32(waveform + gain * noise)


def telephone(waveform: Waveform) -> Waveform:
    """Pass a waveform (T,) at 16 kHz through a telephone line.

    300 to 3,400 Hz, sampled at 8 kHz, G.711 mu-law.
    """
    import soundfile
    from scipy.signal import butter, sosfiltfilt

    band = butter(4, LINE_HZ, "bandpass", fs=RATE, output="sos")
    line = resample(sosfiltfilt(band, waveform).astype(np.float32), RATE, RATE // 2)
    peak = max(1.0, float(np.abs(line).max()))
    buffer = io.BytesIO()
    soundfile.write(buffer, line / peak, RATE // 2, format="WAV", subtype="ULAW")
    buffer.seek(0)
    decoded, _ = soundfile.read(buffer, dtype="float32")
    return np.resize(resample(decoded * peak, RATE // 2, RATE), len(waveform))


def clip(waveform: Waveform) -> Waveform:
    """Clip the loudest tenth of the active samples of a waveform (T,).

    Pauses do not count: of an utterance with long ones, less speech would be clipped.
    """
    limit = float(np.quantile(np.abs(active_frames(waveform)), 1 - CLIPPED_SHARE))
    return np.clip(waveform, -limit, limit)


def match_rms(waveform: Waveform, changed: Waveform) -> Waveform:
    """Scale a changed waveform (T,) to the RMS of the original (T,)."""
    before, after = (float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) for x in (waveform, changed))
    return float32(changed * (before / after)) if after > 0 else changed
