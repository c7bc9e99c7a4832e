"""SQLite files of this machine: their addresses, and whether MLflow can use its own."""

import contextlib
import importlib.util
import re
import shlex
import sqlite3
from importlib import metadata
from pathlib import Path
from urllib.parse import quote, unquote

from clepdg.errors import ClepError
from clepdg_tasks.host.settings import Settings

BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")


def sqlite_url(path: Path, driver: str = "") -> str:
    """Return the address of a SQLite file for SQLAlchemy.

    After a `?` SQLAlchemy reads options: a path that has one is quoted as a URI of SQLite. With a named driver MLflow
    makes no folder of it.
    """
    if "?" not in str(path):
        return f"sqlite{driver}:///{path}"
    return f"sqlite{driver or '+pysqlite'}:///file:{quote(str(path))}?uri=true"


def file_of(url: str) -> Path:
    """Return the file of a SQLite address, absolute."""
    from sqlalchemy.engine import make_url

    database = make_url(url).database or ""
    return Path(unquote(database.removeprefix("file:")) if database.startswith("file:") else database).absolute()


def mlflow_database(settings: Settings) -> Path:
    """Return the SQLite file of MLflow, used without a server and PostgreSQL."""
    return settings.home / "mlflow" / "mlflow.db"


def check_mlflow_database(path: Path, *, wait_seconds: float = 5.0) -> None:
    """Raise if MLflow's SQLite file is damaged or of another MLflow.

    A missing file, or one without MLflow's tables, is fine: MLflow makes them. MLflow itself is not imported.

    Args:
        wait_seconds: for another process that writes it.

    Raises:
        ClepError: the message has the command that mends it.
    """
    if not path.exists():
        return
    folder = f"cd {shlex.quote(str(path.parent))}"
    anew = f"{folder} && mkdir old && mv {path.name}* old; the next run registers the store's outputs in a new one"
    try:
        found = _schema(path, wait_seconds)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "").startswith(BUSY):
            return
        do = f"put it aside: {anew}"
        raise ClepError("MLflow's database can't be read.", got=error, where=path, do=do) from error
    expected = _expected_schema()
    if expected and found not in (None, expected):
        upgrade = f"{folder} && mlflow db upgrade sqlite:///{path.name}"
        raise ClepError(
            "MLflow's database was written by another version of MLflow.",
            got=f"schema {found}",
            expected=f"schema {expected}, of MLflow {metadata.version('mlflow')}",
            where=path,
            do=f"copy it, then {upgrade}; if that fails it is newer: use its MLflow, or put it aside: {anew}",
        )


def _schema(path: Path, wait_seconds: float) -> str | None:
    """Return the version of MLflow's tables, or None if there are none.

    Raises:
        sqlite3.Error: the file is not a database, is damaged, or can't be opened.
    """
    address = f"{path.as_uri()}?mode=rw"  # never creates it
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=wait_seconds)) as database:
        said = database.execute("pragma quick_check(1)").fetchone()[0]
        if said != "ok":
            raise sqlite3.DatabaseError(said)
        if not database.execute("select 1 from sqlite_master where name = 'alembic_version'").fetchone():
            return None
        found = database.execute("select version_num from alembic_version").fetchone()
        return str(found[0]) if found else None


def _expected_schema() -> str | None:
    """Return the newest of MLflow's migrations, or None if it is not clear."""
    spec = importlib.util.find_spec("mlflow")
    folder = Path((spec.submodule_search_locations or [""])[0] if spec else "") / "store/db_migrations/versions"
    texts = [path.read_text(errors="replace") for path in folder.glob("*.py")]
    names, before = (
        {name for text in texts for name in re.findall(rf'^{word} = "(\w+)"', text, re.MULTILINE)}
        for word in ("revision", "down_revision")
    )
    newest = names - before
    return newest.pop() if len(newest) == 1 else None
