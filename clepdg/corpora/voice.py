"""Synthesize emotional speech with a source-filter model.

The source is glottal pulses and breath, the filter the formants of one vowel per syllable. In every syllable pitch and
energy rise to a peak and fall. An emotion is when: early (an abrupt start, then a fall) or late (a slow rise, then an
abrupt end). How far and how fast they move belongs to speaker and utterance, so that averages over time (mean, spread,
percentiles, the size of changes) are nearly the same for all emotions, while the order in time differs.
Shapes: T samples, S syllables.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clepdg.corpora.parsing import Utterance

Signal = NDArray[np.float64]
EARLY, LATE = -1.0, 1.0  # a peak 0.3 of a syllable before or after its middle, at strength 1
SHIFT: Final = 0.3


@dataclass(frozen=True, kw_only=True)
class Style:
    """The contours of an emotion.

    Attributes:
        pitch: when pitch peaks in a syllable, one syllable after another, then over again.
        energy: when energy peaks, likewise.
        rhythm: relative lengths of syllables, likewise.
        pace: log of a factor on syllables per second.
    """

    pitch: tuple[float, ...]
    energy: tuple[float, ...]
    rhythm: tuple[float, ...] = (1.0,)
    pace: float = 0.0


STYLES: Final = {
    # fast, abrupt, falling
    "angry": Style(pitch=(EARLY,), energy=(EARLY,), pace=0.06),
    # rising, then down at once; syncopated
    "happy": Style(pitch=(LATE,), energy=(EARLY, LATE), rhythm=(1.25, 0.75), pace=0.03),
    # even: no direction prevails
    "neutral": Style(pitch=(EARLY, LATE), energy=(LATE, EARLY)),
    # slow, falling, weak starts
    "sad": Style(pitch=(EARLY,), energy=(LATE,), pace=-0.06),
}


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Standard deviations of what has nothing to do with emotion."""

    pitch: float  # log of f0
    pitch_range: float  # log of f0's excursions
    depth: float  # log of energy's excursions in dB
    pace: float  # log of syllables per second
    level: float  # dB
    breath: float  # log of the breath's share
    tilt: float  # octaves of the source's corner frequency


SPEAKERS: Final = Spread(pitch=0.12, pitch_range=0.2, depth=0.15, pace=0.12, level=4.0, breath=0.4, tilt=0.5)
UTTERANCES: Final = Spread(pitch=0.08, pitch_range=0.15, depth=0.15, pace=0.08, level=2.0, breath=0.3, tilt=0.3)

VOWELS: Final = ((730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240))  # Hz
UPPER: Final = (3500, 4500)  # Hz, formants that all vowels share
BANDWIDTHS: Final = (80, 100, 140, 220, 300)  # Hz
SYLLABLES: Final = 4
PITCH_RANGE: Final = 0.3  # log of f0, from its middle to its peak
DEPTH: Final = 18.0  # dB from a syllable's edges to its peak
MARGIN: Final = 0.1  # seconds before and after speech


def generator(*parts: object) -> np.random.Generator:
    """Return a random generator seeded by its arguments' text."""
    return np.random.default_rng(list(hashlib.sha256("/".join(map(str, parts)).encode()).digest()))


def synthesize(spoken: Utterance, emotion: str, corpus: str, rate: int, seed: int) -> Signal:
    """Return clean speech (T,) at `rate` Hz, with margins of silence."""
    voice = generator(seed, corpus, "voice", spoken.speaker)
    rng = generator(seed, corpus, spoken.name)
    female, style = spoken.gender == "female", STYLES[emotion]
    tract = (1.16 if female else 1.0) * np.exp(voice.normal(0, 0.04))
    own = _draw(voice, rng)
    strength, first = rng.uniform(0.6, 1.1), int(rng.integers(2))

    text = generator("text", spoken.text)
    vowels = text.integers(len(VOWELS), size=SYLLABLES)
    weights = text.uniform(0.85, 1.15, SYLLABLES) * _repeat(style.rhythm, first)
    seconds = float(np.clip(SYLLABLES / (2.6 * np.exp(style.pace + own.pace)), 1.05, 1.95))
    edges = np.round(np.concatenate([[0], np.cumsum(weights)]) / weights.sum() * seconds * rate).astype(int)

    pitch = 2 * _contour(edges, 0.5 + strength * SHIFT * _repeat(style.pitch, first)) - 1
    flutter = np.interp(np.arange(edges[-1]), np.linspace(0, edges[-1], 80), rng.normal(0, 0.012, 80))
    base, span = (205 if female else 120) * np.exp(own.pitch), PITCH_RANGE * np.exp(own.pitch_range)
    source = _source(base * np.exp(span * pitch + flutter), rate, 1400 * 2**own.tilt, 0.05 * np.exp(own.breath), rng)
    accents = np.repeat(rng.permutation(np.linspace(0, -4, SYLLABLES)), np.diff(edges))  # dB
    fall = 1 - _contour(edges, 0.5 + strength * SHIFT * _repeat(style.energy, first))
    source *= _smooth(10 ** ((accents - DEPTH * np.exp(own.depth) * fall) / 20), int(0.008 * rate))

    ring = int(0.04 * rate)  # a vowel decays after its syllable
    margin = int(MARGIN * rate)
    speech = np.zeros(edges[-1] + 2 * margin)
    for vowel, start, stop in zip(vowels, edges[:-1], edges[1:], strict=True):
        formants = [hertz * tract for hertz in (*VOWELS[vowel], *UPPER)]
        speech[margin + start : margin + stop + ring] += _resonate(
            np.pad(source[start:stop], (0, ring)), formants, rate
        )
    level = 10 ** ((-24 + own.level) / 20)  # full scale = 1
    speech *= level / np.sqrt(np.mean(speech**2))
    return speech


def _draw(voice: np.random.Generator, rng: np.random.Generator) -> Spread:
    """Draw an utterance's departures from the average voice."""
    return Spread(
        **{
            name: voice.normal(0, spread) + rng.normal(0, vars(UTTERANCES)[name])
            for name, spread in vars(SPEAKERS).items()
        }
    )


def _repeat(pattern: tuple[float, ...], first: int) -> Signal:
    """Return a pattern (S,) over all syllables, from its `first` item on."""
    repeated: Signal = np.resize(np.roll(pattern, first), SYLLABLES)
    return repeated


def _contour(edges: NDArray[np.int_], peaks: Signal) -> Signal:
    """Return lines (T,) from 0 up to 1 and down to 0 in each syllable.

    Args:
        peaks: (S,) in (0, 1), the peak's place in its syllable.
    """
    lengths = np.diff(edges)
    place = (np.arange(edges[-1]) - np.repeat(edges[:-1], lengths) + 0.5) / np.repeat(lengths, lengths)
    peak = np.repeat(peaks, lengths)
    contour: Signal = np.where(place < peak, place / peak, (1 - place) / (1 - peak))
    return contour


def _smooth(signal: Signal, samples: int) -> Signal:
    """Return a signal (T,) smoothed over `samples` before and after."""
    window = np.hanning(2 * samples + 1)
    return np.convolve(signal, window / window.sum(), "same")


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
