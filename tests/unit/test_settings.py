"""Protects the addresses of databases in the settings: PostgreSQL alone, and no password in a file or on a screen."""

import pytest

from clepdg.errors import ClepError, ConfigError
from tasks import preflight, tracking
from tasks.settings import load_settings, without_password


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path))
    for name in ("TRACKING_URL", "PREFECT_DATABASE_URL", "MLFLOW_DATABASE_URL"):
        monkeypatch.delenv(f"CLEPDG_{name}", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@db:5432/prefect", "postgresql://me@db:5432/prefect"),
        ("postgresql://me:sec:ret@db/prefect", "postgresql://me@db/prefect"),
        ("postgresql://me@db/prefect?password=secret", "postgresql://me@db/prefect"),
        ("postgresql://me@db:5432/prefect", "postgresql://me@db:5432/prefect"),
        ("postgresql:///prefect", "postgresql:///prefect"),
        ("sqlite:////a/b c/mlflow.db", "sqlite:////a/b c/mlflow.db"),
    ],
)
def test_a_password_is_not_shown(url, shown):
    assert without_password(url) == shown


@pytest.mark.parametrize("url", ["postgresql://me:secret@db/x", "postgresql://me@db/x?password=secret"])
def test_a_password_in_the_file_is_refused_and_not_repeated(url, home, monkeypatch):
    (home / "settings.toml").write_text(f'mlflow_database_url = "{url}"\n')
    with pytest.raises(ConfigError, match=r"(?s)mlflow_database_url in .*settings.toml.*PGPASSWORD") as caught:
        load_settings()
    assert "secret" not in str(caught.value)
    (home / "settings.toml").unlink()
    monkeypatch.setenv("CLEPDG_MLFLOW_DATABASE_URL", url)
    settings = load_settings()
    assert settings.mlflow_database_url == url == tracking.tracking_url(settings)
    assert "secret" not in tracking.how_to_look(settings) + tracking.tracking_identity(settings)


@pytest.mark.parametrize("url", ["sqlite:///x.db", "postgresql+asyncpg://me@db/x", "db:5432/x", "postgresql://me:s@db"])
def test_what_is_no_postgresql_is_refused(url, monkeypatch):
    monkeypatch.setenv("CLEPDG_PREFECT_DATABASE_URL", url)
    with pytest.raises(ConfigError, match=r"(?s)postgresql://USER@HOST:PORT/DATABASE.*prefect_database_url") as caught:
        load_settings()
    assert ":s@" not in str(caught.value)


def test_a_server_that_is_set_comes_before_a_database(monkeypatch):
    monkeypatch.setenv("CLEPDG_MLFLOW_DATABASE_URL", "postgresql://me@db/x")
    monkeypatch.setenv("CLEPDG_TRACKING_URL", "http://127.0.0.1:1")
    assert tracking.tracking_identity(load_settings()) == "http://127.0.0.1:1"
    assert tracking.how_to_look(load_settings()) == "http://127.0.0.1:1"


def test_a_database_that_can_not_be_used_is_named():
    with pytest.raises(ClepError, match=r"(?s)can't be used.*127.0.0.1:1/x"):
        preflight.check_database("postgresql://me:secret@127.0.0.1:1/x", "sqlite3")
    with pytest.raises(ClepError, match="extra postgres"):
        preflight.check_database("postgresql://me@127.0.0.1:1/x", "no_such_driver")
