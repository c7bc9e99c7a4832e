"""Read corpus cards (<corpus>.toml) into frozen dataclasses.

Cards lie in data_manifests, or in the user's own folder. A card describes a corpus before it is downloaded: sources
with checksums and sizes, licence, citation, expected counts, label map, split and its unit, exclusions and known
faults. The fields that a stage reads are in its key; the expected counts only accept or refuse, so they are in no key.
"""

import hashlib
import re
import tomllib
from dataclasses import field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal

from pydantic import Field

from clepdg import corpora, text_files
from clepdg.config.manifests import find, folders
from clepdg.config.validation import AtLeast0, AtLeast1, Share, Texts, check, dataclass
from clepdg.corpora import CORPORA
from clepdg.corpora.card_fields import build
from clepdg.emotions import EMOTIONS
from clepdg.errors import ConfigError, unknown_name

_NAME: Final = re.compile("[a-z0-9]+(-[a-z0-9]+)*")  # of a corpus, used in the names of folders and folds
SPLITS = ("train", "validation", "test")
SUMS: Final = {"md5": 32, "sha256": 64}  # hexadecimal digits
_OR_NONE: Final = ', or "" for none'
Part = Annotated[str, check(lambda part: part in (*SPLITS, ""), f"{', '.join(SPLITS)}{_OR_NONE}")]
Emotion = Annotated[str, check(lambda name: name in (*EMOTIONS, ""), f"one of {', '.join(EMOTIONS)}{_OR_NONE}")]


def is_sum(kind: str, value: str) -> bool:
    """Return whether a text is a hexadecimal "md5" or "sha256"."""
    return re.fullmatch(rf"[0-9a-fA-F]{{{SUMS[kind]}}}", value) is not None


_GRAMMARS: Final = f"one of {', '.join(CORPORA)}; a new one needs its file's name in {corpora.__file__}"
Grammar = Annotated[str, check(lambda name: name in CORPORA, _GRAMMARS)]
Md5 = Annotated[str, check(lambda value: is_sum("md5", value), "32 hexadecimal digits")]
Sha256 = Annotated[str, check(lambda value: is_sum("sha256", value), "64 hexadecimal digits")]


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
    bytes: AtLeast0 | None = None
    md5: Md5 | None = None
    sha256: Sha256 | None = None
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
        emobox: folder of a fold of EmoBox, which says the parts; with unit "official".
    """

    unit: Literal["speaker", "text", "official"]
    test: Texts = ()
    validation: Texts = ()
    validation_text_share: Share = 0.0
    parts: dict[str, Part] = field(default_factory=dict)
    emobox: str | None = None

    def __post_init__(self) -> None:
        if both := {*self.test} & {*self.validation}:
            raise ConfigError("Speakers are in both validation and test.", got=sorted(both))
        if self.emobox and (self.unit != "official" or self.parts):
            raise ConfigError("A fold of EmoBox is a split by itself.", expected='unit = "official" and no parts')
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

    utterances: AtLeast0 | None = None
    speakers: AtLeast0 | None = None
    sample_rate: AtLeast1 | None = None  # Hz, the usual rate; single odd files are notes
    emotions: dict[str, AtLeast0] = field(default_factory=dict)  # raw_label -> utterances


@dataclass(frozen=True, kw_only=True)
class Card:
    """The description of a corpus, known before it is downloaded."""

    name: str
    title: str
    grammar: Grammar  # the parser of its file names
    language: str  # ISO 639-1
    licence: str
    citation: str
    homepage: str
    labels: dict[str, Emotion]  # raw_label -> canonical emotion, "" = no emotion
    split: Split
    expected: Expected = field(default_factory=Expected)
    sources: tuple[Address, ...] = ()  # tried in this order
    licence_allows_sharing: bool = False  # others may share short excerpts: the report then plays some
    nested: bool = False  # the archive holds archives that hold the corpus
    apply: str | None = None  # how to get the corpus where no address is open
    exclude: Texts = ()  # withdrawn <corpus>/<utterance> or <corpus>/<speaker>
    allowed_errors: Annotated[float, Field(ge=0, le=1)] = 0.01  # largest share of quarantined files
    faults: Texts = ()  # known faults, with their evidence mark
    acoustics: dict[str, float] = field(default_factory=dict)  # synthetic corpora only: microphone, room and noise

    def __post_init__(self) -> None:
        if foreign := [entry for entry in self.exclude if not entry.startswith(f"{self.name}/")]:
            expected = f"{self.name}/<utterance> or {self.name}/<speaker>"
            raise ConfigError("Utterances of another corpus are excluded.", got=foreign, expected=expected)

    @property
    def emotions(self) -> tuple[str, ...]:
        """Canonical emotions of the label map, in canonical order."""
        return tuple(e for e in EMOTIONS if e in set(self.labels.values()))


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
        ConfigError: there is no such corpus, its card has faulty fields or another corpus's name, or its table of
            files is missing.
    """
    path = find(f"{name}.toml")
    if not (_NAME.fullmatch(name) and path.exists()):
        raise unknown_name("corpus", name, corpus_names(), "docs/corpora.md", where=folders())
    return _read(path)


@cache
def _read(path: Path) -> Card:
    name = path.stem
    try:
        raw = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError("A card can't be read.", got=error, expected="TOML", where=path) from error
    card: Card = build(Card, raw, path)
    if card.name != name:
        raise ConfigError("A card's name is not that of its file.", got=card.name, expected=name, where=path)
    for source in card.sources:
        if source.recorded:
            raise ConfigError("A card has an unknown field.", got="sources.recorded", where=path)
        if source.files and not find(source.files).is_file():
            raise ConfigError("A card's table of files is missing.", got=source.files, expected=folders(), where=path)
    return card


def published(card: Card) -> dict[str, str]:
    """Return {file name: sha256} of the files in a card's tables.

    Raises:
        ConfigError: a table is malformed.
    """
    tables = [find(source.files) for source in card.sources if source.files]
    read = (text_files.read_rows(table, ConfigError, "A card's table of files is malformed.") for table in tables)
    rows = [row for _, found in read for row in found]
    return {PurePosixPath(row["path"]).name: row["sha256"] for row in rows if row.get("path") and row.get("sha256")}
