"""Synthesize emotional speech with a source-filter model.

The source is glottal pulses and breath, the filter the formants of one vowel per syllable. Pitch, its range, pace,
energy, breathiness and spectral tilt depend on the emotion, with overlapping strengths. Shapes: T samples.
"""

import hashlib
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clepdg.corpora.parsing import Utterance

Signal = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Style:
    """How an emotion departs from a neutral voice, at full strength."""

    pitch: float = 0.0  # log of a factor on f0
    pitch_range: float = 0.0  # log of a factor on f0's excursions
    pace: float = 0.0  # log of a factor on syllables per second
    energy: float = 0.0  # dB
    breath: float = 0.0  # log of a factor on the breath's share
    tilt: float = 0.0  # octaves that the source's corner frequency moves


STYLES: Final = {
    "angry": Style(pitch=0.22, pitch_range=0.35, pace=0.20, energy=6.0, breath=-0.5, tilt=1.7),
    "happy": Style(pitch=0.40, pitch_range=0.9, pace=0.10, energy=3.0, breath=0.0, tilt=0.5),
    "neutral": Style(),
    "sad": Style(pitch=-0.12, pitch_range=-0.6, pace=-0.25, energy=-4.0, breath=1.1, tilt=-1.3),
}
SPREAD: Final = Style(pitch=0.06, pitch_range=0.15, pace=0.06, energy=1.5, breath=0.2, tilt=0.25)  # per utterance
VOICES: Final = Style(pitch=0.08, pitch_range=0.12, pace=0.05, energy=1.5, breath=0.2, tilt=0.25)  # per speaker

VOWELS: Final = ((730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240))  # Hz
UPPER: Final = (3500, 4500)  # Hz, formants that all vowels share
BANDWIDTHS: Final = (80, 100, 140, 220, 300)  # Hz
SYLLABLES: Final = 7
MARGIN: Final = 0.1  # seconds before and after speech


def generator(*parts: object) -> np.random.Generator:
    """Return a random generator seeded by its arguments' text."""
    return np.random.default_rng(list(hashlib.sha256("/".join(map(str, parts)).encode()).digest()))


def synthesize(spoken: Utterance, emotion: str, corpus: str, rate: int, seed: int) -> Signal:
    """Return clean speech (T,) at `rate` Hz, with margins of silence."""
    voice = generator(seed, corpus, "voice", spoken.speaker)
    rng = generator(seed, corpus, spoken.name)
    female = spoken.gender == "female"
    tract = (1.16 if female else 1.0) * np.exp(voice.normal(0, 0.04))
    style = _style(STYLES[emotion], voice, rng)
    text = generator("text", spoken.text)
    vowels, weights = text.integers(len(VOWELS), size=SYLLABLES), text.uniform(0.75, 1.25, SYLLABLES)
    seconds = float(np.clip(SYLLABLES / (4.8 * np.exp(style.pace)), 1.05, 1.95))
    edges = np.round(np.concatenate([[0], np.cumsum(weights)]) / weights.sum() * seconds * rate).astype(int)

    f0 = _pitch(edges, (205 if female else 120) * np.exp(style.pitch), np.exp(style.pitch_range), rng)
    source = _source(f0, rate, 1400 * 2**style.tilt, 0.05 * np.exp(style.breath), rng)
    ring = int(0.04 * rate)  # a vowel decays after its syllable
    margin = int(MARGIN * rate)
    speech = np.zeros(edges[-1] + 2 * margin)
    for vowel, start, stop in zip(vowels, edges[:-1], edges[1:], strict=True):
        contour = np.sin(np.pi * (np.arange(stop - start) + 0.5) / (stop - start)) ** 0.7 * rng.uniform(0.7, 1.0)
        excitation = np.pad(source[start:stop] * contour, (0, ring))
        formants = [hertz * tract for hertz in (*VOWELS[vowel], *UPPER)]
        speech[margin + start : margin + stop + ring] += _resonate(excitation, formants, rate)
    level = 10 ** ((-24 + style.energy) / 20)  # full scale = 1
    speech *= level / np.sqrt(np.mean(speech**2))
    return speech


def _style(full: Style, voice: np.random.Generator, rng: np.random.Generator) -> Style:
    """Draw an utterance's style from emotion, speaker and chance."""
    strength = rng.uniform(0.6, 1.2)
    return Style(
        **{
            item.name: strength * getattr(full, item.name)
            + voice.normal(0, getattr(VOICES, item.name))
            + rng.normal(0, getattr(SPREAD, item.name))
            for item in fields(Style)
        }
    )


def _pitch(edges: NDArray[np.int_], base: float, span: float, rng: np.random.Generator) -> Signal:
    """Return f0 (T,) in Hz: accents on a falling line, scaled by span."""
    middles = (edges[:-1] + edges[1:]) / 2
    accents = rng.normal(0, 0.09, SYLLABLES) + np.linspace(0.08, -0.08, SYLLABLES)
    contour = np.interp(np.arange(edges[-1]), middles, span * accents)
    flutter = np.interp(np.arange(edges[-1]), np.linspace(0, edges[-1], 80), rng.normal(0, 0.012, 80))
    pitch: Signal = base * np.exp(contour + flutter)
    return pitch


def _source(f0: Signal, rate: int, corner: float, breath: float, rng: np.random.Generator) -> Signal:
    """Return glottal pulses (T,), low-passed at `corner` Hz, with breath."""
    phase = np.cumsum(f0 / rate) % 1.0 / 0.6  # open for 0.6 of a period
    pulses = np.where(phase < 1, 2 * phase - 3 * phase**2, 0.0)
    return low_pass(pulses, corner, rate) + breath * rng.standard_normal(len(f0))


def _resonate(signal: Signal, formants: list[float], rate: int) -> Signal:
    from scipy.signal import lfilter

    for hertz, width in zip(formants, BANDWIDTHS, strict=True):  # one resonance after another, each of gain 1 at 0 Hz
        radius = np.exp(-np.pi * width / rate)
        poles = np.array([1.0, -2 * radius * np.cos(2 * np.pi * hertz / rate), radius**2])
        signal = lfilter([poles.sum()], poles, signal)
    return np.asarray(signal, np.float64)


def low_pass(signal: Signal, hertz: float, rate: int) -> Signal:
    """Apply a one-pole low-pass at `hertz` to a signal (T,)."""
    from scipy.signal import lfilter

    pole = np.exp(-2 * np.pi * hertz / rate)
    passed: Signal = lfilter([1 - pole], [1, -pole], signal)
    return passed
