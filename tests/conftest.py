"""Shared fixtures: no network, no telemetry, one micro backbone, synthetic audio."""

import gc
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(
    HF_HUB_OFFLINE="1",
    DO_NOT_TRACK="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="120",
    PREFECT_LOGGING_LEVEL="CRITICAL",
    TOKENIZERS_PARALLELISM="false",
    OMP_WAIT_POLICY="PASSIVE",  # threads that wait do not take the cores from the processes that tests start
)

import numpy as np
import pytest
from xdist.scheduler import LoadFileScheduling

from tests.tiers import is_slow

# Keep what is compiled: else each process that tests start compiles the project's modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

CORPORA = Path(__file__).resolve().parents[1].parent / "shared" / "corpora"
SERVER_FILES = ("tests/flow/test_flow.py", "tests/flow/test_deploy.py")  # of `make test`, with fixture prefect_server


class FilesOfOneServer(LoadFileScheduling):
    """Gives whole files to workers; one gets all that need Prefect's server, whose start takes 10 CPU seconds."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return SERVER_FILES[0] if file in SERVER_FILES else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FilesOfOneServer | None:
    """Return the scheduler of `make test`; None: xdist's own."""
    return FilesOfOneServer(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_finish() -> None:
    """Look seldom for garbage: else that takes one second in seven, since all imported modules are searched."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `make test` leaves to `make test-all`."""
    for item in items:
        if is_slow(item.nodeid):
            item.add_marker("slow")


@pytest.fixture(scope="session")
def micro_factory() -> Callable[[], object]:
    """Return a function that builds a fresh micro backbone."""
    from clepdg.models.micro import build_micro

    return lambda: build_micro(0)


@pytest.fixture(scope="session")
def micro(micro_factory):
    """Return one micro backbone that no test may change."""
    return micro_factory()


@pytest.fixture(scope="module")
def few_separation_steps():
    """Shorten what a random text encoder learns before CLEP, for trainings that need not become good."""
    from clepdg.method import text_features

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_features, "SEPARATION_STEPS", 4)
        yield


@pytest.fixture
def ticking():
    """Return a function that makes a checkpointing whose clock is one second on whenever it is read."""
    from clepdg.callbacks import Checkpointing

    return lambda seconds, limit=None: Checkpointing(
        checkpoint_seconds=seconds, limit_seconds=limit, clock=itertools.count().__next__
    )


@pytest.fixture
def tone() -> Callable[..., np.ndarray]:
    """Return a function that makes a voiced-like waveform (T,)."""

    def make(seconds: float, rate: int, pitch: float = 140.0, seed: int = 0) -> np.ndarray:
        time = np.arange(int(seconds * rate)) / rate
        noise = np.random.default_rng(seed).normal(0, 0.01, len(time))
        voice = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 8) if pitch * k < rate / 2)
        return (0.1 * voice * (1 + 0.5 * np.sin(2 * np.pi * 3 * time)) + noise).astype(np.float32)

    return make
