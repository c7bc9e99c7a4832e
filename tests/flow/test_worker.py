"""Protects a deployed run that is disturbed: cancelled, its worker and MLflow's server killed; then the same command.

One `make up` for all of it, and one command, which goes on each time from where it was stopped.
"""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from filelock import FileLock

from clepdg.hashing import digest_file
from clepdg.store.opening import open_store
from clepdg.store.record import Record
from clepdg_tasks.admin import services
from clepdg_tasks.admin.prefect_access import api_client, read_secret
from clepdg_tasks.host.settings import load_settings
from clepdg_tasks.tracking.client import connect
from tests.flow.small import SMALL, is_version

pytestmark = pytest.mark.slow

PARAMETERS = {
    "preset": "demo",
    "corpora": ["synthetic-1", "synthetic-3"],
    "overrides": {
        **SMALL,
        "compute.threads": 1,  # with two, each waits for the other where the cores are shared
        "synthetic.utterances": 220,  # enough for processes to encode them
        "clep.epochs": 2,
        "clep.steps_per_epoch": 12,
        "clep.batch_size": 4,
        "acpt.epochs": 3,
        "rows": "clep-zero-shot,text-acpt",
        "protocols": "supervised",
    },
}
ITSELF = 25.0  # seconds: Prefect kills what does not end by itself in 30


class Deployed:
    """The servers of `make up`, and the runs of clep-dg/full there."""

    def __init__(self) -> None:
        self.settings = load_settings()
        self.store = open_store(self.settings.store)
        self.running = services.up()

    def ask(self, method: str, path: str, json: dict[str, Any] | None = None) -> Any:
        """Return the answer of Prefect's server."""
        with api_client(self.running["prefect"].url, read_secret(self.settings)) as client:
            return client.request(method, path, json=json).raise_for_status().json()

    def start(self) -> str:
        deployment = self.ask("GET", "/deployments/name/clep-dg/full")["id"]
        run = self.ask("POST", f"/deployments/{deployment}/create_flow_run", {"parameters": PARAMETERS})
        return str(run["id"])

    def state(self, run: str) -> str:
        return str(self.ask("GET", f"/flow_runs/{run}")["state"]["type"])

    def cancel(self, run: str) -> None:
        self.ask("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})

    def family(self) -> list[psutil.Process]:
        """Return the run's processes, and theirs."""
        return psutil.Process(self.running["worker"].pid).children(recursive=True)

    def end(self, run: str) -> str:
        wait(lambda: self.state(run) in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"), 300)
        return self.state(run)

    def said(self, run: str) -> str:
        """Return what a run's states say."""
        states = self.ask("GET", f"/flow_run_states/?flow_run_id={run}")
        return "\n".join(f"{state['name']}: {state['message']}" for state in states)

    def checkpoint(self, since: float) -> bool:
        """Tell whether CLEP's training wrote a checkpoint since a time."""
        return any(path.stat().st_mtime > since for path in self.store.root.glob("clep/*.partial/training.resume"))

    def check_intact(self) -> None:
        """Raise where a lock is held or an output that counts as done is not whole."""
        for path in [*self.store.root.glob("locks/*"), *self.store.root.glob("runs/*.lock")]:
            with FileLock(path, timeout=0):
                pass
        for marker in self.store.root.glob("*/*/stage.json"):
            if not marker.parent.suffix:
                record = self.store.lookup(marker.parent.parent.name, marker.parent.name)
                assert isinstance(record, Record), record
                assert all(digest_file(marker.parent / n) == sha for n, (_, sha) in record.files.items())

    def statuses(self) -> set[str]:
        client = connect(load_settings())
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return {run.info.status for run in client.search_runs(experiments, max_results=1000)}


def wait(until: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.1)


@pytest.fixture
def deployed(tmp_path, project, monkeypatch) -> Iterator[Deployed]:
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path / "a home"))
    monkeypatch.setenv("CLEPDG_DEVICE", "cpu")
    monkeypatch.setenv("CLEPDG_WORKERS", "2")
    monkeypatch.setenv("CLEPDG_CHECKPOINT_SECONDS", "0")
    try:
        yield Deployed()
    finally:
        services.down()


def test_one_command_cancelled_twice_and_left_without_worker_and_mlflow(deployed):
    run = deployed.start()
    wait(lambda: sum("spawn_main" in " ".join(p.cmdline()) for p in living(deployed.family())) >= 2, 120)  # sharding
    cancelled(deployed, run)

    since = time.time()
    run = deployed.start()
    wait(lambda: deployed.checkpoint(since), 120)
    cancelled(deployed, run)

    since = time.time()
    run = deployed.start()
    wait(lambda: deployed.checkpoint(since), 120)
    orphans = deployed.family()
    servers = [psutil.Process(deployed.running[name].pid) for name in ("worker", "mlflow")]
    left = servers[1].children(recursive=True)
    for process in servers:
        process.kill()
    assert deployed.end(run) == "COMPLETED", deployed.said(run)  # the run goes on without both
    assert not psutil.wait_procs(orphans, timeout=60)[1]
    deployed.check_intact()

    before, deployed.running = deployed.running, services.up()
    assert not psutil.wait_procs(left, timeout=30)[1]  # what MLflow's server started
    assert deployed.running["prefect"] == before["prefect"]
    assert deployed.running["worker"].pid != before["worker"].pid
    run = deployed.start()
    assert deployed.end(run) == "COMPLETED"
    assert deployed.statuses() - {"FAILED"} == {"FINISHED", "KILLED"}  # failed: encoders that the cancel reached first
    client, names = connect(load_settings()), ("clep", "acpt", "text-embeddings", "classifier")
    versions = [v for n in names for v in client.search_model_versions(f"name = 'demo-clep-dg-{n}'")]
    stages = [n.replace("-", "_") for n in names]
    found = [file for stage in stages for file in deployed.store.root.glob(f"{stage}/*/stage.json")]
    outputs = [
        file.parent.name for file in found if is_version(f"{file.parts[-3]}/{json.loads(file.read_text())['name']}")
    ]
    assert sorted(v.tags["stage_key"] for v in versions) == sorted(outputs)


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def cancelled(deployed: Deployed, run: str) -> None:
    """Cancel a run, and see that it ends by itself with all its processes and leaves the store in order."""
    family = deployed.family()
    assert family
    deployed.cancel(run)
    alive = psutil.wait_procs(family, timeout=ITSELF)[1]
    assert not alive, [p.cmdline() for p in alive]
    assert deployed.end(run) == "CANCELLED"
    deployed.check_intact()
    assert "RUNNING" not in deployed.statuses()
