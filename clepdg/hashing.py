"""Random generators that are a pure function of what they are for."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from clepdg.errors import StoreError

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


def inside(name: object) -> bool:
    """Tell whether a value is a relative path in POSIX form that names something inside its folder."""
    return isinstance(name, str) and "\0" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def generator(*purpose: Any) -> np.random.Generator:
    """Seed a generator by plain values, for example ("room", "test", 3)."""
    return np.random.default_rng(int(digest(purpose)[:16], 16))
