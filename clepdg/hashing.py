"""Canonical JSON, digests, stage keys and seeded generators."""

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clepdg.errors import StoreError

if TYPE_CHECKING:
    import numpy as np

NOT_FINITE: Final = "clep-dg verify finds damaged outputs; a training that diverged needs a lower learning rate"
JSON_BYTES: Final = 1 << 27  # the largest JSON file that is read; the checksums of 200,000 files take a fifth of it
JSON_DEPTH: Final = 100  # the deepest JSON that is read
IF_SET: Final = "keyed if set"  # metadata of dataclasses' fields that JSON, and so keys, lack where they are None


def canonical(value: Any) -> str:
    """Return a value's canonical JSON: sorted keys, no spaces.

    Dataclasses become objects, tuples become arrays.

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
    """Yield the dotted names and values of numbers that are not finite."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _not_finite(item, f"{name}.{key}" if name else str(key))
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{name} {value}".strip()


def plain(value: Any) -> Any:
    """Return a value as JSON types: dataclasses as dicts, tuples as lists."""
    return json.loads(canonical(value))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        every = ((one, getattr(value, one.name)) for one in fields(value))
        return {one.name: own for one, own in every if own is not None or IF_SET not in one.metadata}
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def digest(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def digest_lines(lines: Iterable[Any]) -> str:
    """Return the sha256 of values' canonical JSON, in order.

    Memory is constant.
    """
    total = hashlib.sha256()
    for line in lines:
        total.update(canonical(line).encode() + b"\n")
    return total.hexdigest()


def digest_file(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stage_key(stage: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Return the key of a stage's output.

    It is the sha256 of [stage, version, config, {input name: content digest}].
    """
    return digest([stage, version, config, dict(inputs)])


def json_bytes(value: Any) -> bytes:
    """Return a value as indented JSON, the format of the store's files."""
    return json.dumps(plain(value), indent=1, sort_keys=True).encode()


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically.

    It writes a temporary file, flushes it and renames it. Processes may write the same file at once: the last one wins.

    Raises:
        StoreError: it would be larger than what `read_json` reads.
    """
    data = json_bytes(value)
    if len(data) > JSON_BYTES:
        what, do = "A result is too large to be stored.", "split the corpus into smaller ones"
        raise StoreError(what, got=f"{len(data)} bytes", expected=f"at most {JSON_BYTES}", where=path, do=do)
    aside = path.with_name(f"{path.name}.{os.urandom(4).hex()}.writing")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def parse_json(data: bytes) -> Any:
    """Parse JSON of unknown origin.

    Raises:
        ValueError: the data is not JSON, is nested too deeply, or holds an infinite number or half a character.
    """
    try:
        value = json.loads(data, parse_constant=_refuse, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    _check_depth(value)
    if b"\\ud" in data.lower():  # half of a surrogate pair can't be printed
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:40]} is not finite")
    return value


def _check_depth(value: Any) -> None:
    """Raise where a value can't be walked by a recursive function."""
    level = [value]
    for _ in range(JSON_DEPTH):
        each = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list))
        level = [inner for items in each for inner in items if isinstance(inner, dict | list)]
        if not level:
            return
    raise ValueError("nested too deeply")


def read_json(path: Path, limit: int = JSON_BYTES) -> Any:
    """Read a JSON file of unknown origin.

    Args:
        limit: bytes of the largest file that is read.

    Raises:
        OSError: the file can't be read.
        ValueError: the file is too large, or as `parse_json`.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):  # opening a pipe would wait for ever
        raise OSError("not a file")
    if facts.st_size > limit:
        raise ValueError(f"{facts.st_size} bytes, more than {limit}")
    return parse_json(path.read_bytes())


def inside(name: object) -> bool:
    """Return whether a value is a relative POSIX path inside its folder."""
    return isinstance(name, str) and "\0" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def generator(*purpose: Any) -> "np.random.Generator":
    """Return a generator seeded by values, such as ("room", "test", 3)."""
    import numpy as np

    return np.random.default_rng(int(digest(purpose)[:16], 16))
