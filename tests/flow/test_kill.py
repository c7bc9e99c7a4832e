"""Protects killed runs: kill -9 in every stage, then the same command; what comes out equals an uninterrupted run's.

The flow runs in a process of its own against the session's Prefect server. The process kills itself, so that the
moment is known: as a stage is about to commit, or in the middle of a training after its last checkpoint.
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("prefect_server")

OVERRIDES = {
    "synthetic.utterances": 32,
    "clep.epochs": 2,
    "clep.steps_per_epoch": 3,
    "clep.batch_size": 8,
    "acpt.contexts": 4,
    "acpt.epochs": 6,
    "acpt.tokens": 1,
    "classifier.steps": 25,
    "rows": "majority,clep-zero-shot,text-acpt",
    "protocols": "supervised",
}

DRIVER = """
import json, os, signal, sys
from clepdg.training import loop as training
from clepdg.store.store import Store
from clepdg_flows.clep_dg import clep_dg

where, stage = sys.argv[1].split(":")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


commit, save, resume = Store.commit, training.Training._save, training.Training._resume


def killed_commit(self, record):
    if where == "commit" and record.stage == stage:
        die()
    return commit(self, record)


def killed_save(self, done):
    save(self, done)
    if where == "train" and self.folder.parent.name == stage:
        self.after_step = die  # in the next step, past the checkpoint


def logged_resume(self):
    step = resume(self)
    with open(os.environ["CLEPDG_HOME"] + "/resumed.txt", "a") as log:
        log.write(f"{self.folder.parent.name} {step}\\n")
    return step


Store.commit, training.Training._save, training.Training._resume = killed_commit, killed_save, logged_resume
overrides = json.loads(sys.argv[2])
result = clep_dg(preset="demo", corpora=["synthetic-1", "synthetic-3"], overrides=overrides)
print(json.dumps({"computed": result["computed"], "stages": result["stages"]}))
"""


def run(home: Path, where: str) -> subprocess.CompletedProcess[str]:
    from prefect.settings import PREFECT_API_URL

    environment = {
        **os.environ,
        "CLEPDG_HOME": str(home),
        "CLEPDG_DEVICE": "cpu",
        "CLEPDG_CHECKPOINT_SECONDS": "0",
        "PREFECT_API_URL": PREFECT_API_URL.value(),
    }
    command = [sys.executable, "-c", DRIVER, where, json.dumps(OVERRIDES)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)


def outputs(home: Path, stages: dict[str, str]) -> dict[str, object]:
    """Return node id -> (content digests, {file: sha256}) of a run's stages."""
    found = {}
    for node_id, key in stages.items():
        record = json.loads((home / "store" / node_id.partition("/")[0] / key / "stage.json").read_text())
        found[node_id] = (record["digests"], record["files"])
    return found


def mlflow_statuses(home: Path) -> Counter[str]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return Counter(run.info.status for run in client.search_runs(experiments, max_results=1000))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, prefect_server):
    home = tmp_path_factory.mktemp("whole")
    result = run(home, "none:none")
    assert result.returncode == 0, result.stderr
    return home, json.loads(result.stdout.splitlines()[-1])


def test_kill_in_every_stage_then_the_same_command(tmp_path, whole):
    home, expected = whole
    moments = [  # in the order of the graph: what folds share, then a fold's stages one after another
        *("commit:source", "commit:index", "commit:shard", "commit:backbone", "commit:audio_embeddings"),
        *("train:clep", "commit:clep", "train:acpt", "commit:acpt", "commit:text_embeddings"),
        *("train:classifier", "commit:classifier", "commit:evaluate", "commit:report"),
    ]
    for moment in moments:
        killed = run(tmp_path, moment)
        assert killed.returncode == -signal.SIGKILL, (moment, killed.stderr[-2000:])
    final = run(tmp_path, "none:none")
    assert final.returncode == 0, final.stderr
    result = json.loads(final.stdout.splitlines()[-1])
    assert result["stages"] == expected["stages"]
    assert outputs(tmp_path, result["stages"]) == outputs(home, expected["stages"])
    assert not list((tmp_path / "store").glob("*/*.partial"))
    resumed = (tmp_path / "resumed.txt").read_text().splitlines()
    for stage in ("clep", "acpt", "classifier"):  # saved after their first step, killed in the second
        assert f"{stage} 1" in resumed, f"{stage} began anew: {resumed}"
    again = run(tmp_path, "none:none")
    assert json.loads(again.stdout.splitlines()[-1])["computed"] == 0
    statuses = mlflow_statuses(tmp_path)
    assert statuses.keys() == {"FINISHED", "KILLED"}, "MLflow takes runs that were killed for living ones"
    assert statuses["KILLED"] >= 2 * len([m for m in moments if m.startswith("commit")])  # the run's and the stage's


def test_no_process_outlives_a_killed_run(tmp_path):
    """The command line's own Prefect server ends with it, kill -9 included."""
    import time

    import psutil

    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_API")}
    environment |= {"CLEPDG_HOME": str(tmp_path), "CLEPDG_DEVICE": "cpu"}
    command = [str(Path(sys.executable).with_name("clep-dg")), "run", "--preset", "demo"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        children: list[psutil.Process] = []
        while not ((tmp_path / "store" / "source").exists() and children) and time.monotonic() < deadline:
            children = psutil.Process(process.pid).children(recursive=True)
            time.sleep(0.1)
        assert children
    finally:
        process.kill()
        process.wait(30)
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
