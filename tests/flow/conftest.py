"""A Prefect server for the session, and a small project state of its own for each module."""

import os
from pathlib import Path

import pytest

from clepdg_tasks.admin import prefect_deployments
from clepdg_tasks.host import processes
from clepdg_tasks.host.settings import PROJECT


@pytest.fixture(scope="session")
def prefect_server():
    """Run flows against one temporary server: starting one for each flow would cost ten seconds."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Return a folder with a space in its name that holds all state of the module's runs."""
    return tmp_path_factory.mktemp("a home")


@pytest.fixture(autouse=True)
def settings(home, monkeypatch):
    """Point the settings at the module's home."""
    monkeypatch.setenv("CLEPDG_HOME", str(home))
    for name in ("STORE", "TRACKING_URL", "DEVICE", "WORKERS", "TRAINING_SECONDS", "CHECKPOINT_SECONDS"):
        monkeypatch.delenv(f"CLEPDG_{name}", raising=False)
    monkeypatch.setenv("CLEPDG_DEVICE", "cpu")


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project folder whose prefect.toml is not the checkout's."""
    folder = tmp_path / "a project"
    folder.mkdir()
    for name in ("flows", "prefect.yaml"):
        (folder / name).symlink_to(PROJECT / name)
    for module in (prefect_deployments, processes):
        monkeypatch.setattr(module, "PROJECT", folder)
    for name in [n for n in os.environ if n.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    return folder
