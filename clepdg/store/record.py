"""The record of an output (stage.json): read it, and check the output's files against it.

Nothing in a store is trusted: a stage.json that is not exactly a record is refused.
"""

import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from clepdg.errors import StoreError
from clepdg.hashing import digest_file, inside, parse_json, read_json

MARKER: Final = "stage.json"
STORE: Final = "store.json"  # the format of the store itself
OTHER_FORMAT: Final = "written by another version of the store"
UNREADABLE: Final = f"file unreadable: {MARKER}"
FORMAT: Final = 1  # of stage.json and of the store; raised when their meaning changes


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _all(value: Any, container: type, is_right: Callable[[Any], bool]) -> bool:
    each: Any = value.values() if isinstance(value, dict) else value
    return isinstance(value, container) and all(map(is_right, each))


KINDS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "any": lambda value: True,
    "text": lambda value: isinstance(value, str),
    "count": lambda value: type(value) is int and value >= 0,
    "number": _is_number,
    "names": lambda value: _all(value, list, lambda each: isinstance(each, str)),
    "counts": lambda value: _all(value, dict, KINDS["count"]),
    "numbers": lambda value: _all(value, dict, _is_number),
    "tables": lambda value: _all(value, dict, KINDS["numbers"]),
}


@dataclass(frozen=True, kw_only=True)
class Record:
    """Content of stage.json.

    Attributes:
        digests: "content" is that of the whole output; other names are parts of it that a later stage may depend on
            alone (for example "learning": train and validation only).
        figures: numbers that checks and tables read without opening the output.
        files: relative path -> (bytes, sha256), for integrity checks only.
        seconds: of wall time.
        cpu_seconds: of CPU, children included; None: not measured, or other stages were computed beside it.
        device: that computed it; "": not recorded.
        peak_bytes: most memory that tensors took on a GPU; None: no GPU, or not measured.
        attempt: the folder of a remote store that holds the files; empty in a local store.
    """

    stage: str
    name: str
    key: str
    version: int
    config: dict[str, Any]
    inputs: dict[str, str]
    digests: dict[str, str]
    figures: dict[str, Any]
    files: dict[str, tuple[int, str]]
    seconds: float
    cpu_seconds: float | None = None
    device: str = ""
    peak_bytes: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT
    attempt: str = ""

    @property
    def bytes(self) -> int:
        """Return the size of all files."""
        return sum(size for size, _ in self.files.values())

    def lacks(self, names: Mapping[str, str]) -> str | None:
        """Return the first name that is missing or of another kind, or None.

        Args:
            names: dotted name, such as "figures.splits.train" -> kind, of `KINDS`.
        """
        for name, kind in names.items():
            first, *rest = name.split(".")
            value: Any = getattr(self, first)
            for part in rest:
                if not isinstance(value, dict) or part not in value:
                    return name
                value = value[part]
            if not KINDS[kind](value):
                return name
        return None


class Named(dict[str, Any]):
    """Digests or figures of a record; a name that is missing is a StoreError."""

    place = ""

    def __missing__(self, name: str) -> Any:
        stage = self.place.partition("/")[0]
        raise StoreError(
            f"The {MARKER} of an output lacks a name.",
            got=f"no {name}",
            where=self.place,
            do=f"compute it again: clep-dg run --redo {stage}" if stage else None,
        )


def _named(value: Any, place: str) -> Any:
    """Return a copy of JSON whose objects are `Named`."""
    if not isinstance(value, dict):
        return value
    named = Named({name: _named(each, place) for name, each in value.items()})
    named.place = place
    return named


def load_record(folder: Path, stage: str, key: str) -> Record | str:
    """Return the record of a folder's stage.json, or why it is refused.

    Raises:
        OSError: there is none, or it can't be read.
    """
    try:
        return _as_record(read_json(folder / MARKER), stage, key)
    except ValueError:
        return UNREADABLE


def read_record(data: bytes, stage: str, key: str) -> Record | str:
    """Return the record in the bytes of a stage.json, or why it is refused."""
    try:
        return _as_record(parse_json(data), stage, key)
    except ValueError:
        return UNREADABLE


def _as_record(raw: Any, stage: str, key: str) -> Record | str:
    try:
        if raw.get("format") != FORMAT:
            return f"{OTHER_FORMAT} (format {str(raw.get('format'))[:40]}, here {FORMAT})"
        files = {name: tuple(facts) for name, facts in raw["files"].items()}
        named = {name: _named(raw[name], f"{stage}/{key}") for name in ("digests", "figures")}
        record = Record(**{**raw, "files": files, **named})
        if _well_formed(record):
            return record if (record.stage, record.key) == (stage, key) else f"{MARKER} is of another output"
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    return UNREADABLE


def _well_formed(record: Record) -> bool:
    texts = (record.stage, record.name, record.key, record.attempt, record.device)
    named = (record.inputs, record.digests, record.versions)
    return (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(part, dict) for part in (*named, record.config, record.figures))
        and all(isinstance(value, str) for part in named for value in part.values())
        and "content" in record.digests
        and isinstance(record.version, int)
        and isinstance(record.seconds, int | float)
        and isinstance(record.cpu_seconds, int | float | None)
        and isinstance(record.peak_bytes, int | None)
        and re.fullmatch(r"[\w-]*", record.attempt) is not None
        and all(_is_file(name, *facts) for name, facts in record.files.items())
    )


def _is_file(name: str, size: int, sha256: str) -> bool:
    return inside(name) and type(size) is int and size >= 0 and re.fullmatch("[0-9a-f]{64}", sha256) is not None


class Damaged(Exception):
    """The files of an output are not those of its stage.json."""


def check_format(content: Any, url: str) -> None:
    """Raise if a store has another format.

    Args:
        content: of its store.json; None: it has none, like the first stores.

    Raises:
        StoreError: it was written by another version of clep-dg.
    """
    found = content.get("format") if isinstance(content, dict) else content
    if content is not None and found != FORMAT:
        raise StoreError(
            "The store was written by another version of clep-dg.",
            got=f"format {str(found)[:40]}",
            expected=f"format {FORMAT}",
            where=url,
            do="use the clep-dg that wrote it, or set CLEPDG_STORE to another place",
        )


def hash_files(folder: Path) -> dict[str, tuple[int, str]]:
    """Return {relative path: (bytes, sha256)} of the files of an output.

    stage.json and checkpoints (*.resume) are left out.
    """
    state = {*folder.glob("*.resume")}
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, digest_file(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MARKER and not {path, *path.parents} & state
    }


def damage(folder: Path, record: Record, *, rehash: bool = False) -> str | None:
    """Return how a folder's files differ from their record, or None.

    Args:
        rehash: check their sha256, too, not only their sizes.
    """
    for name, (size, sha256) in record.files.items():
        path = folder / name
        try:
            facts = os.lstat(path)
            if not stat.S_ISREG(facts.st_mode):
                return f"not a file: {name}"
            if facts.st_size != size:
                return f"file truncated or altered: {name} ({facts.st_size} bytes, {size} expected)"
            if rehash and digest_file(path) != sha256:
                return f"file altered: {name} (another sha256)"
        except OSError as error:
            return f"file missing: {name}" if isinstance(error, FileNotFoundError) else f"file unreadable: {name}"
    return None
