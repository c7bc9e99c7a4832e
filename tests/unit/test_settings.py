"""Protects a machine's settings: times, several devices, databases; and that no password is in a file or shown."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from clepdg.download import urls
from clepdg.errors import ClepError, ConfigError, SourceError
from clepdg_tasks.host import preflight
from clepdg_tasks.host.preflight import check_devices
from clepdg_tasks.host.settings import load_settings
from clepdg_tasks.host.settings_file import without_password
from clepdg_tasks.tracking import client

ROOT = Path(__file__).resolve().parents[2]


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
        ("auto", 2, ["auto"]),
        ("cpu", 2, ["cpu"]),  # ranks share a CPU
        ("cuda:0, cuda:1", 1, ["cuda:0", "cuda:1"]),
        ("cuda:0,cuda:1", 2, ["cuda:0,cuda:1"]),
        ("cuda:0,cuda:1,cuda:2,cuda:3,cuda:4", 2, ["cuda:0,cuda:1", "cuda:2,cuda:3"]),
    ],
)
def test_what_can_be_trained_at_once(monkeypatch, device, ranks, lanes):
    monkeypatch.setenv("CLEPDG_DEVICE", device)
    assert load_settings().lanes(ranks, threads=1) == lanes


@pytest.mark.parametrize(
    ("cores", "available", "memory", "threads", "lanes"),
    [(8, 64, 64, 2, 4), (8, 64, 64, 16, 1), (8, 15, 64, 1, 2), (8, 64, 8, 1, 2), (8, 64, 64, 1, 8), (8, 2, 64, 1, 1)],
)
def test_a_cpu_trains_as_many_folds_as_cores_and_memory_allow(monkeypatch, cores, available, memory, threads, lanes):
    monkeypatch.setenv("CLEPDG_DEVICE", "auto")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("joblib.cpu_count", lambda: cores)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=available << 30))
    for module in ("clepdg.dataset.kept", "clepdg.method.inputs.batch_audio"):
        monkeypatch.setattr(f"{module}.memory_bytes", lambda: memory << 30)
    assert load_settings().lanes(1, threads) == [f"cpu:{lane}" for lane in range(lanes)]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert load_settings().lanes(1, threads) == ["auto"]


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
        ("postgresql://me:se/c?r@et@db/prefect", "postgresql://me@db/prefect"),
        ("postgresql://db:5432/prefect", "postgresql://db:5432/prefect"),
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


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"store = 3", "store"),
        (b"device = ['cuda:0', 'cuda:1']", "device"),
        (b"tracking_url = {}", "tracking_url"),
        (b"mlflow_database_url = true", "mlflow_database_url"),
        (b"cards = 1979-05-27", "cards"),
        (b'store = "a\\u0000b"', "store"),
        (b'store = "a\nb"', "can.t be read"),
        (b'store = "a\x00b"', "can.t be read"),
        (b'store = "\xff"', "can.t be read"),
        (b"store = " + b"[" * 100_000, "can.t be read"),
        (b"workers = true", "workers"),
        (b"workers = 2.0", "workers"),
        ("workers = '²'".encode(), "workers"),
        (b"workers = '" + b"9" * 5000 + b"'", "workers"),
        (b"cache_gigabytes = true", "cache_gigabytes"),
        (b"training_seconds = [1]", "training_seconds"),
        (b"secrets = 3", "secrets"),
        (b"[secrets]\n'https://host' = 'NAME'", "secrets"),
        (b"[secrets]\n'https://host' = []", "secrets"),
        (b"[secrets]\n'https://host' = ['A B']", "secrets"),
        (b"[secrets]\n'host' = ['A']", "secrets"),
    ],
)
def test_a_file_that_is_not_right_is_one_error(home, content, says):
    (home / "settings.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"(?s){says}.*settings\.toml"):
        load_settings()


def test_a_folder_in_the_files_place_is_one_error(home):
    (home / "settings.toml").mkdir()
    with pytest.raises(ConfigError, match=r"(?s)can't be read.*settings\.toml"):
        load_settings()
    (home / "settings.toml").rmdir()
    os.mkfifo(home / "settings.toml")
    with pytest.raises(ConfigError, match=r"(?s)can't be read.*settings\.toml"):
        load_settings()


def test_a_byte_order_mark_is_no_part_of_the_file(home):
    (home / "settings.toml").write_text('\ufeffdevice = "cpu"\n', encoding="utf-8")
    assert load_settings().device == "cpu"


@pytest.mark.parametrize("name", ["tracking_url", "store"])
@pytest.mark.parametrize("url", ["http://me:secret@host", "http://secret@host", "http://host/?key=secret"])
def test_a_password_of_a_server_is_not_kept_in_the_file(name, url, home):
    (home / "settings.toml").write_text(f'{name} = "{url}"\n')
    with pytest.raises(ConfigError, match=rf"(?s)holds a password.*{name} in ") as caught:
        load_settings()
    assert "secret" not in str(caught.value)


def test_a_trackers_password_is_used_and_not_shown(monkeypatch):
    monkeypatch.setenv("CLEPDG_TRACKING_URL", "http://me:secret@127.0.0.1:1/x")
    settings = load_settings()
    assert client.tracking_url(settings) == "http://me:secret@127.0.0.1:1/x"
    shown = [client.where_to_view(settings), client.tracking_identity(settings)]
    shown.append(str(client.run_page(client.tracking_url(settings), "1", "2")))
    assert shown[0] == "http://127.0.0.1:1/x" and "secret" not in " ".join(shown)
    with pytest.raises(ClepError, match="does not answer") as caught:
        preflight.check_tracking(settings)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://[::1", "sqlite:///nope/x.db", "ftp://host/x", "nonsense", "http://"])
def test_an_address_that_is_none_of_mlflows_is_one_error(url, monkeypatch):
    monkeypatch.setenv("CLEPDG_TRACKING_URL", url)
    with pytest.raises(ConfigError, match="MLflow's address is not valid"):
        load_settings()


@pytest.mark.parametrize("url", ["http://[::1]:5000", "https://me:p/w@host/x", "sqlite:////a/b.db", "databricks"])
def test_mlflows_addresses_are_accepted(url, monkeypatch):
    monkeypatch.setenv("CLEPDG_TRACKING_URL", url)
    assert load_settings().tracking_url == url


def test_secrets_of_the_file_reach_the_library(home, monkeypatch):
    monkeypatch.setenv("WORD", "hunter2")
    for name in ("CLEPDG_SECRETS", "CLEPDG_SECRETS_WRITTEN"):
        monkeypatch.setenv(name, "")  # remembered, to be put back
    (home / "settings.toml").write_text('[secrets]\n"https://host" = ["WORD"]\n')
    load_settings()
    assert urls.expand("https://host/?t=${WORD}") == "https://host/?t=hunter2"
    (home / "settings.toml").write_text("")
    load_settings()
    with pytest.raises(SourceError, match="may not have"):
        urls.expand("https://host/?t=${WORD}")


@pytest.mark.parametrize(("before", "after"), [(None, ""), ("a.example", "a.example,"), ("*", None)])
def test_no_proxy_stands_before_this_machine(before, after, monkeypatch, server):
    """A proxy of the environment sees no request to a server of this machine."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, before or "")
        if before is None:
            monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, server.base)
    monkeypatch.setenv("CLEPDG_TRACKING_URL", "http://127.0.0.1:1")
    settings = load_settings()
    assert (
        os.environ["NO_PROXY"]
        == os.environ["no_proxy"]
        == ("*" if after is None else f"{after}127.0.0.1,localhost,::1")
    )
    with pytest.raises(ClepError, match="does not answer"):
        preflight.check_tracking(settings)
    assert server.requests == []


@pytest.mark.parametrize(
    ("written", "environment", "expected"),
    [("", "", True), ("durable = false", "", False), ("durable = false", "true", True), ("", "False", False)],
)
def test_whether_outputs_are_flushed(tmp_path, monkeypatch, written, environment, expected):
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path))
    monkeypatch.setenv("CLEPDG_DURABLE", environment)
    (tmp_path / "settings.toml").write_text(written)
    assert load_settings().durable is expected
    assert load_settings().open_store().durable is expected
    monkeypatch.setenv("CLEPDG_DURABLE", "perhaps")
    with pytest.raises(ConfigError, match=r"(?s)durable is neither true nor false.*perhaps"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "meant"),
    [("CLEPDG_DEVISE", "CLEPDG_DEVICE"), ("clepdg_store", "CLEPDG_STORE"), ("CLEPDG_MIRROR", "CLEPDG_MIRRORS")],
)
def test_a_misspelt_variable_is_answered_with_the_nearest_name(monkeypatch, name, meant):
    monkeypatch.setenv(name, "cpu")
    with pytest.raises(ConfigError, match=f"(?s)no such setting.*{name}.*did you mean {meant}[?]"):
        load_settings()


def test_variables_that_others_set_are_no_typos(monkeypatch):
    """A cluster's for its services, the secrets of addresses, and what clep-dg hands to its children."""
    for name in ("MLFLOW_SERVICE_HOST", "MLFLOW_SERVICE_PORT_HTTP", "MLFLOW_PORT", "MLFLOW_PORT_5000_TCP_ADDR"):
        monkeypatch.setenv(f"CLEPDG_{name}", "10.0.0.1")
    monkeypatch.setenv("CLEPDG_TOKEN", "s3cret")
    monkeypatch.setenv("CLEPDG_SECRETS", "https://host=CLEPDG_TOKEN")
    for name in ("SERVICE", "SERVING_AUDIO", "CARDS_WRITTEN"):
        monkeypatch.setenv(f"CLEPDG_{name}", "x")
    load_settings()


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cpu,abacus:1", ","])
def test_what_is_no_device_is_refused_where_settings_are_read(monkeypatch, device):
    monkeypatch.setenv("CLEPDG_DEVICE", device)
    with pytest.raises(ConfigError, match="(?s)device.*expected: auto, cpu, cuda:N.*CLEPDG_DEVICE"):
        load_settings()


def test_an_installed_package_names_no_make(monkeypatch):
    """Messages say how the servers start there."""
    code = "import sys, clepdg.config.manifests as m; m.CHECKOUT = None; from clepdg_tasks.host import settings as s"
    said = subprocess.run([sys.executable, "-c", f"{code}; print(s.UP)"], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == f"{sys.executable} -m clepdg_tasks.admin.services up"
    texts = [path.read_text() for folder in ("tasks", "flows") for path in (ROOT / folder).rglob("*.py")]
    assert not [text for text in texts if re.search(r"(do|got|expected)=.*make up|ClepError\(.*make up", text)]
