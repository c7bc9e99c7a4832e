"""Parse file names, trees and label tables: helpers of all corpora."""

import csv
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from clepdg.audio.formats import AUDIO_SUFFIXES
from clepdg.errors import CorpusError

LFS_POINTER: Final = b"version https://git-lfs"  # the start of a git lfs pointer
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
        cluster: the unit of the bootstrap where it is wider than a speaker: a session, a dialogue.
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
    match = pattern.fullmatch(PurePosixPath(path).stem)
    return match or Finding(path=path, reason=f"its name is not of the corpus's grammar {pattern.pattern}")


def parse_tree(
    root: Path, parse: Callable[[str], Utterance | Finding], *, ignore: frozenset[str] = frozenset()
) -> Iterator[Utterance | Finding]:
    """Parse every audio file below root, ordered by path.

    A repeated name is a finding. Hidden and AppleDouble files are ignored, and folders whose names are in `ignore`.
    """
    first: dict[str, str] = {}
    for path in audio_files(root, ignore):
        item = parse(path)
        if isinstance(item, Utterance) and first.setdefault(item.name, path) != path:
            item = Finding(path=path, reason=f"the same name as {first[item.name]}: is the tree there twice?")
        yield item


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
    listed: Iterable[Utterance | Finding], audio: Iterable[str], *, table: str = "the corpus's labels do not name it"
) -> Iterator[Utterance | Finding]:
    """Yield listed utterances, then a finding per unlisted audio file.

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
    known = {item.path for item in listed}
    yield from (Finding(path=path, reason=table) for path in audio if path not in known)


def find_nearest(root: Path, *names: str, needed_by: str) -> list[Path]:
    """Return the paths of these names (patterns) nearest to root.

    The search covers root and up to three folders below.

    Raises:
        CorpusError: there is no such path.
    """
    for depth in range(4):
        for name in names:
            found = sorted(path for path in root.glob("*/" * depth + name) if not path.name.startswith("."))
            if found:
                return found
    raise CorpusError(
        f"This is not the folder of {needed_by}.",
        got=sorted(path.name for path in root.iterdir())[:10] or "an empty folder",
        expected=f"{' or '.join(names)}, here or up to three folders below",
        where=root,
    )


def relative(root: Path, path: Path) -> str:
    """Return a path relative to root, with "/"."""
    return path.relative_to(root).as_posix()


def read_text(path: Path, *encodings: str) -> str:
    """Return a text file's content in the first valid encoding.

    Raises:
        CorpusError: no encoding is valid.
    """
    data = path.read_bytes()
    for encoding in encodings or ("utf-8-sig",):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise CorpusError("A text file of the corpus can't be read.", expected=encodings or "UTF-8", where=path)


def read_rows(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV file; missing cells are "".

    Raises:
        CorpusError: the file is not UTF-8, or lacks a column.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), restval="")
    missing = set(columns) - set(reader.fieldnames or ())
    if missing:
        raise CorpusError(
            "A table of the corpus lacks columns.", got=reader.fieldnames, expected=sorted(columns), where=path
        )
    return [{name: (row[name] or "").strip() for name in reader.fieldnames or ()} for row in reader]
