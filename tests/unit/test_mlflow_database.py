"""Protects MLflow's database: paths with odd characters, and one message where it can't be used."""

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from clepdg.errors import ClepError
from clepdg_tasks.host import sqlite
from clepdg_tasks.host.preflight import check_tracking
from clepdg_tasks.host.settings import Settings
from clepdg_tasks.tracking.champion import promote
from clepdg_tasks.tracking.client import aliased_versions, connect, tracking_identity, tracking_url, where_to_view
from clepdg_tasks.tracking.compare import compare
from clepdg_tasks.tracking.model_registry import load_classifier


def settings_in(home: Path) -> Settings:
    return Settings(home=home, store=str(home / "store"), tracking_url=None, device="cpu", workers=1)


def database_of(home: Path, *commands: str) -> Path:
    path = sqlite.mlflow_database(settings_in(home))
    path.parent.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(path)) as database:
        for command in commands:
            database.execute(command)
        database.commit()
    return path


def schema(version: str) -> tuple[str, ...]:
    return "create table alembic_version (version_num text)", f"insert into alembic_version values ('{version}')"


def not_sqlite(home: Path) -> None:
    database_of(home).write_bytes(b"no database " * 100)


def torn(home: Path) -> None:
    path = database_of(home, *schema("x"), "create table t (a)", *[f"insert into t values ('{'x' * 4000}')"] * 20)
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(20_000))


def folder(home: Path) -> None:
    database_of(home).unlink()
    sqlite.mlflow_database(settings_in(home)).mkdir()


def other_version(home: Path) -> None:
    database_of(home, *schema("0123456789ab"))


@pytest.mark.parametrize("use", [
    check_tracking,
    connect,
    aliased_versions,
    lambda settings: load_classifier(settings, "demo"),
    lambda settings: compare(settings, "demo"),
    lambda settings: promote(settings, "demo", 1, "why"),
], ids=["preflight", "run", "gc", "predict", "compare", "promote"])  # fmt: skip
@pytest.mark.parametrize(
    ("spoil", "what", "do"),
    [
        (not_sqlite, "can't be read.*file is not a database", "mv .*mlflow.db"),
        (torn, "can't be read", "mv .*mlflow.db"),
        (folder, "can't be read.*unable to open", "mv .*mlflow.db"),
        (
            other_version,
            "another version of MLflow.*schema 0123456789ab",
            "cd '.*a home/mlflow' && mlflow db upgrade sqlite:///mlflow.db",
        ),
    ],
)
def test_a_database_that_cannot_be_used_is_one_message_with_the_command_that_mends_it(tmp_path, spoil, what, do, use):
    spoil(tmp_path / "a home")
    with pytest.raises(ClepError, match=f"(?s){what}.*{do}"):
        use(settings_in(tmp_path / "a home"))


@pytest.mark.parametrize("make", [lambda home: None, database_of, lambda home: database_of(home, "create table t (a)")])
def test_a_missing_or_empty_database_is_fine(tmp_path, make):
    make(tmp_path / "home")
    check_tracking(settings_in(tmp_path / "home"))


def test_a_database_that_another_run_writes_is_fine(tmp_path):
    path = database_of(tmp_path, *schema("x"))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("begin exclusive")
        sqlite.check_mlflow_database(path, wait_seconds=0.1)


def test_a_plain_path_has_the_address_that_the_documents_show(tmp_path):
    settings = settings_in(tmp_path)
    assert tracking_url(settings) == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert where_to_view(settings_in(Path("/a b?c"))) == (
        "cd '/a b?c/mlflow' && mlflow ui --backend-store-uri sqlite:///mlflow.db"
    )


def test_a_database_that_was_put_aside_is_another_one(tmp_path):
    settings = settings_in(tmp_path)
    path = database_of(tmp_path)
    first = tracking_identity(settings)
    assert first == tracking_identity(settings) == str(path.parent)
    path.unlink()
    second = tracking_identity(settings)
    path.write_bytes(b"")
    assert second == tracking_identity(settings) != first
