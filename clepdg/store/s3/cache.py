"""The local cache of a remote store: verified outputs, bounded in size, the least recently used are removed first.

Outputs that a running process uses stay: each process lists them below users/, in a file that is locked while it runs.
"""

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from filelock import FileLock

from clepdg.store.layout import ASIDE, PARTIAL, put_in_place, remove
from clepdg.store.record import MARKER, Record, damage, load_record

LEFT_SECONDS = 86400.0
_KEPT = ("locks", "users")


class Cache:
    """Outputs below root/<stage>/<key>, safe for threads and processes.

    Args:
        limit: bytes of all outputs together.
    """

    def __init__(self, root: Path, limit: float) -> None:
        self.root, self.limit = root, limit
        self._list: IO[str] | None = None
        self._mine: set[str] = set()
        self._sizes: dict[Path, int] = {}

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a lock of this cache."""
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / name):
            yield

    def held(self, stage: str, key: str) -> Record | None:
        """Return a cached output's record, if all files have their sizes."""
        folder = self.root / stage / key
        with contextlib.suppress(OSError):
            found = load_record(folder, stage, key)
            if isinstance(found, Record) and damage(folder, found) is None:
                return found
        return None

    def use(self, stage: str, key: str, attempt: str | None = None) -> Path | None:
        """Return a cached output's folder and keep it while this process runs.

        Args:
            attempt: the wanted attempt; None: any.
        """
        with self.lock("cache"):
            found = self.held(stage, key)
            if found is None or attempt not in (None, found.attempt):
                return None
            return self._used(stage, key)

    def add(self, record: Record, folder: Path) -> Path:
        """Add a verified folder, and remove outputs beyond the limit."""
        with self.lock("cache"):
            place = self.root / record.stage / record.key
            put_in_place(folder, place)
            used = self._used(record.stage, record.key)
            self._sizes[place] = record.bytes
            self._shrink()
            return used

    def drop(self, stage: str, key: str) -> None:
        """Remove an output from the cache."""
        with self.lock("cache"), contextlib.suppress(FileNotFoundError):
            remove(self.root / stage / key)

    def _used(self, stage: str, key: str) -> Path:
        if self._list is None:
            folder = self.root / "users"
            folder.mkdir(parents=True, exist_ok=True)
            self._list = (folder / f"{os.getpid()}-{uuid.uuid4().hex[:8]}").open("w")
            fcntl.flock(self._list, fcntl.LOCK_EX)  # the system unlocks it however the process ends
        if (name := f"{stage}/{key}") not in self._mine:
            self._mine.add(name)
            self._list.write(f"{name}\n")
            self._list.flush()
        os.utime(self.root / stage / key / MARKER)
        return self.root / stage / key

    def outputs(self) -> list[Path]:
        """Return the folders of all outputs, least recently used first."""
        found = []
        for marker in self.root.glob(f"*/*/{MARKER}"):
            folder = marker.parent
            if folder.parent.name not in _KEPT and ASIDE not in folder.name and not folder.name.endswith(PARTIAL):
                with contextlib.suppress(FileNotFoundError):
                    found.append((marker.stat().st_mtime_ns, folder))
        return [folder for _, folder in sorted(found)]

    def _shrink(self) -> None:
        for left in self.root.glob(f"*/*{ASIDE}*"):  # of killed downloads
            if time.time() - left.stat().st_mtime > LEFT_SECONDS:
                remove(left)
        folders = self.outputs()
        sizes = {folder: self._size(folder) for folder in folders}
        total = sum(sizes.values())
        if total <= self.limit:
            return
        used = self._in_use()
        for folder in folders:
            if total <= self.limit:
                return
            if f"{folder.parent.name}/{folder.name}" not in used:
                remove(folder)
                total -= sizes[folder]

    def _size(self, folder: Path) -> int:
        if folder not in self._sizes:
            found = self.held(folder.parent.name, folder.name)
            self._sizes[folder] = found.bytes if found else 0
        return self._sizes[folder]

    def _in_use(self) -> set[str]:
        """Return the outputs that running processes use; delete old lists."""
        used: set[str] = set()
        for path in (self.root / "users").iterdir():
            with path.open() as file:
                own = self._list is not None and path.name == Path(self._list.name).name
                try:
                    if not own:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        path.unlink()
                        continue
                except BlockingIOError:
                    pass
                used.update(file.read().split())
        return used
