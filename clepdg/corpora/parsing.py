"""Parse file names, trees and label tables: helpers of all corpora."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from clepdg import text_files
from clepdg.audio.formats import AUDIO_SUFFIXES
from clepdg.errors import CorpusError
from clepdg.text_files import Row

LONGEST_NAME: Final = 95  # bytes of an utterance's name: a tar's header holds 100, with .flac


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One utterance, from its file name and the corpus's own tables.

    Attributes:
        path: relative to the corpus's root, with "/".
        name: unique within the corpus, without dots, of at most `LONGEST_NAME` bytes in UTF-8.
        speaker: within the corpus, for example "03".
        gender: "female", "male" or None where it is unknown.
        language: ISO 639-1; None for the card's language.
        raw_label: the corpus's own label.
        text: id of the spoken text: a sentence's code or the word.
        transcript: the spoken text, None where it is unknown.
        notes: harmless oddities of the file.
        part: the official part that it belongs to, by the corpus's own name; None where there is none.
        cluster: what is independent of the rest where it is wider than a speaker, such as a session; None: the speaker.
    """

    path: str
    name: str
    speaker: str
    gender: str | None
    language: str | None
    raw_label: str
    text: str
    transcript: str | None
    notes: tuple[str, ...] = ()
    part: str | None = None
    cluster: str | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """An audio file or table line that is no utterance, and the reason."""

    path: str
    reason: str


Parser = Callable[[Path], Iterator[Utterance | Finding]]


def match_name(pattern: re.Pattern[str], path: str) -> re.Match[str] | Finding:
    """Match a file's stem; return the match, or a finding."""
    stem = PurePosixPath(path).stem
    match = pattern.fullmatch(stem)
    if match:
        return match
    case = ": it differs in upper and lower case" if re.fullmatch(pattern.pattern, stem, re.IGNORECASE) else ""
    return Finding(path=path, reason=f"its name is not of the corpus's grammar {pattern.pattern}{case}")


def parse_tree(
    root: Path,
    parse: Callable[[str], Utterance | Finding],
    *,
    folders: str = "(?!)",
    who: str = "speaker",
    ignore: frozenset[str] = frozenset(),
) -> Iterator[Utterance | Finding]:
    """Parse every audio file below root, ordered by path.

    Findings are files in a folder of another speaker than their name says, and all but one of those with one name: that
    of a speaker's folder comes first, then a wav, then the one nearest to root. Hidden and AppleDouble files are
    ignored, and folders whose names are in `ignore`.

    Args:
        folders: pattern of the names of a speaker's folders; its group is the speaker.
        who: what the corpus calls a speaker.
    """
    items: dict[str, Utterance | Finding] = {}
    ranks: dict[str, bool] = {}
    for path in audio_files(root, ignore):
        items[path] = item = parse(path)
        parts = PurePosixPath(path).parts[-2::-1]
        match = next(filter(None, (re.fullmatch(folders, part, re.IGNORECASE) for part in parts)), None)
        ranks[path] = match is None
        if match and isinstance(item, Utterance) and match[1].upper() != item.speaker:
            items[path] = Finding(path=path, reason=f"lies in {match[0]}, is named {who} {item.speaker}")
    names = {path: item.name for path, item in items.items() if isinstance(item, Utterance)}
    _, twins = one_per_name(names, lambda path: (ranks[path], *nearest_wav(path)))
    yield from (items | {twin.path: twin for twin in twins}).values()


def nearest_wav(path: str) -> tuple[bool, int]:
    """Return a rank: a wav comes first, then the path with the fewest folders."""
    return not path.lower().endswith(".wav"), path.count("/")


def one_per_name(
    names: Mapping[str, str], rank: Callable[[str], tuple[Any, ...]] = nearest_wav
) -> tuple[dict[str, str], list[Finding]]:
    """Return {name: path}, and a finding for each further file of a name.

    Args:
        names: path -> name.
        rank: of the files of a name, the one whose path has the lowest rank is kept.
    """
    kept: dict[str, str] = {}
    for path in sorted(names, key=lambda path: (rank(path), path)):
        kept.setdefault(names[path], path)
    return kept, [twin(path, kept[name]) for path, name in sorted(names.items()) if kept[name] != path]


def twin(path: str, first: str) -> Finding:
    """Return the finding of a file whose name another one has."""
    tree = ": is the tree there twice?" if PurePosixPath(path).name == PurePosixPath(first).name else ""
    return Finding(path=path, reason=f"the same name as {first}{tree}")


def fold(name: str) -> str:
    """Return a name in one case and Unicode form, to compare names by."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def audio_files(root: Path, ignore: frozenset[str] = frozenset()) -> list[str]:
    """Return the sorted relative paths of all audio files below root.

    Hidden files and folders are ignored.
    """
    found: list[str] = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in {"__MACOSX", *ignore}]
        names = (name for name in files if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES)
        found += [(Path(folder) / name).relative_to(root).as_posix() for name in names]
    return sorted(found)


def add_unlisted(
    listed: Iterable[Utterance | Finding],
    audio: Iterable[str],
    findings: Iterable[Finding] = (),
    *,
    table: str = "the corpus's labels do not name it",
) -> Iterator[Utterance | Finding]:
    """Yield listed utterances, then findings, and one per unlisted audio file.

    An utterance listed twice is a finding, both times where the labels differ. One without a file is yielded: the index
    reports the missing file.
    """
    listed = list(listed)
    labels: dict[str, set[str]] = {}
    for item in listed:
        if isinstance(item, Utterance):
            labels.setdefault(item.name, set()).add(item.raw_label)
    seen: set[str] = set()
    for item in listed:
        if isinstance(item, Utterance) and (item.name in seen or len(labels[item.name]) > 1):
            yield Finding(path=item.path, reason=f"named twice, as {' and '.join(sorted(labels[item.name]))}")
        else:
            yield item
        seen |= {item.name} if isinstance(item, Utterance) else set()
    findings = list(findings)
    yield from findings
    known = {item.path for item in (*listed, *findings)}
    yield from (Finding(path=path, reason=table) for path in audio if path not in known)


def find_nearest(root: Path, *names: str, needed_by: str) -> list[Path]:
    """Return the paths of these names (patterns) nearest to root.

    The search covers root and up to three folders below, and takes upper and lower case as equal.

    Raises:
        CorpusError: there is no such path.
    """
    for depth in range(4):
        for name in names:
            pattern = re.sub(r"\[.*?\]|[a-zA-Z]", lambda part: _either_case(part[0]), name)
            found = sorted(path for path in root.glob("*/" * depth + pattern) if not path.name.startswith("."))
            if found:
                return found
    raise CorpusError(
        f"This is not the folder of {needed_by}.",
        got=sorted(path.name for path in root.iterdir())[:10] or "an empty folder",
        expected=f"{' or '.join(names)}, here or up to three folders below",
        where=root,
    )


def _either_case(part: str) -> str:
    return part if part.startswith("[") else f"[{part.lower()}{part.upper()}]"


def relative(root: Path, path: Path) -> str:
    """Return a path relative to root, with "/"."""
    return path.relative_to(root).as_posix()


def read_rows(path: Path, columns: Iterable[str]) -> list[Row]:
    """Return the rows of a table of the corpus.

    Raises:
        CorpusError: the table is malformed, or lacks a column.
    """
    header, rows = text_files.read_rows(path, CorpusError, "A table of the corpus is malformed.")
    if missing := [name for name in columns if name not in header]:
        raise CorpusError(
            "A table of the corpus lacks columns.", got=header or "no header", expected=missing, where=path
        )
    return rows
