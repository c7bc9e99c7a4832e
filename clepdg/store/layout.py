"""List, place and remove the folders of a store: outputs, working folders and leftovers."""

import os
import shutil
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clepdg.store.record import MARKER

PARTIAL = ".partial"
ASIDE = ".stale-"
FLUSHED_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class Item:
    """A folder in a store below <stage>/.

    Attributes:
        kind: an output (with or without a valid stage.json), a working folder, or the unused rest of an output.
        bytes: its size.
        age: seconds since it was last written.
        place: its path below the store's root.
        here: on this machine; False: in a bucket.
    """

    kind: Literal["output", "partial", "leftover"]
    stage: str
    key: str
    bytes: int
    age: float
    place: str
    here: bool = True


def folder_items(root: Path, stages: Iterable[str], now: float, only: str | None = None) -> list[Item]:
    """Return the folders below root/<stage>/ of the given stages.

    Args:
        only: a key; None: all of them.
    """
    found = []
    for stage in stages:
        for path in sorted((root / stage).glob("*/")):
            name = path.name
            key = name.removesuffix(PARTIAL).partition(ASIDE)[0]
            if only not in (None, key):
                continue
            kind: Literal["output", "partial", "leftover"] = "output" if key == name else "leftover"
            if name == key + PARTIAL:
                kind = "partial"
            size, newest = _measure(path)
            found.append(Item(kind=kind, stage=stage, key=key, bytes=size, age=now - newest, place=f"{stage}/{name}"))
    return found


def _measure(folder: Path) -> tuple[int, float]:
    """Return the bytes in a folder, and its last modification time."""
    size, newest = 0, 0.0
    for path in (folder, *folder.rglob("*")):
        try:
            facts = os.lstat(path)
        except FileNotFoundError:  # a run is at work in it
            continue
        size += 0 if path.is_dir() else facts.st_size
        newest = max(newest, facts.st_mtime)
    return size, newest


def drop_state(folder: Path) -> None:
    """Remove the checkpoints (*.resume) from a complete folder."""
    for leftover in [*folder.glob("*.resume")]:
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def put_in_place(folder: Path, place: Path) -> None:
    """Rename a complete folder to its place; replace what is there."""
    if place.exists():
        trash = _aside(place)
        os.rename(folder, place)
        shutil.rmtree(trash, ignore_errors=True)
    else:
        os.rename(folder, place)
    _flush(place.parent)


def flush(folder: Path) -> None:
    """Flush the files and folders in a folder to the disk."""
    with ThreadPoolExecutor(FLUSHED_AT_ONCE) as pool:  # the file system writes several in one go
        list(pool.map(_flush, [path for path in folder.rglob("*") if not path.is_symlink()]))
    _flush(folder)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(place: Path) -> None:
    """Remove a folder: rename it away, then delete its files."""
    shutil.rmtree(place if ASIDE in place.name else _aside(place), ignore_errors=True)


def _aside(place: Path) -> Path:
    trash = place.with_name(f"{place.name}{ASIDE}{time.time_ns()}")
    os.rename(place, trash)
    return trash


def invalidate(folder: Path) -> None:
    """Remove stage.json from an output, so that it is no longer valid."""
    (folder / MARKER).unlink(missing_ok=True)
