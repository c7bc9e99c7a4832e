"""What an output says of itself (stage.json), and the canonical JSON that keys and digests are made of.

Whatever lies in a store is read as if a stranger had written it: what is not exactly a record is no record.
"""

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Final

from clepdg.errors import StoreError

MARKER: Final = "stage.json"
STORE: Final = "store.json"  # the format of the store itself
OTHER_FORMAT: Final = "written by another version of the store"
FORMAT: Final = 1  # of stage.json and of the store; raised when their meaning changes
NOT_FINITE: Final = "clep-dg verify finds damaged outputs; a training that diverged needs a lower learning rate"
JSON_BYTES: Final = 1 << 28  # a larger file is not one of ours: 200,000 files' sums take a tenth of it


def canonical(value: Any) -> str:
    """Return canonical JSON: sorted keys, no spaces; dataclasses as objects, tuples as arrays.

    Raises:
        StoreError: a number is not finite.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
    except ValueError as error:
        wrong = list(_not_finite(json.loads(json.dumps(value, default=_plain))))
        if not wrong:
            raise
        raise StoreError("A result is not a finite number.", got=wrong[:5], do=NOT_FINITE) from error


def _not_finite(value: Any, name: str = "") -> Iterator[str]:
    """Yield the dotted names of numbers that are not finite, with the numbers."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _not_finite(item, f"{name}.{key}" if name else str(key))
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{name} {value}".strip()


def plain(value: Any) -> Any:
    """Return the value as JSON would give it back (dataclasses as dicts, tuples as lists)."""
    return json.loads(canonical(value))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def digest(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def digest_lines(lines: Iterable[Any]) -> str:
    """Return one sha256 over the canonical JSON of many values, in order and in constant memory."""
    total = hashlib.sha256()
    for line in lines:
        total.update(canonical(line).encode() + b"\n")
    return total.hexdigest()


def digest_file(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stage_key(stage: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Return the key of a stage's output: sha256 of [stage, version, config, {input name: content digest}]."""
    return digest([stage, version, config, dict(inputs)])


def json_bytes(value: Any) -> bytes:
    """Return a value as the JSON that the store's files hold."""
    return json.dumps(plain(value), indent=1, sort_keys=True).encode()


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader finds the old file or the new one, whole: write aside, flush to disk, rename.

    Several may write at once: each does so under a name of its own, and the last one stands.
    """
    aside = path.with_name(f"{path.name}.{os.urandom(4).hex()}.writing")
    try:
        with aside.open("wb") as file:
            file.write(json_bytes(value))
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def parse_json(data: bytes) -> Any:
    """Return what JSON of unknown origin says.

    Raises:
        ValueError: it is none, holds NaN, or is nested too deep.
    """
    try:
        return json.loads(data, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def read_json(path: Path) -> Any:
    """Return what a JSON file of unknown origin says.

    Raises:
        OSError: it can't be read.
        ValueError: it is too large, no JSON, or nested too deep.
    """
    size = path.stat().st_size
    if size > JSON_BYTES:
        raise ValueError(f"{size} bytes")
    return parse_json(path.read_bytes())


@dataclass(frozen=True, kw_only=True)
class Record:
    """What stage.json says.

    Attributes:
        digests: "content" is the meaning of the whole output; other names are parts of it that a later stage may
            depend on alone (for example "learning": train and validation only).
        figures: what checks and tables read without opening the output.
        files: relative path -> (bytes, sha256): integrity, not meaning.
        attempt: where a remote store keeps the files; empty in a local one.
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
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT
    attempt: str = ""

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(size for size, _ in self.files.values())


def read_record(data: bytes, stage: str, key: str) -> Record | str:
    """Return the record of an output that a stage.json holds, or the reason why there is none to be believed."""
    try:
        raw = parse_json(data)
        if raw.get("format") != FORMAT:
            return f"{OTHER_FORMAT} (format {raw.get('format')}, here {FORMAT})"
        record = Record(**{**raw, "files": {name: tuple(facts) for name, facts in raw["files"].items()}})
        if _well_formed(record):
            return record if (record.stage, record.key) == (stage, key) else f"{MARKER} is of another output"
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    return f"file unreadable: {MARKER}"


def _well_formed(record: Record) -> bool:
    texts = (record.stage, record.name, record.key, record.attempt)
    named = (record.inputs, record.digests, record.versions)
    return (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(part, dict) for part in (*named, record.config, record.figures))
        and all(isinstance(value, str) for part in named for value in part.values())
        and isinstance(record.version, int)
        and isinstance(record.seconds, int | float)
        and re.fullmatch(r"[\w-]*", record.attempt) is not None
        and all(_is_file(name, *facts) for name, facts in record.files.items())
    )


def _is_file(name: str, size: int, sha256: str) -> bool:
    return inside(name) and type(size) is int and size >= 0 and re.fullmatch("[0-9a-f]{64}", sha256) is not None


class Damaged(Exception):
    """What is stored of an output is not what its stage.json says."""


def inside(name: object) -> bool:
    """Tell whether a value is a relative path in POSIX form that names something inside its folder."""
    return isinstance(name, str) and "\0" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def check_format(said: Any, url: str) -> None:
    """Refuse a store of another format, by what its store.json says (None: it has none, like the first ones).

    Raises:
        StoreError: it was written by another version of clep-dg.
    """
    found = said.get("format") if isinstance(said, dict) else said
    if said is not None and found != FORMAT:
        raise StoreError(
            "The store was written by another version of clep-dg.",
            got=f"format {found}",
            expected=f"format {FORMAT}",
            where=url,
            do="use the clep-dg that wrote it, or set CLEPDG_STORE to another place",
        )


def hash_files(folder: Path) -> dict[str, tuple[int, str]]:
    """Return {relative path: (bytes, sha256)} of all files below a folder but its stage.json and working state."""
    state = {*folder.glob("*.resume")}
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, digest_file(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MARKER and not {path, *path.parents} & state
    }


def damage(folder: Path, record: Record, *, rehash: bool = False) -> str | None:
    """Return why a folder does not hold a record's files, each at its size; None where it does.

    Args:
        rehash: hold their bytes against their sha256 as well.
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
