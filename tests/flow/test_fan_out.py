"""Protects fan-out: two workers share a run on one store; what comes out is what one process makes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import psutil
import pytest

from clepdg.errors import ClepError, ConfigError
from clepdg_tasks.host.children import end
from clepdg_tasks.host.settings import PROJECT, load_settings
from tests.flow.small import SMALL, is_version

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

BIN = Path(sys.executable).parent
POOL = "clep-dg-folds"
TINY = {
    **SMALL,
    "synthetic.utterances": 20,
    "clep.batch_size": 4,
    "rows": "majority,clep-zero-shot,text-acpt",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "a home"


@pytest.fixture(scope="module")
def deployed(prefect_server) -> dict[str, str]:
    """Create the pools and deploy prefect.yaml; return the environment that reaches the server."""
    from prefect.settings import PREFECT_API_URL

    environment = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value()), "CLEPDG_DEVICE": "cpu"}
    for words in (
        *(("work-pool", "create", pool, "--type", "process", "--overwrite") for pool in ("clep-dg", POOL)),
        ("--no-prompt", "deploy", "--all"),
    ):
        done = subprocess.run([BIN / "prefect", *words], cwd=PROJECT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return environment


@pytest.fixture
def worker(deployed, home) -> Iterator[Callable[[str, str], None]]:
    """Return a function that starts a worker of a pool, one run at a time."""
    started: list[subprocess.Popen[bytes]] = []
    home.mkdir(parents=True, exist_ok=True)

    def start(name: str, pool: str = POOL) -> None:
        command = [str(BIN / "prefect"), "worker", "start", "--pool", pool, "--name", name, "--limit", "1"]
        environment = {**deployed, "CLEPDG_HOME": str(home), "PREFECT_WORKER_QUERY_SECONDS": "2"}
        with (home / f"{name}.log").open("wb") as log:
            started.append(subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=log, stderr=log))

    yield start
    for process in started:
        running = psutil.Process(process.pid)
        end([running, *running.children(recursive=True)])
        process.wait(30)


def online(count: int, pool: str = POOL) -> None:
    def workers() -> bool:
        found = api("POST", f"/work_pools/{pool}/workers/filter", {})
        return sum(worker["status"] == "ONLINE" for worker in found) >= count

    wait(workers, 120)


def api(method: str, path: str, json: dict[str, Any] | None = None) -> Any:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        answer = client.request(method, path, json=json)  # type: ignore[arg-type]
        answer.raise_for_status()
        return answer.json()


def wait(condition: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.5)
    return found


def flow_runs(part: str, preset: str = "demo") -> list[dict[str, Any]]:
    name = f"fold, {preset}: {part}"
    return list(api("POST", "/flow_runs/filter", {"flow_runs": {"name": {"any_": [name]}}, "sort": "START_TIME_DESC"}))


def run(**options: Any) -> dict[str, Any]:
    from clepdg_flows.clep_dg import clep_dg

    return clep_dg(**{"preset": "demo", "corpora": ["synthetic-1", "synthetic-3"], "overrides": TINY, **options})


def digests(home: Path, stages: dict[str, str]) -> dict[str, object]:
    folder = home / "store"
    return {
        node_id: json.loads((folder / node_id.partition("/")[0] / key / "stage.json").read_text())["digests"]
        for node_id, key in stages.items()
    }


def logs(home: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((home / "store" / "runs").glob("*.json"))]


def test_without_a_worker_it_is_refused_at_the_start(deployed, home):
    with pytest.raises(
        ClepError, match=r"(?s)No worker of the work pool clep-dg-folds is online.*prefect worker start"
    ):
        run(fan_out=True)
    with pytest.raises(ConfigError, match="can't be computed again"):
        run(fan_out=True, redo=["clep"])
    assert not (home / "store" / "runs").exists()


def test_two_workers_share_a_run(worker, home, tmp_path, monkeypatch):
    worker("first")
    worker("second")
    online(2)
    result = run(fan_out=True)
    assert result["computed"] == 1  # the report alone is left for the run itself
    whole, *parts = sorted(logs(home), key=lambda log: log["part"])
    assert not whole["part"] and len(parts) == 5  # two corpora, three folds
    assert {log["outcome"] for log in (whole, *parts)} == {"completed"}
    made = [n for log in (whole, *parts) for n, facts in log["stages"].items() if facts["outcome"] == "Completed"]
    assert Counter(made) == Counter(list(whole["stages"]))  # each once, whoever did it
    ends = [run for name in ("supervised", "leave-out-synthetic-1", "leave-out-synthetic-3") for run in flow_runs(name)]
    assert len(ends) == 3
    spans = [(one["start_time"], one["end_time"]) for one in ends]
    assert any(a[0] < b[1] and b[0] < a[1] for a, b in combinations(spans, 2)), "one worker did all of it"
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path / "alone"))
    alone = run()
    assert alone["stages"] == result["stages"]
    assert digests(tmp_path / "alone", alone["stages"]) == digests(home, result["stages"])
    monkeypatch.setenv("CLEPDG_HOME", str(home))
    before = len(logs(home))
    assert run(fan_out=True)["computed"] == 0
    assert len(logs(home)) == before + 1  # nothing was sent
    registered_once(result)


def registered_once(result: dict[str, Any]) -> None:
    """Check that MLflow has every model once, although several processes wrote into one SQLite file."""
    from clepdg_tasks.tracking import client as tracking
    from clepdg_tasks.tracking import model_registry

    client = tracking.connect(load_settings())
    for stage in ("clep", "acpt", "text_embeddings", "classifier"):
        versions = client.search_model_versions(f"name = '{model_registry.model_name(stage, 'demo')}'")
        keys = [version.tags["stage_key"] for version in versions]
        assert sorted(keys) == sorted(
            key for n, key in result["stages"].items() if n.startswith(f"{stage}/") and is_version(n)
        )


def test_a_part_that_fails_is_named_and_the_others_are_finished(worker, home, tmp_path):
    from clepdg.config.schema import SyntheticConfig
    from clepdg.corpora import synthetic
    from clepdg.corpora.cards import load_card
    from clepdg_flows.run.run import StagesFailed

    worker("only")
    online(1)
    synthetic.write(load_card("synthetic-1"), SyntheticConfig(utterances=20), tmp_path / "ravdess")
    (tmp_path / "emodb").mkdir()
    (tmp_path / "emodb" / "readme.txt").write_text("no audio here")
    given = {corpus: str(tmp_path / corpus) for corpus in ("ravdess", "emodb")}
    before = len(flow_runs("supervised", "open"))
    with pytest.raises(StagesFailed) as caught:
        run(preset="open", backbone="micro", corpora=list(given), sources=given, allow_partial=True, fan_out=True)
    (failed,) = flow_runs("emodb", "open")
    message = str(caught.value)
    assert failed["id"] in message and "index/emodb" in message
    whole = next(log for log in logs(home) if not log["part"])
    assert whole["stages"]["shard/ravdess"]["outcome"] == "Reused"
    assert whole["stages"]["index/emodb"]["outcome"] == "Failed"  # it stands and is refused, here as there
    assert {whole["stages"][n]["outcome"] for n in ("shard/emodb", "evaluate/supervised")} == {"Skipped"}
    assert whole["outcome"] == "failed" and len(flow_runs("supervised", "open")) == before


def test_a_cancelled_run_cancels_its_parts_and_does_not_wait_for_itself(worker, home, deployed):
    """The run itself is pulled by a worker of its own pool, so that it does not hold the place of its parts."""
    worker("parent", "clep-dg")
    worker("child")
    online(1, "clep-dg")
    online(1)
    parameters = {
        "corpora": ["synthetic-1", "synthetic-3"],
        "overrides": {**TINY, "clep.epochs": 50, "clep.steps_per_epoch": 500},
        "folds": ["supervised"],
        "fan_out": True,
    }
    found = api("GET", "/deployments/name/clep-dg/demo")
    parent = api("POST", f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})
    wait(lambda: flow_runs("supervised")[:1] and flow_runs("supervised")[0]["state_type"] == "RUNNING", 240)
    wait(lambda: list((home / "store" / "clep").glob("*.partial/*")), 240)
    api("POST", f"/flow_runs/{parent['id']}/set_state", {"state": {"type": "CANCELLING"}, "force": True})
    wait(lambda: api("GET", f"/flow_runs/{parent['id']}")["state_type"] == "CANCELLED", 120)
    wait(lambda: flow_runs("supervised")[0]["state_type"] == "CANCELLED", 120)


def test_ctrl_c_cancels_the_parts(worker, home, deployed):
    worker("child")
    online(1)
    overrides = [f"--set={name}={value}" for name, value in {**TINY, "synthetic.utterances": 4000}.items()]
    command = [str(BIN / "clep-dg"), "run", "--preset", "demo", "--corpora", "synthetic-1,synthetic-4", "--fan-out"]
    parent = subprocess.Popen([*command, *overrides], env={**deployed, "CLEPDG_HOME": str(home)})
    try:
        wait(lambda: {run["state_type"] for run in flow_runs("synthetic-1")[:1]} == {"RUNNING"}, 240)
        parent.send_signal(signal.SIGINT)
        assert parent.wait(120) == 130
    finally:
        parent.kill()
    for corpus in ("synthetic-1", "synthetic-4"):
        wait(lambda corpus=corpus: flow_runs(corpus)[0]["state_type"] == "CANCELLED", 120)
