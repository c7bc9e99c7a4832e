"""Protects runs on several devices: folds side by side give the bytes of one device, and no child stays."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from clepdg_tasks.engine.worker import WorkerProcess
from clepdg_tasks.host.settings import load_settings
from clepdg_tasks.tracking import client as tracking
from tests.flow.small import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

OVERRIDES = {
    **SMALL,
    "synthetic.utterances": 32,
    "rows": "clep-zero-shot,text-acpt",
}


def run(overrides=None):
    from clepdg_flows.clep_dg import clep_dg

    return clep_dg(preset="demo", corpora=["synthetic-1", "synthetic-3"], overrides={**OVERRIDES, **(overrides or {})})


def outputs(stages: dict[str, str]) -> dict[str, object]:
    """Return node id -> (content digests, {file: sha256}) of a run's stages in the present store."""
    found = {}
    for node_id, key in stages.items():
        folder = load_settings().open_store().local(node_id.partition("/")[0], key)
        record = json.loads((folder / "stage.json").read_text())
        found[node_id] = (record["digests"], record["files"])
    return found


@pytest.fixture(scope="module")
def one_device(tmp_path_factory, prefect_server):
    """Run once on one device, in a home of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLEPDG_HOME", str(tmp_path_factory.mktemp("one")))
        patch.setenv("CLEPDG_DEVICE", "cpu")
        stages = run()["stages"]
        return stages, outputs(stages)


@pytest.fixture
def two_devices(monkeypatch, tmp_path):
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path / "two devices"))
    monkeypatch.setenv("CLEPDG_DEVICE", "cpu:0,cpu:1")


def children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "multiprocessing.spawn" in " ".join(p.cmdline())]


@pytest.fixture
def kill_one(monkeypatch):
    """Kill the child of the first CLEP that comes past a step, once."""
    killed: list[str] = []
    compute = WorkerProcess.compute

    def watched(self, function, work, **options):
        def progress(done, total):
            if not killed:
                killed.append(work.folder.name)
                self._process.kill()

        if work.folder.parent.name == "clep":
            work = replace(work, reporting=replace(work.reporting, progress=progress))
        return compute(self, function, work, **options)

    monkeypatch.setattr(WorkerProcess, "compute", watched)
    monkeypatch.setenv("CLEPDG_CHECKPOINT_SECONDS", "0")
    return killed


def test_folds_side_by_side_give_the_bytes_of_one_device_though_a_child_was_killed(one_device, two_devices, kill_one):
    from clepdg_flows.run.run import StagesFailed

    with pytest.raises(StagesFailed, match=r"killed \(signal 9\)") as failed:
        run()
    assert str(failed.value).startswith("1 of ")
    assert not children()
    partial = load_settings().open_store().root / "clep" / kill_one[0]
    assert (partial / "training.resume").exists()
    log = json.loads(max((load_settings().open_store().root / "runs").glob("*.json")).read_text())["stages"]
    done = {node_id for node_id, facts in log.items() if facts["outcome"] == "Completed"}
    assert len([node_id for node_id in done if node_id.startswith("evaluate/")]) == 2  # of three folds
    result = run()
    stages, expected = one_device
    assert result["stages"] == stages
    assert outputs(stages) == expected
    locks = {path.name for path in (load_settings().open_store().root / "locks").glob("device-*")}
    assert {"device-cpu-0", "device-cpu-1"} <= locks
    assert not children()
    client = tracking.connect(load_settings())
    experiment = client.get_experiment_by_name("demo-clep-dg") or client.search_experiments()[0]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    trained = [r for r in runs if r.info.run_name.startswith("clep ") and r.info.status == "FINISHED"]
    assert len(trained) == 3
    assert all("loss" in r.data.metrics and "validation_uar" in r.data.metrics for r in trained)


def test_a_training_that_runs_out_of_time_is_gone_on_with(one_device, two_devices, monkeypatch):
    """Here with a limit of no time at all: every run gets each training of a fold one step further."""
    from clepdg_flows.run.run import StagesFailed

    monkeypatch.setenv("CLEPDG_DEVICE", "cpu")
    monkeypatch.setenv("CLEPDG_TRAINING_SECONDS", "0")
    with pytest.raises(StagesFailed, match="training's time limit is reached") as failed:
        run()
    assert str(failed.value).startswith("3 of ")  # each fold's CLEP; all that does not need one is done
    assert "run the same command again" in str(failed.value)
    monkeypatch.delenv("CLEPDG_TRAINING_SECONDS")
    result = run()
    assert result["stages"] == one_device[0]
    assert outputs(result["stages"]) == one_device[1]


def test_ranks_are_in_the_key_of_clep_alone(one_device, two_devices, monkeypatch):
    """Two ranks on one CPU, in a run that goes no further than CLEP."""
    from clepdg_flows.clep_dg import clep_dg

    monkeypatch.setenv("CLEPDG_DEVICE", "cpu")
    chosen = {"corpora": ["synthetic-1", "synthetic-3"], "folds": ["supervised"], "until": "clep", "preset": "demo"}
    result = clep_dg(**chosen, overrides={**OVERRIDES, "clep.ranks": 2})
    changed = {node_id for node_id, key in result["stages"].items() if one_device[0][node_id] != key}
    assert changed == {"clep/supervised.c0"}
    record = load_settings().open_store().lookup("clep", result["stages"]["clep/supervised.c0"])
    assert record.config["clep"]["ranks"] == 2
    assert len(record.figures["validation_uar"]) == 1
    assert not [name for name in record.files if "ranks" in name or "resume" in name]
    assert not children()


DRIVER = """
import json, sys
from clepdg_flows.clep_dg import clep_dg

clep_dg(preset="demo", corpora=["synthetic-1", "synthetic-3"], overrides=json.loads(sys.argv[1]))
"""


def test_a_stopped_run_takes_its_children_with_it(two_devices):
    from prefect.settings import PREFECT_API_URL

    environment = {**os.environ, "CLEPDG_CHECKPOINT_SECONDS": "0", "PREFECT_API_URL": PREFECT_API_URL.value()}
    endless = json.dumps({**OVERRIDES, "clep.epochs": 100_000, "rows": "clep-zero-shot"})
    process = subprocess.Popen([sys.executable, "-c", DRIVER, endless], env=environment, stderr=subprocess.PIPE)
    store = load_settings().open_store().root
    try:
        deadline = time.monotonic() + 300
        while len(list(store.glob("clep/*/training.resume"))) < 2 and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr.read().decode()[-2000:]
            time.sleep(0.1)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(list(store.glob("clep/*/training.resume"))) == 2  # two folds at once
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0
    assert not psutil.wait_procs(family, timeout=10)[1]
