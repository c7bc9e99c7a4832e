"""Content-addressed stage outputs: the one truth about what is done.

An output is a folder <stage>/<key>/ with its files and a stage.json, written last. The key says what went in, the
digest says what came out; equal digests let what follows be reused (early cut-off). Work happens in <key>.partial,
under a lock, then one rename.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filelock import FileLock, Timeout

from clepdg.errors import StoreError

MARKER = "stage.json"
NOT_FINITE = "clep-dg verify finds damaged outputs; a training that diverged needs a lower learning rate"
FORMAT = 1  # raised when stage.json changes its meaning


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


@dataclass(frozen=True, kw_only=True)
class Record:
    """What stage.json says.

    Attributes:
        digests: "content" is the meaning of the whole output; other names are parts of it that a later stage may
            depend on alone (for example "learning": train and validation only).
        figures: what checks and tables read without opening the output.
        files: relative path -> (bytes, sha256): integrity, not meaning.
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


class Store:
    """Stage outputs below one folder. A remote store will give the same five methods over a verified local cache."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def open(cls, url: str) -> "Store":
        """Open the store at a folder or file:// address.

        Raises:
            StoreError: the address is of another kind, or the folder can't be made or written.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("", "file"):
            raise StoreError("A store of this kind is not supported.", got=url, expected="a folder or file:///folder")
        root = Path(url2pathname(parts.path) if parts.scheme else url).expanduser().absolute()
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError("The store can't be made.", got=error, where=root) from error
        return cls(root)

    def local(self, stage: str, key: str) -> Path:
        """Return the folder of an output: the only way to read one."""
        return self.root / stage / key

    def lookup(self, stage: str, key: str) -> Record | str:
        """Return the record of an output that is whole, or the reason why there is none.

        Whole means that stage.json can be read and every file is there at its size; `verify` re-hashes.
        """
        folder = self.local(stage, key)
        try:
            raw = json.loads((folder / MARKER).read_text())
            if raw.get("format") != FORMAT:
                return f"written by another version of the store (format {raw.get('format')}, here {FORMAT})"
            record = Record(**{**raw, "files": {name: tuple(facts) for name, facts in raw["files"].items()}})
        except FileNotFoundError:
            return "new" if not folder.exists() else f"file missing: {MARKER}"
        except (ValueError, TypeError, KeyError, AttributeError):
            return f"file unreadable: {MARKER}"
        for name, (size, _) in record.files.items():
            try:
                found = (folder / name).stat().st_size
            except OSError:
                return f"file missing: {name}"
            if found != size:
                return f"file truncated or altered: {name} ({found} bytes, {size} expected)"
        return record

    def previous(self, stage: str, key: str) -> Record | None:
        """Return what stage.json of an output says, whole or not; None where it can't be read."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Record(**json.loads((self.local(stage, key) / MARKER).read_text()))
        return None

    @contextlib.contextmanager
    def lock(self, stage: str, key: str, give_up: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Hold the lock of one key on this host: a second run of it waits here, then finds the output.

        Args:
            give_up: asked while waiting; True ends the wait with a StoreError.
        """
        folder = self.root / "locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / f"{stage}-{key}")  # the file stays: removing one that another waits on is a race
            lock.acquire(cancel_check=give_up)
        except Timeout as error:
            raise StoreError("The wait for another run of the same stage was given up.", where=stage) from error
        except OSError as error:
            raise StoreError("The store can't be written.", got=error, where=folder) from error
        try:
            yield
        finally:
            lock.release()

    def partial(self, stage: str, key: str) -> Path:
        """Return the working folder of a key, made if need be. Its name is stable, so that training resumes in it."""
        folder = self.root / stage / f"{key}.partial"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError("The store can't be written.", got=error, where=folder) from error
        return folder

    def commit(self, record: Record) -> Record:
        """Turn the working folder of record's key into its output: hash the files, write stage.json, rename once.

        The caller holds the key's lock. Files named *.resume are working state and are dropped, but not before
        stage.json stands: on a full disk they are what the next run goes on from.
        """
        partial, final = self.partial(record.stage, record.key), self.local(record.stage, record.key)
        state = [*partial.glob("*.resume")]
        files = {
            path.relative_to(partial).as_posix(): (path.stat().st_size, digest_file(path))
            for path in sorted(partial.rglob("*"))
            if path.is_file() and path != partial / MARKER and not {path, *path.parents} & {*state}
        }
        record = Record(**{**asdict(record), "files": files})
        write_json(partial / MARKER, record)
        for leftover in state:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        if final.exists():
            trash = final.with_name(f"{record.key}.stale-{time.time_ns()}")
            os.rename(final, trash)
            os.rename(partial, final)
            shutil.rmtree(trash, ignore_errors=True)
        else:
            os.rename(partial, final)
        _sync_folder(final.parent)
        return record


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader finds the old file or the new one, whole: write aside, flush to disk, rename."""
    aside = path.with_name(path.name + ".writing")
    try:
        with aside.open("w") as file:
            json.dump(plain(value), file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError:
        aside.unlink(missing_ok=True)  # of a full disk
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
