"""Protects a machine's settings: times, several devices, databases; and that no password is in a file or shown."""

import pytest

from clepdg.errors import ClepError, ConfigError
from clepdg_tasks.host import preflight
from clepdg_tasks.host.preflight import check_devices
from clepdg_tasks.host.settings import load_settings, without_password
from clepdg_tasks.tracking import client


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path))
    kept = ("DEVICE", "WORKERS", "TRAINING_SECONDS", "CHECKPOINT_SECONDS")
    for name in (*kept, "TRACKING_URL", "PREFECT_DATABASE_URL", "MLFLOW_DATABASE_URL"):
        monkeypatch.delenv(f"CLEPDG_{name}", raising=False)
    return tmp_path


def checkpointing() -> tuple[float, float | None]:
    found = load_settings().checkpointing
    return found.checkpoint_seconds, found.limit_seconds


def test_times_come_from_the_environment_then_the_file_then_defaults(home, monkeypatch):
    assert checkpointing() == (60.0, None)
    (home / "settings.toml").write_text("training_seconds = 7200\ncheckpoint_seconds = 0\n")
    assert checkpointing() == (0.0, 7200.0)
    monkeypatch.setenv("CLEPDG_CHECKPOINT_SECONDS", "2.5")
    assert load_settings().checkpointing.checkpoint_seconds == 2.5


@pytest.mark.parametrize("value", ["soon", "-1", "inf", "nan"])
def test_what_is_no_time_is_refused(monkeypatch, value):
    monkeypatch.setenv("CLEPDG_TRAINING_SECONDS", value)
    with pytest.raises(ConfigError, match="training_seconds is not a time") as error:
        load_settings()
    assert value in str(error.value)


@pytest.mark.parametrize(
    ("device", "ranks", "lanes"),
    [
        ("auto", 1, ["auto"]),
        ("cpu", 2, ["cpu"]),  # ranks share a CPU
        ("cuda:0, cuda:1", 1, ["cuda:0", "cuda:1"]),
        ("cuda:0,cuda:1", 2, ["cuda:0,cuda:1"]),
        ("cuda:0,cuda:1,cuda:2,cuda:3,cuda:4", 2, ["cuda:0,cuda:1", "cuda:2,cuda:3"]),
    ],
)
def test_what_can_be_trained_at_once(monkeypatch, device, ranks, lanes):
    monkeypatch.setenv("CLEPDG_DEVICE", device)
    assert load_settings().lanes(ranks) == lanes


def test_devices_that_can_not_be_used_are_named():
    check_devices("cpu:0,cpu:1", 1)
    check_devices("cpu", 4)
    for device in ("cpu,cpu", "auto,cpu"):
        with pytest.raises(ConfigError, match="one by one"):
            check_devices(device, 1)
    with pytest.raises(ConfigError, match="abacus"):
        check_devices("cpu,abacus:1", 1)


def test_ranks_do_not_share_a_gpu(monkeypatch):
    monkeypatch.setattr("clepdg_tasks.host.preflight.check_device", lambda device: None)
    check_devices("cuda:0,cuda:1", 2)
    with pytest.raises(ConfigError, match="GPU of its own"):
        check_devices("cuda:0", 2)


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
    assert settings.mlflow_database_url == url == client.tracking_url(settings)
    assert "secret" not in client.where_to_view(settings) + client.tracking_identity(settings)


@pytest.mark.parametrize("url", ["sqlite:///x.db", "postgresql+asyncpg://me@db/x", "db:5432/x", "postgresql://me:s@db"])
def test_what_is_no_postgresql_is_refused(url, monkeypatch):
    monkeypatch.setenv("CLEPDG_PREFECT_DATABASE_URL", url)
    with pytest.raises(ConfigError, match=r"(?s)postgresql://USER@HOST:PORT/DATABASE.*prefect_database_url") as caught:
        load_settings()
    assert ":s@" not in str(caught.value)


def test_a_server_that_is_set_comes_before_a_database(monkeypatch):
    monkeypatch.setenv("CLEPDG_MLFLOW_DATABASE_URL", "postgresql://me@db/x")
    monkeypatch.setenv("CLEPDG_TRACKING_URL", "http://127.0.0.1:1")
    assert client.tracking_identity(load_settings()) == "http://127.0.0.1:1"
    assert client.where_to_view(load_settings()) == "http://127.0.0.1:1"


def test_a_database_that_can_not_be_used_is_named():
    with pytest.raises(ClepError, match=r"(?s)can't be used.*127.0.0.1:1/x"):
        preflight.check_database("postgresql://me:secret@127.0.0.1:1/x", "sqlite3")
    with pytest.raises(ClepError, match="extra postgres"):
        preflight.check_database("postgresql://me@127.0.0.1:1/x", "no_such_driver")
