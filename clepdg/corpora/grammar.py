"""What the corpus files share: the row a file name gives, and the walk over a tree."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

AUDIO_SUFFIXES: Final = frozenset(
    {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".au", ".mp4"}
)


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """One utterance, as far as its file name and the corpus's own tables tell.

    Attributes:
        path: relative to the corpus's root, with "/".
        name: unique within the corpus, without dots.
        speaker: within the corpus, for example "03".
        gender: "female", "male" or None where the corpus does not say.
        language: ISO 639-1; None where the card's language holds.
        raw_label: the corpus's own label.
        text: id of the text that was spoken: a sentence's code or the word.
        transcript: what was spoken, None where unknown.
        notes: what is odd about the file but does no harm.
        part: the corpus's own name for the official part that it belongs to; None where there is none.
        cluster: what intervals are over, where that is wider than a speaker: a session, a dialogue.
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
    """An audio file that is no utterance of the corpus, or an utterance whose file is missing, and why."""

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
    for path in audio_files(root, ignore):
        item = parse(path)
        if isinstance(item, Spoken) and first.setdefault(item.name, path) != path:
            item = Finding(path=path, reason=f"the same name as {first[item.name]}: is the tree there twice?")
        yield item


def audio_files(root: Path, ignore: frozenset[str] = frozenset()) -> list[str]:
    """Return the paths of all audio files below root, relative to it and sorted; hidden ones are ignored."""
    found: list[str] = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in {"__MACOSX", *ignore}]
        names = (name for name in files if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES)
        found += [(Path(folder) / name).relative_to(root).as_posix() for name in names]
    return sorted(found)
