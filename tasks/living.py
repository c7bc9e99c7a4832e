"""Which runs live: each holds a lock beside its file, which the system takes back however the process ends.

A lock's file that nobody holds belongs to a run that was killed, or that could not tell MLflow how it ended. The next
run tells it, and removes the file.
"""

import contextlib
from pathlib import Path

from filelock import FileLock, Timeout

from clepdg.errors import StoreError
from clepdg.store import Store


def hold(store: Store, name: str) -> FileLock:
    """Take the lock of a new run.

    Raises:
        StoreError: the store can't be written.
    """
    path = _path(store, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, thread_local=False)
        lock.acquire()  # it is ours alone, but for the instant in which another run looks whether this one lives
    except OSError as error:
        raise StoreError("The store can't be written.", got=error, where=path.parent) from error
    return lock


def ended_untold(store: Store) -> list[str]:
    """Return the names of runs that are over without MLflow having been told."""
    names = []
    for path in sorted((store.root / "runs").glob("*.lock")):
        with contextlib.suppress(Timeout, OSError), FileLock(path, timeout=0):
            names.append(path.stem)
    return names


def told(store: Store, name: str) -> None:
    """Remember that MLflow knows how a run ended."""
    with contextlib.suppress(OSError):
        _path(store, name).unlink(missing_ok=True)


def _path(store: Store, name: str) -> Path:
    return store.root / "runs" / f"{name}.lock"
