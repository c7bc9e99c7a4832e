"""How fast a run is that has nothing to do: against a flow of as many empty tasks, measured in the same run."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clepdg_tasks.admin.prefect_server import prefect_for_one_run
from clepdg_tasks.host.liveness import die_with_parent
from clepdg_tasks.host.settings import load_settings

OVERRIDES = {
    "synthetic.utterances": 32,
    "clep.epochs": 1,
    "clep.steps_per_epoch": 1,
    "clep.batch_size": 4,
    "acpt.contexts": 2,
    "acpt.epochs": 1,
    "classifier.steps": 2,
}

DRIVER = """
import contextlib, functools, json, sys, time
import prefect.flow_engine
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner
from clepdg_flows.clep_dg import clep_dg

overrides = json.loads(sys.argv[1])
# Prefect waits at a flow's end for its heartbeats' thread, which sleeps whole seconds: both would be rounded up to one
prefect.flow_engine._send_heartbeats = lambda *args, **options: contextlib.nullcontext()


def run():
    return clep_dg(preset="demo", overrides=overrides)


@task(cache_policy=NO_CACHE, persist_result=False)
def empty(name):
    return None


@flow(task_runner=ThreadPoolTaskRunner(max_workers=4))
def empty_tasks(count):
    for number in range(count):
        empty(str(number))


result = run()
if sys.argv[2] == "measure":
    count, ours, peer = len(result["stages"]), [], []
    for _ in range(4):  # the least of each: a neighbour only ever adds
        time.sleep(15)  # the server first writes down what the flow before has told it, and refuses others meanwhile
        start = time.perf_counter(); result = run(); ours.append(time.perf_counter() - start)
        assert result["computed"] == 0
        time.sleep(15)
        start = time.perf_counter(); empty_tasks(count); peer.append(time.perf_counter() - start)
    loaded = sorted({"torch", "mlflow", "transformers"} & set(sys.modules))
    from clepdg.hashing import plain
    from clepdg_flows.run.plan import make_plan
    from clepdg_tasks.engine import last_arguments, run_history
    from clepdg_tasks.engine.node import decide
    from clepdg_tasks.host.settings import load_settings
    store = load_settings().open_store()
    start = time.perf_counter()
    plan = make_plan(last_arguments.last(load_settings()))
    last, records = functools.cache(lambda: run_history.last_keys(store, plain(plan.config))), {}
    for node in plan.nodes:
        records[node.id] = decide(node, records, store, last).record
    keys = time.perf_counter() - start
    assert all(records.values())
    print(json.dumps({"stages": count, "ours": min(ours), "peer": min(peer), "keys": keys, "loaded": loaded}))
"""


def figures(home: Path) -> dict[str, Any]:
    """Run the demo, then again with nothing to do beside empty tasks, on the Prefect server that a run starts."""
    settings = replace(load_settings(), home=home, store=str(home / "store"))
    with prefect_for_one_run(settings):

        def driver(what: str) -> str:
            command = [sys.executable, "-c", DRIVER, json.dumps(OVERRIDES), what]
            environment = {**os.environ, "CLEPDG_HOME": str(home)}
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=900, env=environment, preexec_fn=die_with_parent
            )
            assert done.returncode == 0, done.stderr[-3000:]
            return done.stdout.splitlines()[-1] if what == "measure" else ""

        driver("fill")
        found: dict[str, Any] = json.loads(driver("measure"))
    return {**found, "status": [seconds_of(["status"], home) for _ in range(5)]}


def seconds_of(words: list[str], home: Path) -> float:
    """Return the wall time of a command."""
    command = [str(Path(sys.executable).with_name("clep-dg")), *words]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, timeout=60, env={**os.environ, "CLEPDG_HOME": str(home)})
    return time.perf_counter() - start


def test_an_up_to_date_run_costs_little_more_than_empty_tasks(tmp_path):
    found = figures(tmp_path)
    print(found)  # noqa: T201
    assert found["loaded"] == []
    assert found["keys"] <= 0.3
    assert found["ours"] <= 1.3 * found["peer"]


@pytest.mark.parametrize("words", [["--help"], ["status"]])
def test_the_command_line_answers_in_under_a_second(tmp_path, words):
    assert seconds_of(words, tmp_path) < 1.0
