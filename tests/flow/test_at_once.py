"""Protects runs at the same time on one store: each output is computed once, and one torch stage holds the device."""

import json
import os
import subprocess
import sys
from itertools import pairwise

import pytest

from clepdg_tasks.engine.node import DATA_STAGES
from clepdg_tasks.host.settings import load_settings
from clepdg_tasks.tracking.client import connect
from tests.flow.small import is_version

pytestmark = pytest.mark.usefixtures("prefect_server")

OVERRIDES = {
    "compute.threads": 1,  # with two, each waits for the other where the cores are shared
    "synthetic.utterances": 20,
    "clep.epochs": 1,
    "clep.steps_per_epoch": 2,
    "clep.batch_size": 4,
    "rows": "clep-zero-shot",
    "protocols": "supervised",
}
DRIVER = """
import json, os, sys, time
from dataclasses import replace
from pathlib import Path
from clepdg_flows import clep_dg as module

home, name, overrides = Path(os.environ["CLEPDG_HOME"]), sys.argv[1], json.loads(sys.argv[2])
make_plan = module.make_plan


def timed(node):
    def compute(work):
        started = time.monotonic()
        try:
            return node.compute(work)
        finally:
            facts = {"run": name, "node": node.id, "key": work.folder.stem, "span": [started, time.monotonic()]}
            with (home / "spans.jsonl").open("a") as log:
                log.write(json.dumps(facts) + "\\n")

    return replace(node, compute=compute)


def planned(*args):
    plan = make_plan(*args)
    vars(plan)["nodes"] = [timed(node) for node in plan.nodes]
    return plan


module.make_plan = planned
(home / f"{name}.ready").touch()
while len(list(home.glob("*.ready"))) < 3:
    time.sleep(0.05)
result = module.clep_dg(preset="demo", corpora=["synthetic-1", "synthetic-3"], overrides=overrides)
print(json.dumps(result))
"""


def test_two_equal_runs_and_another_one_at_once(tmp_path, monkeypatch):
    from prefect.settings import PREFECT_API_URL

    from clepdg_flows.clep_dg import clep_dg

    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path))
    other = {**OVERRIDES, "clep.steps_per_epoch": 3}
    asked = {"first": OVERRIDES, "second": OVERRIDES, "other": other}
    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value()}
    started = {
        name: subprocess.Popen(
            [sys.executable, "-c", DRIVER, name, json.dumps(overrides)],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for name, overrides in asked.items()
    }
    results = {}
    for name, process in started.items():
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        results[name] = json.loads(out.splitlines()[-1])
    spans = [json.loads(line) for line in (tmp_path / "spans.jsonl").read_text().splitlines()]

    computed = [(span["node"], span["key"]) for span in spans]
    wanted = {(node, key) for result in results.values() for node, key in result["stages"].items()}
    assert sorted(computed) == sorted(wanted), "an output was computed twice, or not at all"
    assert results["first"]["stages"] == results["second"]["stages"]
    assert results["first"]["computed"] + results["second"]["computed"] <= len(results["first"]["stages"])

    torch = sorted(span["span"] for span in spans if span["node"].partition("/")[0] not in DATA_STAGES)
    assert len({span["run"] for span in spans if span["node"].partition("/")[0] not in DATA_STAGES}) > 1
    assert all(before[1] <= after[0] for before, after in pairwise(torch)), "two torch stages held the device at once"

    for overrides in (OVERRIDES, other):  # whatever MLflow was too busy to take is made up
        again = clep_dg(preset="demo", corpora=["synthetic-1", "synthetic-3"], overrides=overrides)
        assert again["computed"] == 0
    client = connect(load_settings())
    keys: list[str] = []
    for model in client.search_registered_models():
        keys += [version.tags["stage_key"] for version in client.search_model_versions(f"name = '{model.name}'")]
    assert sorted(keys) == sorted(key for node, key in wanted if is_version(node))
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    assert not client.search_runs(experiments, "attributes.status = 'RUNNING'")
