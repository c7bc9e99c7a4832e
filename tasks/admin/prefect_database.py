"""Prepare the SQLite database of Prefect's servers before one starts.

Servers of several runs share it. The first one creates its tables, which no other may do at the same time.
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

from clepdg.errors import ClepError
from clepdg_tasks.host.settings import Settings


@contextlib.contextmanager
def prepared_database(settings: Settings) -> Iterator[str | None]:
    """Put a damaged database aside, and let one server at a time create it.

    The block starts a server and ends when it answers.

    Yields:
        A note for the user, if the database was put aside.

    Raises:
        ClepError: the folder can't be written.
    """
    folder = settings.home / "prefect"
    database, made = folder / "prefect.db", folder / f"made-by-prefect-{version('prefect')}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / "start.lock").acquire()
    except OSError as error:
        raise ClepError("Prefect's folder can't be written.", got=error, where=folder) from error
    with held:
        note = _put_aside(database) if is_damaged(database) else None
        if not (database.exists() and made.exists()):
            made.unlink(missing_ok=True)
            yield note
            made.touch()
            return
    yield note


def is_damaged(database: Path) -> bool:
    """Return whether a file is not a whole SQLite database."""
    if not database.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=30)) as opened:
            return bool(opened.execute("PRAGMA quick_check(1)").fetchone() != ("ok",))
    except sqlite3.OperationalError:  # it is locked, or can't be opened: the server says more
        return False
    except sqlite3.DatabaseError:
        return True


def _put_aside(database: Path) -> str:
    aside = database.with_name(f"{database.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{database}{suffix}").rename(f"{aside}{suffix}")
    return f"Prefect's database was damaged: it is now {aside}. Pages of earlier runs are lost, their results are not."
