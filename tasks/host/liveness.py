"""Mark running processes with lock files and find runs that were killed.

The system releases a lock however its process ends. A lock file that no process holds belongs to a run that was killed,
or that could not report its end to a server. The next run reports it and removes the file. Each server has a folder of
lock files: runs/ in the store for MLflow, by the run's name; one below var/ for Prefect, by the flow run's id.
"""

import contextlib
import ctypes
import signal
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from clepdg.errors import StoreError


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent dies (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 = PR_SET_PDEATHSIG


def hold(folder: Path, name: str) -> FileLock:
    """Acquire the lock file of a new run.

    Raises:
        StoreError: the folder can't be written.
    """
    path = _path(folder, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, thread_local=False)
        lock.acquire()  # free, except while another run checks this file
    except OSError as error:
        raise StoreError("A run's lock can't be written.", got=error, where=folder) from error
    return lock


def unreported(folder: Path) -> list[str]:
    """Return the names of runs that ended without a report to the server."""
    names = []
    for path in sorted(folder.glob("*.lock")):
        with contextlib.suppress(Timeout, OSError), FileLock(path, timeout=0):
            names.append(path.stem)
    return names


def mark_reported(folder: Path, name: str) -> None:
    """Remove the lock file of a run whose end the server has recorded."""
    with contextlib.suppress(OSError):
        _path(folder, name).unlink(missing_ok=True)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.lock"
