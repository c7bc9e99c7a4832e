"""Noises at 16 kHz: generated, recorded by the user, or babble of talkers."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clepdg.audio.formats import AUDIO_SUFFIXES
from clepdg.audio.inspection import read_audio, read_usable
from clepdg.audio.io import Waveform, resample
from clepdg.config.conditions import OWN
from clepdg.config.schema import IndexConfig
from clepdg.errors import ConfigError

RATE: Final = 16000  # Hz
TALKERS: Final = 6  # voices of a babble
FRAME: Final = 320  # samples: 20 ms
ACTIVE_DB: Final = 30.0  # frames weaker than the loud ones by more than this are not speech
LIMITS: Final = IndexConfig(max_seconds=3600.0)  # of such a recording
TRAINING_NOISES: Final = ("brown", "blue", "rumble")  # other than the evaluation's


def active_frames(waveform: Waveform) -> Waveform:
    """Return the active 20-ms frames (F, 320) of a waveform (T,).

    They lie within 30 dB of the 95th percentile of the frames' power. A shorter waveform is one frame.
    """
    whole = len(waveform) // FRAME * FRAME
    return waveform[:whole].reshape(-1, FRAME)[is_active(waveform)] if whole else waveform[None]


def is_active(waveform: Waveform) -> NDArray[np.bool_]:
    """Return which 20-ms frames (F,) of a waveform (T,) are active.

    One that is shorter is one active frame.
    """
    whole = len(waveform) // FRAME * FRAME
    if whole == 0:
        return np.ones(1, dtype=bool)
    power = np.square(waveform[:whole].reshape(-1, FRAME), dtype=np.float64).mean(axis=1)
    active: NDArray[np.bool_] = power >= np.quantile(power, 0.95) / 10 ** (ACTIVE_DB / 10)
    return active


def active_power(waveform: Waveform) -> float:
    """Return the mean power of the active frames of a waveform (T,)."""
    return float(np.square(active_frames(waveform), dtype=np.float64).mean(axis=1).mean())


def find_noises(folder: str | None) -> list[Path]:
    """Find the audio files below the folder of noise "own", sorted by path.

    Raises:
        ConfigError: no folder is given, or it holds none.
    """
    below = Path(os.path.expanduser(folder)).rglob("*") if folder else []
    paths = sorted(path for path in below if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
    if not paths:
        raise ConfigError(
            f"The noise {OWN!r} needs a folder of recordings.",
            got=f"none in {folder}" if folder else "no folder",
            expected=AUDIO_SUFFIXES,
            where="evaluate.noise_folder",
        )
    return paths


def read_noises(folder: str) -> list[Waveform]:
    """Read the recordings of noise "own" as waveforms (T,) at 16 kHz.

    Raises:
        ConfigError: there are none.
        IndexingError: some can't be used; each is named.
    """
    paths = [(str(path), path) for path in find_noises(folder)]
    usable = read_usable(paths, partial(read_audio, config=LIMITS))
    return [resample(waveform, rate, RATE) for waveform, rate in usable]


def make_noise(kind: str, length: int, recordings: Sequence[Waveform], rng: np.random.Generator) -> Waveform:
    """Return a noise (length,) at 16 kHz.

    Args:
        kind: one of `conditions.NOISES`.
        recordings: waveforms at 16 kHz, for "babble" and "own".

    Raises:
        ConfigError: the kind needs recordings, and there are none.
    """
    if kind in COLOURS:
        return COLOURS[kind](length, rng)
    if not recordings:
        raise ConfigError("This noise needs recordings, and there are none.", got=kind)
    if kind == OWN:
        return _excerpt(recordings[int(rng.integers(len(recordings)))], length, rng)
    voices = rng.choice(len(recordings), size=TALKERS, replace=len(recordings) < TALKERS)
    talk = [_excerpt(recordings[int(voice)], length, rng) for voice in voices]
    return float32(np.sum([voice / np.sqrt(active_power(voice) + 1e-12) for voice in talk], axis=0))


def _excerpt(recording: Waveform, length: int, rng: np.random.Generator) -> Waveform:
    """Return `length` samples from a random start, wrapping around."""
    start = int(rng.integers(len(recording)))
    return np.resize(np.roll(recording, -start), length)


def _coloured(length: int, rng: np.random.Generator, slope: float) -> Waveform:
    """Return noise (length,) with power f^-slope above 20 Hz.

    Slope 1 is pink, 2 brown, -1 blue.
    """
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.maximum(np.fft.rfftfreq(length, 1 / RATE), 20.0)
    return float32(np.fft.irfft(spectrum * frequency ** (-slope / 2), length))


def _hum(length: int, rng: np.random.Generator) -> Waveform:
    """Return a mains hum (length,): 50 or 60 Hz and harmonics up to 1 kHz.

    Amplitudes fall by 1/k; phases are random.
    """
    mains = float(rng.choice([50.0, 60.0]))
    harmonics = range(1, int(1000 / mains) + 1)
    phases, samples = rng.uniform(0, 2 * np.pi, len(harmonics)), np.arange(length)
    waves = np.zeros(length)
    for k, phase in zip(harmonics, phases, strict=True):  # one by one: a matrix of them leaves the processor's cache
        waves += np.sin(2 * np.pi * mains * k * samples / RATE + phase) / k
    return float32(waves)


def _rumble(length: int, rng: np.random.Generator) -> Waveform:
    """Return engine noise (length,): brown, modulated at 2 to 8 Hz."""
    time, speed, phase = np.arange(length) / RATE, rng.uniform(2, 8), rng.uniform(0, 2 * np.pi)
    swell = 1 + 0.8 * np.sin(2 * np.pi * speed * time + phase)
    return float32(_coloured(length, rng, 2.0) * swell)


def float32(values: Any) -> Waveform:
    """Convert samples (T,) to float32."""
    narrowed: Waveform = np.asarray(values, np.float32)
    return narrowed


COLOURS: Final[dict[str, Callable[[int, np.random.Generator], Waveform]]] = {
    "white": lambda length, rng: float32(rng.standard_normal(length)),
    "pink": lambda length, rng: _coloured(length, rng, 1.0),
    "hum": _hum,
    "brown": lambda length, rng: _coloured(length, rng, 2.0),
    "blue": lambda length, rng: _coloured(length, rng, -1.0),
    "rumble": _rumble,
}
