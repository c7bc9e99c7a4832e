"""Corpus cards: data_manifests/<corpus>.toml as frozen dataclasses.

A card holds what is known about a corpus without having it: sources with checksums and bytes, licence, citation,
expected counts, the label map, the split and its unit, exclusions and known faults. What a stage reads of a card is in
that stage's key; the expected counts only accept or refuse, so they are in no key.
"""

import hashlib
import tomllib
import typing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from clepdg.emotions import EMOTIONS
from clepdg.errors import ConfigError

MANIFESTS = Path(__file__).resolve().parents[1] / "data_manifests"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Address:
    """One published address of a corpus. A checksum binds this address, never a user's own --source.

    Attributes:
        url: of an archive; with `files`, of the folder that they lie in; with `dataverse`, of the repository.
        bytes: of the archive, as md5 and sha256 are.
        files: a table in data_manifests: path, bytes and sha256 of every single file below url.
        dataverse: persistent id of a dataset whose audio files are taken one by one.
        recorded: where checksums come from that the publisher does not give; never in a card.
    """

    url: str
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    files: str | None = None
    dataverse: str | None = None
    recorded: str | None = None

    @property
    def many(self) -> bool:
        """Whether single files are taken, not an archive."""
        return bool(self.files or self.dataverse)


@dataclass(frozen=True, kw_only=True)
class Split:
    """The one fixed train / validation / test split of a corpus; all that is not named is train.

    Attributes:
        unit: what keeps the parts apart: "speaker", "text" or "official"; tables mark what is not "speaker".
        test: speakers of the test part.
        validation: speakers of the validation part.
        parts: the corpus's own part ("Development") -> "train", "validation", "test" or, for what is left out, "";
            where this is given, speakers and texts decide nothing. Unit "official" without it takes the three names.
        validation_text_share: share in [0, 1) of the remaining speakers' texts that go to validation, by sha256 of the
            text's id, for corpora with too few speakers for a validation speaker.
    """

    unit: Literal["speaker", "text", "official"]
    test: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    validation_text_share: float = 0.0
    parts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.unit == "official" and not self.parts:
            object.__setattr__(self, "parts", {name: name for name in SPLITS})

    def part(self, speaker: str, text: str, official: str | None = None) -> str | None:
        """Return "train", "validation", "test" or, for an official part that is left out, None.

        Args:
            speaker: without the corpus's prefix.
            text: id of the text.
            official: the corpus's own part; `parts` must know it.
        """
        if self.parts:
            return self.parts[official or ""] or None
        if speaker in self.test:
            return "test"
        if speaker in self.validation:
            return "validation"
        draw = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
        return "validation" if draw < self.validation_text_share else "train"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a complete copy holds, as far as it is known; a copy that differs is refused unless --allow-partial."""

    utterances: int | None = None
    speakers: int | None = None
    sample_rate: int | None = None  # Hz, the usual rate; single odd files are notes
    emotions: dict[str, int] = field(default_factory=dict)  # raw_label -> utterances


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is known about a corpus without having it."""

    name: str
    title: str
    grammar: str  # name in clepdg.corpora.CORPORA of the parser of its file names
    language: str  # ISO 639-1
    licence: str
    citation: str
    homepage: str
    labels: dict[str, str]  # raw_label -> canonical emotion, "" = names no emotion
    split: Split
    expected: Expected
    sources: tuple[Address, ...] = ()  # tried in this order
    nested: bool = False  # the archive holds archives that hold the corpus
    apply: str | None = None  # what to do to get the corpus where no address is open
    exclude: tuple[str, ...] = ()  # utterance ids or speakers withdrawn, each with the corpus before it
    allowed_errors: float = 0.01  # share of files that may be quarantined
    faults: tuple[str, ...] = ()  # known faults, with their evidence mark
    acoustics: dict[str, float] = field(default_factory=dict)  # synthetic corpora only: microphone, room and noise

    @property
    def emotions(self) -> tuple[str, ...]:
        """Canonical emotions that the label map names, in canonical order."""
        return tuple(e for e in EMOTIONS if e in set(self.labels.values()))


def corpus_names() -> tuple[str, ...]:
    """Return the names of all corpora that have a card."""
    return tuple(sorted(path.stem for path in MANIFESTS.glob("*.toml")))


@cache
def load_card(name: str) -> Card:
    """Read data_manifests/<name>.toml.

    Raises:
        ConfigError: no such corpus, an unknown or missing field or one of the wrong type, a label map to an unknown
            emotion, or an exclusion of another corpus.
    """
    if name not in corpus_names():
        raise ConfigError("There is no such corpus.", got=name, expected=corpus_names(), where=MANIFESTS)
    path = MANIFESTS / f"{name}.toml"
    try:
        raw = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("A card can't be read.", got=error, expected="TOML", where=path) from error
    try:
        card = Card(
            **{
                **_tuples(raw),
                "split": Split(**_tuples(raw["split"])),
                "expected": Expected(**raw.get("expected", {})),
                "sources": tuple(Address(**source) for source in raw.get("sources", ())),
            }
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise ConfigError("A card has an unknown or a missing field.", got=error, where=path) from error
    for part in (card, card.split, card.expected, *card.sources):
        _check_types(part, path)
    strangers = [entry for entry in card.exclude if not entry.startswith(f"{name}/")]
    if strangers:
        expected = f"{name}/<utterance> or {name}/<speaker>"
        raise ConfigError("A card excludes what is not of its corpus.", got=strangers, expected=expected, where=path)
    unknown = set(card.labels.values()) - {*EMOTIONS, ""}
    if unknown or card.name != name:
        raise ConfigError("A card is inconsistent.", got=unknown or card.name, expected=EMOTIONS, where=path)
    return card


def _check_types(part: Any, path: Path) -> None:
    """Raise where a field of a card does not hold what it should; a text in a list's place would be its letters."""
    for name, hint in typing.get_type_hints(type(part)).items():
        value = getattr(part, name)
        if not _fits(value, hint):
            raise ConfigError(
                "A card's field has the wrong type.",
                got=f"{name} = {list(value) if isinstance(value, tuple) else value!r}",
                expected="a list of texts"
                if typing.get_origin(hint) is tuple
                else (hint.__name__ if isinstance(hint, type) else str(hint)),
                where=path,
            )


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value of a card is of its field's type."""
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if kind is Literal:
        return value in inner
    if kind is tuple:
        return isinstance(value, tuple) and all(_fits(item, inner[0]) for item in value)
    if kind is dict:
        return isinstance(value, dict) and all(_fits(item, inner[1]) for item in value.values())
    if inner:  # one of several
        return any(_fits(value, option) for option in inner)
    return type(value) in ((int, float) if hint is float else (hint,))


def _tuples(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
