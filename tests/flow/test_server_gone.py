"""Protects runs whose Prefect server goes away: what is computed is kept, and the run ends soon and clearly."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from clepdg_tasks.admin import services
from clepdg_tasks.admin.prefect_server import prefect_command
from clepdg_tasks.host import children, processes
from clepdg_tasks.host.settings import load_settings

pytestmark = pytest.mark.slow

SETTINGS = {
    "synthetic.utterances": 20,
    "clep.epochs": 1,
    "clep.steps_per_epoch": 2,
    "clep.batch_size": 4,
    "protocols": "supervised",
    "rows": "majority,clep-zero-shot",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "a home").mkdir()
    return tmp_path / "a home"


@pytest.fixture
def serve(home) -> Iterator[Callable[[int], subprocess.Popen[bytes]]]:
    """Return a function that starts Prefect's server on a port; it keeps its runs in the home."""
    started: list[subprocess.Popen[bytes]] = []

    def start(port: int) -> subprocess.Popen[bytes]:
        log = home / "server.log"
        with log.open("ab") as out:
            environment = {**os.environ, **processes.environment(load_settings()), "PREFECT_UI_ENABLED": "0"}
            started.append(subprocess.Popen(prefect_command(port), stdout=out, stderr=out, env=environment))
        children.wait_for("Prefect's server", f"http://127.0.0.1:{port}/api/health", started[-1], log)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(30)


def begin(home: Path, url: str) -> subprocess.Popen[str]:
    """Start a run, and return it when its first shards are there."""
    sets = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    command = [str(services.BIN / "clep-dg"), "run", "--preset", "demo", "--corpora", "synthetic-1,synthetic-3", *sets]
    environment = {**os.environ, "PREFECT_API_URL": url}
    with (home / "run.log").open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    deadline = time.monotonic() + 240
    while not list((home / "store" / "shard").glob("*/stage.json")):
        assert process.poll() is None and time.monotonic() < deadline, (home / "run.log").read_text()
        time.sleep(0.05)
    return process  # type: ignore[return-value]


def test_a_server_that_is_gone_costs_no_result_and_is_named(home, serve):
    port = children.free_port()
    server = serve(port)
    run = begin(home, f"http://127.0.0.1:{port}/api")
    server.kill()
    try:
        deadline = time.monotonic() + 240
        while not (reports := list((home / "store" / "report").glob("*/stage.json"))):
            assert run.poll() is None and time.monotonic() < deadline, (home / "run.log").read_text()
            time.sleep(0.05)
        assert run.wait(60) == 2  # Prefect's own retries take minutes
    finally:
        run.kill()
    said = (home / "run.log").read_text()
    assert reports and max(len(line) for line in said.splitlines()) < 500
    assert f"Prefect's server (http://127.0.0.1:{port}/api) went away" in said.splitlines()[-1]
    assert "the same command continues" in said and "Traceback" not in said and "ERROR" not in said
    serve(port)
    again = begin(home, f"http://127.0.0.1:{port}/api")
    try:
        assert again.wait(300) == 0
    finally:
        again.kill()
    assert "stages up to date" in (home / "run.log").read_text()


def test_a_server_that_comes_back_has_the_whole_run(home, serve):
    port = children.free_port()
    server = serve(port)
    run = begin(home, f"http://127.0.0.1:{port}/api")
    server.kill()
    server.wait(30)
    time.sleep(3)
    serve(port)
    try:
        assert run.wait(300) == 0, (home / "run.log").read_text()
    finally:
        run.kill()
    runs = httpx.post(f"http://127.0.0.1:{port}/api/flow_runs/filter", json={}, timeout=30, trust_env=False).json()
    assert [flow_run["state_type"] for flow_run in runs] == ["COMPLETED"]
