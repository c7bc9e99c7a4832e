"""Read corpus cards (<corpus>.toml) into frozen dataclasses.

Cards lie in data_manifests, or in the user's own folder. A card describes a corpus before it is downloaded: sources
with checksums and sizes, licence, citation, expected counts, label map, split and its unit, exclusions and known
faults. The fields that a stage reads are in its key; the expected counts only accept or refuse, so they are in no key.
"""

import csv
import hashlib
import io
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from clepdg import corpora
from clepdg.config.manifests import find, folders
from clepdg.corpora import CORPORA
from clepdg.corpora.card_fields import part_of, wrong_type
from clepdg.emotions import EMOTIONS
from clepdg.errors import ConfigError

_NAME: Final = re.compile("[a-z0-9]+(-[a-z0-9]+)*")  # of a corpus, used in the names of folders and folds
SPLITS = ("train", "validation", "test")
SUMS: Final = {"md5": 32, "sha256": 64}  # hexadecimal digits


@dataclass(frozen=True, kw_only=True)
class Address:
    """One published address of a corpus.

    Its checksums apply to this address, never to a user's own --source.

    Attributes:
        url: of an archive; with `files`, of their folder; with `dataverse`, of the repository.
        bytes: of the archive, as md5 and sha256 are.
        files: a table beside the cards: path, bytes and sha256 of every file below url.
        dataverse: persistent id of a dataset whose audio files are downloaded one by one.
        lfs: the git repository that holds the files as LFS objects; only `clep-dg fetch --check` uses it.
        recorded: origin of checksums that the publisher does not provide; never in a card.
    """

    url: str
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    files: str | None = None
    dataverse: str | None = None
    lfs: str | None = None
    recorded: str | None = None

    @property
    def many(self) -> bool:
        """True for single files, False for an archive."""
        return bool(self.files or self.dataverse)


@dataclass(frozen=True, kw_only=True)
class Split:
    """The fixed split of a corpus into train, validation and test.

    Everything that is not assigned to validation or test is train.

    Attributes:
        unit: the unit that is in one part only: "speaker", "text" or "official"; tables mark others than "speaker".
        test: speakers of the test part.
        validation: speakers of the validation part.
        parts: the corpus's own part ("Development") -> "train", "validation", "test" or "" (excluded);
            if it is given, speakers and texts have no effect. Unit "official" without it uses the three names.
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
        """Return the part of an utterance, or None for an excluded official part.

        Args:
            speaker: without the corpus's prefix.
            text: id of the text.
            official: the corpus's own part; a key of `parts`.
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
    """The known counts of a complete copy.

    Other copies are refused unless --allow-partial.
    """

    utterances: int | None = None
    speakers: int | None = None
    sample_rate: int | None = None  # Hz, the usual rate; single odd files are notes
    emotions: dict[str, int] = field(default_factory=dict)  # raw_label -> utterances


@dataclass(frozen=True, kw_only=True)
class Card:
    """The description of a corpus, known before it is downloaded."""

    name: str
    title: str
    grammar: str  # name in clepdg.corpora.CORPORA of the parser of its file names
    language: str  # ISO 639-1
    licence: str
    citation: str
    homepage: str
    labels: dict[str, str]  # raw_label -> canonical emotion, "" = no emotion
    split: Split
    expected: Expected
    sources: tuple[Address, ...] = ()  # tried in this order
    nested: bool = False  # the archive holds archives that hold the corpus
    apply: str | None = None  # how to get the corpus where no address is open
    exclude: tuple[str, ...] = ()  # withdrawn <corpus>/<utterance> or <corpus>/<speaker>
    allowed_errors: float = 0.01  # largest share of quarantined files
    faults: tuple[str, ...] = ()  # known faults, with their evidence mark
    acoustics: dict[str, float] = field(default_factory=dict)  # synthetic corpora only: microphone, room and noise

    @property
    def emotions(self) -> tuple[str, ...]:
        """Canonical emotions of the label map, in canonical order."""
        return tuple(e for e in EMOTIONS if e in set(self.labels.values()))


_PARTS: Final = {"split": Split, "expected": Expected}


def corpus_names() -> tuple[str, ...]:
    """Return the names of all corpora that have a card.

    Raises:
        ConfigError: a file's name is no valid corpus name.
    """
    paths = [path for folder in folders() for path in folder.glob("*.toml") if not path.name.startswith(".")]
    wrong = sorted(str(path) for path in paths if not _NAME.fullmatch(path.stem))
    if wrong:
        raise ConfigError(
            "A card's file name is no valid corpus name.", got=wrong, expected="a-z, 0-9 and - between them"
        )
    return tuple(sorted({path.stem for path in paths}))


def load_card(name: str) -> Card:
    """Read <name>.toml of the user's own cards or of data_manifests.

    Raises:
        ConfigError: no such corpus, an unknown, missing or mistyped field, another corpus's name, an unknown grammar, a
            label map to an unknown emotion, a contradictory split, a malformed checksum, or an exclusion of another
            corpus.
    """
    path = find(f"{name}.toml")
    if not (_NAME.fullmatch(name) and path.exists()):
        raise ConfigError("There is no such corpus.", got=name, expected=corpus_names(), where=folders())
    return _read(path)


@cache
def _read(path: Path) -> Card:
    name = path.stem
    try:
        raw = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("A card can't be read.", got=error, expected="TOML", where=path) from error
    parts = {key: part_of(kind, raw[key], f"[{key}]", path) for key, kind in _PARTS.items() if key in raw}
    sources = raw.get("sources", [])
    if not isinstance(sources, list):
        raise wrong_type("sources", sources, "tables [[sources]]", path)
    parts["sources"] = tuple(part_of(Address, source, "[[sources]]", path) for source in sources)
    card: Card = part_of(Card, {"expected": Expected(), **raw, **parts}, "", path)
    for what, got, expected, do in _contradictions(card, name):
        if got:
            raise ConfigError(what, got=got, expected=expected, where=path, do=do)
    return card


def _contradictions(card: Card, name: str) -> Iterator[tuple[str, Any, Any, str | None]]:
    """Yield possible faults of a card: (what, got, expected, do).

    `got` is empty where the card is right.
    """
    split = card.split
    yield "A card's name is not that of its file.", card.name if card.name != name else "", name, None
    yield (
        "A card names an unknown grammar.",
        card.grammar if card.grammar not in CORPORA else "",
        tuple(CORPORA),
        f"correct its name; a new grammar needs its file's name in {Path(corpora.__file__)}",
    )
    emotions = {*card.labels.values()} - {*EMOTIONS, ""}
    yield "A card maps labels to unknown emotions.", sorted(emotions), (*EMOTIONS, '""'), None
    both = sorted({*split.test} & {*split.validation})
    yield "A card's split has speakers in both validation and test.", both, "each in one of them", None
    parts = sorted({*split.parts.values()} - {*SPLITS, ""})
    yield "A card's split names unknown parts.", parts, (*SPLITS, '""'), None
    sums = [f"{kind} {value}" for source in card.sources for kind in SUMS if (value := getattr(source, kind))]
    malformed = [each for each in sums if not is_sum(*each.split(" ", 1))]
    yield "A card's checksum is malformed.", malformed, "32 (md5) or 64 (sha256) hexadecimal digits", None
    foreign = [entry for entry in card.exclude if not entry.startswith(f"{name}/")]
    expected = f"{name}/<utterance> or {name}/<speaker>"
    yield "A card excludes utterances of another corpus.", foreign, expected, None


def published(card: Card) -> dict[str, str]:
    """Return {file name: sha256} of the files in a card's tables."""
    tables = [find(source.files) for source in card.sources if source.files]
    rows = [row for table in tables for row in csv.DictReader(io.StringIO(table.read_text(encoding="utf-8-sig")))]
    return {PurePosixPath(row["path"]).name: row["sha256"] for row in rows if row.get("path") and row.get("sha256")}


def is_sum(kind: str, value: str) -> bool:
    """Return whether a text is a hexadecimal "md5" or "sha256"."""
    return re.fullmatch(rf"[0-9a-fA-F]{{{SUMS[kind]}}}", value) is not None
