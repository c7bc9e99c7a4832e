"""Protects a machine's settings: times, several devices, and which faults are named before a run starts."""

import pytest

from clepdg.errors import ConfigError
from tasks.preflight import check_devices
from tasks.settings import load_settings


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path))
    for name in ("DEVICE", "WORKERS", "TRAINING_SECONDS", "CHECKPOINT_SECONDS"):
        monkeypatch.delenv(f"CLEPDG_{name}", raising=False)
    return tmp_path


def test_times_come_from_the_environment_then_the_file_then_defaults(home, monkeypatch):
    assert (load_settings().pace.checkpoint_seconds, load_settings().pace.limit_seconds) == (60.0, None)
    (home / "settings.toml").write_text("training_seconds = 7200\ncheckpoint_seconds = 0\n")
    assert (load_settings().pace.checkpoint_seconds, load_settings().pace.limit_seconds) == (0.0, 7200.0)
    monkeypatch.setenv("CLEPDG_CHECKPOINT_SECONDS", "2.5")
    assert load_settings().pace.checkpoint_seconds == 2.5


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
    monkeypatch.setattr("tasks.preflight.check_device", lambda device: None)
    check_devices("cuda:0,cuda:1", 2)
    with pytest.raises(ConfigError, match="GPU of its own"):
        check_devices("cuda:0", 2)
