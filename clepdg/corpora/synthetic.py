"""Synthetic corpora: emotional speech by a source and a filter, so that everything runs without a download.

Glottal pulses and breath pass through a vowel's formants, one syllable after another. Pitch, its range, pace, energy,
breathiness and spectral tilt follow the emotion, with strengths that overlap; every speaker has a voice and every
corpus a microphone, a room and a noise floor of its own (`acoustics` of its card), the same for all emotions. The files
lie as those of a real corpus do (`grammar` of its card) and are read by its parser.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clepdg.cards import Card, Expected
from clepdg.config import SyntheticConfig
from clepdg.corpora import crema_d, emodb, ravdess, tess
from clepdg.corpora.grammar import Finding, Spoken
from clepdg.errors import ConfigError

Signal = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a grammar names files: every speaker may say every text in every take."""

    speakers: tuple[str, ...]
    texts: tuple[str, ...]
    takes: tuple[str, ...]
    path: Callable[[str, str, str, str], str]  # speaker, raw_label, text, take -> path
    parse: Callable[[str], Spoken | Finding]


def _ravdess_path(speaker: str, raw_label: str, text: str, take: str) -> str:
    emotion = next(code for code, label in ravdess.LABELS.items() if label == raw_label)
    intensity, repetition = take.split("-")
    return f"Actor_{speaker}/03-01-{emotion}-{intensity}-{text}-{repetition}-{speaker}.wav"


def _emodb_path(speaker: str, raw_label: str, text: str, take: str) -> str:
    emotion = next(code for code, label in emodb.LABELS.items() if label == raw_label)
    return f"wav/{speaker}{text}{emotion}{take}.wav"


LAYOUTS: Final = {
    "ravdess": Layout(
        speakers=tuple(f"{actor:02d}" for actor in range(1, 25)),
        texts=tuple(ravdess.STATEMENTS),
        takes=("01-01", "01-02", "02-01", "02-02"),
        path=_ravdess_path,
        parse=ravdess.parse,
    ),
    "tess": Layout(
        speakers=("OAF", "YAF"),
        texts=tuple(map("".join, product("bdgklmnprst", "aeiou", "klmnst"))),
        takes=("",),
        path=lambda speaker, raw_label, text, take: f"{speaker}_{raw_label}/{speaker}_{text}_{raw_label}.wav",
        parse=tess.parse,
    ),
    "emodb": Layout(
        speakers=tuple(emodb.GENDERS),
        texts=tuple(emodb.TEXTS),
        takes=tuple(ascii_lowercase),
        path=_emodb_path,
        parse=emodb.parse,
    ),
    "crema-d": Layout(
        speakers=tuple(str(actor) for actor in range(1001, 1092)),
        texts=tuple(crema_d.SENTENCES),
        takes=("XX", "LO", "MD", "HI"),
        path=lambda speaker, raw_label, text, take: f"AudioWAV/{speaker}_{text}_{raw_label}_{take}.wav",
        parse=crema_d.parse,
    ),
}
SPEAKERS: Final = 5  # where the layout has them; more only when these have nothing left to say


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


def sized(card: Card, config: SyntheticConfig) -> Card:
    """Return the card with the counts that a corpus of the configured size has.

    Raises:
        ConfigError: the grammar has no room for so many utterances.
    """
    plan = _plan(card, config)
    return replace(
        card,
        expected=Expected(
            utterances=len(plan),
            speakers=len({spoken.speaker for spoken in plan}),
            sample_rate=card.expected.sample_rate,
            emotions=dict(Counter(spoken.raw_label for spoken in plan)),
        ),
    )


def write(card: Card, config: SyntheticConfig, root: Path) -> None:
    """Write a synthetic corpus below root: about `config.utterances` WAV files of 16 bit, the same bytes on every run.

    Raises:
        ConfigError: the grammar has no room for so many utterances.
    """
    import soundfile

    plan = _plan(card, config)
    room = _impulse_response(card)
    for spoken in plan:
        path = root / spoken.path
        path.parent.mkdir(parents=True, exist_ok=True)
        signal = _record(_speak(card, spoken, config.seed), card, spoken, room, config.seed)
        pcm = np.round(signal * 32767).astype(np.int16)
        soundfile.write(path, pcm, card.expected.sample_rate, format="WAV", subtype="PCM_16")


def _plan(card: Card, config: SyntheticConfig) -> list[Spoken]:
    """Return the utterances: every speaker says the same texts in every emotion."""
    layout = LAYOUTS[card.grammar]
    room = len(layout.texts) * len(layout.takes)
    for count in range(min(SPEAKERS, len(layout.speakers)), len(layout.speakers) + 1):
        each = max(1, round(config.utterances / (count * len(card.labels))))
        if each <= room:
            return list(_utterances(layout, layout.speakers[:count], tuple(card.labels), each))
    most = room * len(layout.speakers) * len(card.labels)
    raise ConfigError(
        f"{card.name} has no room for so many utterances.",
        got=config.utterances,
        expected=f"at most {most}",
        where="synthetic.utterances",
    )


def _utterances(layout: Layout, speakers: tuple[str, ...], raw_labels: tuple[str, ...], each: int) -> Iterator[Spoken]:
    said = list(islice(product(layout.takes, layout.texts), each))
    for speaker, raw_label, (take, text) in product(speakers, raw_labels, said):
        spoken = layout.parse(layout.path(speaker, raw_label, text, take))
        assert isinstance(spoken, Spoken), "a layout writes what its own parser reads"
        yield spoken


def _generator(*parts: object) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256("/".join(map(str, parts)).encode()).digest()))


def _speak(card: Card, spoken: Spoken, seed: int) -> Signal:
    """Return speech (T,) before any microphone, with margins of silence."""
    rate = card.expected.sample_rate
    voice = _generator(seed, card.name, "voice", spoken.speaker)
    rng = _generator(seed, card.name, spoken.name)
    female = spoken.gender == "female"
    tract = (1.16 if female else 1.0) * np.exp(voice.normal(0, 0.04))
    style = _style(STYLES[card.labels[spoken.raw_label]], voice, rng)
    text = _generator("text", spoken.text)
    vowels, weights = text.integers(len(VOWELS), size=SYLLABLES), text.uniform(0.75, 1.25, SYLLABLES)
    seconds = float(np.clip(SYLLABLES / (4.8 * np.exp(style.pace)), 1.05, 1.95))
    edges = np.round(np.concatenate([[0], np.cumsum(weights)]) / weights.sum() * seconds * rate).astype(int)

    f0 = _pitch(edges, (205 if female else 120) * np.exp(style.pitch), np.exp(style.pitch_range), rng)
    source = _source(f0, rate, 1400 * 2**style.tilt, 0.05 * np.exp(style.breath), rng)
    ring = int(0.04 * rate)  # a vowel sounds on after its syllable
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
    """Draw an utterance's style: the emotion at some strength, the speaker's habit and chance."""
    strength = rng.uniform(0.6, 1.2)
    return Style(
        **{
            name: strength * getattr(full, name)
            + voice.normal(0, getattr(VOICES, name))
            + rng.normal(0, getattr(SPREAD, name))
            for name in Style.__dataclass_fields__
        }
    )


def _pitch(edges: NDArray[np.int_], base: float, span: float, rng: np.random.Generator) -> Signal:
    """Return f0 (T,) in Hz: accents on the syllables and a falling line, both widened by span."""
    middles = (edges[:-1] + edges[1:]) / 2
    accents = rng.normal(0, 0.09, SYLLABLES) + np.linspace(0.08, -0.08, SYLLABLES)
    contour = np.interp(np.arange(edges[-1]), middles, span * accents)
    flutter = np.interp(np.arange(edges[-1]), np.linspace(0, edges[-1], 80), rng.normal(0, 0.012, 80))
    pitch: Signal = base * np.exp(contour + flutter)
    return pitch


def _source(f0: Signal, rate: int, corner: float, breath: float, rng: np.random.Generator) -> Signal:
    """Return glottal flow derivative pulses (T,) with breath, low-passed at `corner` Hz."""
    phase = np.cumsum(f0 / rate) % 1.0 / 0.6  # open for 0.6 of a period
    pulses = np.where(phase < 1, 2 * phase - 3 * phase**2, 0.0)
    return _low_pass(pulses, corner, rate) + breath * rng.standard_normal(len(f0))


def _resonate(signal: Signal, formants: list[float], rate: int) -> Signal:
    from scipy.signal import lfilter

    for hertz, width in zip(formants, BANDWIDTHS, strict=True):  # one resonance after another, each of gain 1 at 0 Hz
        radius = np.exp(-np.pi * width / rate)
        poles = np.array([1.0, -2 * radius * np.cos(2 * np.pi * hertz / rate), radius**2])
        signal = lfilter([poles.sum()], poles, signal)
    return np.asarray(signal, np.float64)


def _low_pass(signal: Signal, hertz: float, rate: int) -> Signal:
    from scipy.signal import lfilter

    pole = np.exp(-2 * np.pi * hertz / rate)
    passed: Signal = lfilter([1 - pole], [1, -pole], signal)
    return passed


def _impulse_response(card: Card) -> Signal:
    """Return the room's reverberation (T,), of unit energy."""
    rate, seconds = card.expected.sample_rate, card.acoustics["reverb_seconds"]
    time = np.arange(int(rate * seconds)) / rate
    tail = _generator(card.name, "room").standard_normal(len(time)) * 10 ** (-3 * time / seconds)  # -60 dB at the end
    response: Signal = tail / np.sqrt(np.sum(tail**2))
    return response


def _record(speech: Signal, card: Card, spoken: Spoken, room: Signal, seed: int) -> Signal:
    """Return speech (T,) as this corpus's room, noise and microphone give it, within [-0.95, 0.95]."""
    from scipy.signal import fftconvolve

    rate, acoustics = card.expected.sample_rate, card.acoustics
    rng = _generator(seed, card.name, spoken.name, "noise")
    level = 10 ** ((acoustics["noise_db"] + rng.normal(0, 1.5)) / 20)
    signal = speech + acoustics["reverb_share"] * fftconvolve(speech, room)[: len(speech)]
    signal = signal + level * rng.standard_normal(len(speech))
    signal = _low_pass(signal, acoustics["high_cut_hz"], rate)
    signal = signal - _low_pass(signal, acoustics["low_cut_hz"], rate)
    recorded: Signal = signal * min(1.0, 0.95 / np.abs(signal).max())
    return recorded
