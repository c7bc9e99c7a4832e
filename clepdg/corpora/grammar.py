"""What the corpus files share: the row a file name gives, and the walk over a tree."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

AUDIO_SUFFIXES: Final = frozenset({".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".au"})


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """One utterance, as far as its file name tells.

    Attributes:
        path: relative to the corpus's root, with "/".
        name: unique within the corpus, without dots.
        speaker: within the corpus, for example "03".
        gender: "female", "male" or None where the corpus does not say.
        language: ISO 639-1.
        raw_label: the corpus's own label.
        text: id of the text that was spoken: a sentence's code or the word.
        transcript: what was spoken, None where unknown.
        notes: what is odd about the file but does no harm.
    """

    path: str
    name: str
    speaker: str
    gender: str | None
    language: str
    raw_label: str
    text: str
    transcript: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Finding:
    """An audio file that is no utterance of the corpus, and why."""

    path: str
    reason: str


Parser = Callable[[Path], Iterator[Spoken | Finding]]


def matched(pattern: re.Pattern[str], path: str) -> re.Match[str] | Finding:
    """Return the match of a file's stem, or the finding that its name is not of the grammar."""
    match = pattern.fullmatch(PurePosixPath(path).stem)
    return match or Finding(path=path, reason=f"its name is not of the corpus's grammar {pattern.pattern}")


def parse_tree(
    root: Path, parse: Callable[[str], Spoken | Finding], *, ignore: frozenset[str] = frozenset()
) -> Iterator[Spoken | Finding]:
    """Parse every audio file below root, ordered by path; a name that comes again is a finding.

    Hidden and AppleDouble files are ignored, and folders whose names are in `ignore`.
    """
    first: dict[str, str] = {}
    for path in _audio_files(root, ignore):
        item = parse(path)
        if isinstance(item, Spoken) and first.setdefault(item.name, path) != path:
            item = Finding(path=path, reason=f"the same name as {first[item.name]}: is the tree there twice?")
        yield item


def _audio_files(root: Path, ignore: frozenset[str]) -> list[str]:
    found: list[str] = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in {"__MACOSX", *ignore}]
        names = (name for name in files if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES)
        found += [(Path(folder) / name).relative_to(root).as_posix() for name in names]
    return sorted(found)
