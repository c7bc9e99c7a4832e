"""Which runs live: each holds locks, which the system takes back however its process ends.

A lock's file that nobody holds belongs to a run that was killed, or that could not tell a server how it ended. The next
run tells it, and removes the file. The files lie in a folder for each server that is told: runs/ in the store for
MLflow, by the run's name; below var/ for Prefect, by the flow run's id.
"""

import contextlib
import ctypes
import signal
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from clepdg.errors import StoreError


def die_with_parent(by: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel to end this process when its parent dies, kill -9 included (Linux alone knows how)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, by)  # 1 = PR_SET_PDEATHSIG


def hold(folder: Path, name: str) -> FileLock:
    """Take the lock of a new run.

    Raises:
        StoreError: the folder can't be written.
    """
    path = _path(folder, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, thread_local=False)
        lock.acquire()  # it is ours alone, but for the instant in which another run looks whether this one lives
    except OSError as error:
        raise StoreError("A run's lock can't be written.", got=error, where=folder) from error
    return lock


def ended_untold(folder: Path) -> list[str]:
    """Return the names of runs that are over without the server having been told."""
    names = []
    for path in sorted(folder.glob("*.lock")):
        with contextlib.suppress(Timeout, OSError), FileLock(path, timeout=0):
            names.append(path.stem)
    return names


def told(folder: Path, name: str) -> None:
    """Remember that the server knows how a run ended."""
    with contextlib.suppress(OSError):
        _path(folder, name).unlink(missing_ok=True)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.lock"
