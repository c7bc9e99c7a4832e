"""Write synthetic corpora of emotional speech, which need no download.

Every speaker has a voice, and every corpus its own microphone, room and noise floor (`acoustics` of its card), the same
for all emotions: they change averages over time from corpus to corpus, which emotions hardly do (clepdg.corpora.voice).
The files have the paths of a real corpus (`grammar` of its card) and are read by its parser.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Final

from clepdg.config.schema import SyntheticConfig
from clepdg.corpora import crema_d, emodb, ravdess
from clepdg.corpora.cards import Card, Expected
from clepdg.corpora.parsing import Finding, Utterance
from clepdg.errors import ConfigError

if TYPE_CHECKING:
    from clepdg.corpora.voice import Signal


@dataclass(frozen=True, kw_only=True)
class Layout:
    """File names of a grammar: every speaker, text, emotion and take."""

    emotions: dict[str, str]  # raw_label -> speaking style; not the card's label map, which may be edited
    speakers: tuple[str, ...]
    texts: tuple[str, ...]
    takes: tuple[str, ...]
    path: Callable[[str, str, str, str], str]  # speaker, raw_label, text, take -> path
    parse: Callable[[str], Utterance | Finding]


def _ravdess_path(speaker: str, raw_label: str, text: str, take: str) -> str:
    emotion = next(code for code, label in ravdess.LABELS.items() if label == raw_label)
    intensity, repetition = take.split("-")
    return f"Actor_{speaker}/03-01-{emotion}-{intensity}-{text}-{repetition}-{speaker}.wav"


def _emodb_path(speaker: str, raw_label: str, text: str, take: str) -> str:
    emotion = next(code for code, label in emodb.LABELS.items() if label == raw_label)
    return f"wav/{speaker}{text}{emotion}{take}.wav"


LAYOUTS: Final = {
    "ravdess": Layout(
        emotions={emotion: emotion for emotion in ("angry", "happy", "neutral", "sad")},
        speakers=tuple(f"{actor:02d}" for actor in range(1, 25)),
        texts=tuple(ravdess.STATEMENTS),
        takes=("01-01", "01-02", "02-01", "02-02"),
        path=_ravdess_path,
        parse=ravdess.parse,
    ),
    "emodb": Layout(
        emotions={"anger": "angry", "happiness": "happy", "neutral": "neutral", "sadness": "sad"},
        speakers=tuple(emodb.GENDERS),
        texts=tuple(emodb.TEXTS),
        takes=tuple(ascii_lowercase),
        path=_emodb_path,
        parse=emodb.parse,
    ),
    "crema-d": Layout(
        emotions={"ANG": "angry", "HAP": "happy", "NEU": "neutral", "SAD": "sad"},
        speakers=tuple(str(actor) for actor in range(1001, 1092)),
        texts=tuple(crema_d.SENTENCES),
        takes=("XX", "LO", "MD", "HI"),
        path=lambda speaker, raw_label, text, take: f"AudioWAV/{speaker}_{text}_{raw_label}_{take}.wav",
        parse=crema_d.parse,
    ),
}
SPEAKERS: Final = (5, 10)  # fewest in a small corpus and in a large one; more only when these have used all texts


def with_size(card: Card, config: SyntheticConfig) -> Card:
    """Return the card with the expected counts of the configured size.

    Raises:
        ConfigError: the grammar has too few names.
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
    """Write a synthetic corpus below root.

    About `config.utterances` WAV files of 16 bit, with equal bytes on every run.

    Raises:
        ConfigError: the grammar has too few names.
    """
    import numpy as np
    import soundfile

    from clepdg.corpora.voice import synthesize

    plan = _plan(card, config)
    emotions = LAYOUTS[card.grammar].emotions
    rate = _rate(card)
    room = _impulse_response(card)
    for spoken in plan:
        path = root / spoken.path
        path.parent.mkdir(parents=True, exist_ok=True)
        speech = synthesize(spoken, emotions[spoken.raw_label], card.name, rate, config.seed)
        signal = _record(speech, card, spoken, room, config.seed)
        pcm = np.round(signal * 32767).astype(np.int16)
        audio = io.BytesIO()  # libsndfile does not report why it can't write a file
        soundfile.write(audio, pcm, rate, format="WAV", subtype="PCM_16")
        path.write_bytes(audio.getvalue())


def _rate(card: Card) -> int:
    assert card.expected.sample_rate, "a synthetic corpus's card has a rate"
    return card.expected.sample_rate


def _plan(card: Card, config: SyntheticConfig) -> list[Utterance]:
    """Return the utterances: the same texts for all speakers and emotions."""
    layout = LAYOUTS[card.grammar]
    room = len(layout.texts) * len(layout.takes)
    two_texts_each = config.utterances // (2 * len(layout.emotions))
    fewest = min(max(two_texts_each, SPEAKERS[0]), SPEAKERS[1])
    for count in range(fewest, len(layout.speakers) + 1):
        each = max(1, round(config.utterances / (count * len(layout.emotions))))
        if each <= room:
            return list(_utterances(layout, layout.speakers[:count], each))
    most = room * len(layout.speakers) * len(layout.emotions)
    raise ConfigError(
        f"{card.name} can't have that number of utterances.",
        got=config.utterances,
        expected=f"at most {most}",
        where="synthetic.utterances",
    )


def _utterances(layout: Layout, speakers: tuple[str, ...], each: int) -> Iterator[Utterance]:
    texts = list(islice(product(layout.takes, layout.texts), each))
    for speaker, raw_label, (take, text) in product(speakers, layout.emotions, texts):
        spoken = layout.parse(layout.path(speaker, raw_label, text, take))
        assert isinstance(spoken, Utterance), "a layout's names match its own parser"
        yield spoken


def _impulse_response(card: Card) -> "Signal":
    """Return the room's reverberation (T,), of unit energy."""
    import numpy as np

    from clepdg.corpora.voice import generator

    rate, seconds = _rate(card), card.acoustics["reverb_seconds"]
    time = np.arange(int(rate * seconds)) / rate
    tail = generator(card.name, "room").standard_normal(len(time)) * 10 ** (-3 * time / seconds)  # -60 dB at the end
    response: Signal = tail / np.sqrt(np.sum(tail**2))
    return response


def _record(speech: "Signal", card: Card, spoken: Utterance, room: "Signal", seed: int) -> "Signal":
    """Add a corpus's room, noise and microphone to speech (T,).

    The result lies in [-0.95, 0.95].
    """
    import numpy as np
    from scipy.signal import fftconvolve

    from clepdg.corpora.voice import generator, low_pass

    rate, acoustics = _rate(card), card.acoustics
    rng = generator(seed, card.name, spoken.name, "noise")
    level = 10 ** ((acoustics["noise_db"] + rng.normal(0, 1.5)) / 20)
    signal = speech + acoustics["reverb_share"] * fftconvolve(speech, room)[: len(speech)]
    signal = signal + level * rng.standard_normal(len(speech))
    signal = low_pass(signal, acoustics["high_cut_hz"], rate)
    signal = signal - low_pass(signal, acoustics["low_cut_hz"], rate)
    recorded: Signal = signal * min(1.0, 0.95 / np.abs(signal).max())
    return recorded
