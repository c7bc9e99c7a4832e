"""A small run of the real graph without Prefect and MLflow, each in a process of its own that is quick to start."""

import json
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import groupby
from multiprocessing.process import BaseProcess
from pathlib import Path

OVERRIDES = {
    "compute.threads": 1,  # with two, each waits for the other where the cores are shared
    "synthetic.utterances": 20,
    "clep.epochs": 2,
    "clep.steps_per_epoch": 3,
    "clep.batch_size": 4,
    "acpt.contexts": 4,
    "acpt.epochs": 6,
    "acpt.tokens": 1,
    "classifier.steps": 25,
    "rows": "majority,log-mel,clep-zero-shot,text-acpt",
    "protocols": "supervised",
}
PRELOADED = [
    *("torch", "transformers.models.clap.modeling_clap", "pandas", "pyarrow.parquet", "matplotlib.figure", "sklearn"),
    *(
        "scipy.stats",
        "soundfile",
        "soxr",
        "clepdg.method.clep",
        "clepdg.method.acpt",
        "clepdg.method.classifier",
        "clepdg.dataset.index",
    ),
    *("clepdg.dataset.quality", "clepdg.dataset.shard_writer", "clepdg.evaluation.cells", "clepdg.report.html"),
    *(
        "clepdg.evaluation.intervals",
        "clepdg.corpora.synthetic",
        "clepdg_flows.run.plan",
        "clepdg_tasks.stages.evaluate",
    ),
    "tests.soak.pipeline",
]
TOKEN = "SOAK_OF_CLEPDG"  # in the environment of every process that a run starts


class Stopped(BaseException):
    """Raised in parallel stages to stop a run, as the flow's own."""


def start(home: Path, *, token: str = "", processes: bool = False) -> BaseProcess:
    """Start a run in a process forked from one that has torch already: tenths of a second instead of many."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=bring_up_to_date, args=(home, token, processes))
    process.start()
    return process


def bring_up_to_date(home: Path, token: str, processes: bool) -> None:
    """Run all stages as the flow does: data stages side by side, the others one by one.

    Args:
        processes: let shards be encoded by processes, however few the utterances are.
    """
    reset_signals()
    os.environ |= {"CLEPDG_HOME": str(home), "CLEPDG_DEVICE": "cpu", "CLEPDG_WORKERS": "2", TOKEN: token}
    os.environ["CLEPDG_CHECKPOINT_SECONDS"] = "0"
    from clepdg.callbacks import Reporting
    from clepdg.dataset import shard_writer
    from clepdg.hashing import plain, write_json
    from clepdg.store.record import Record
    from clepdg_flows.run.plan import make_plan
    from clepdg_tasks.engine import execute, run_history
    from clepdg_tasks.engine import node as stages
    from clepdg_tasks.host import liveness
    from clepdg_tasks.host.settings import load_settings

    if processes:
        shard_writer.FEW = 0
    arguments = run_history.Arguments(preset="demo", corpora=("synthetic-1", "synthetic-3"), overrides=OVERRIDES)
    plan = make_plan(arguments)
    config, nodes = plan.config, plan.nodes
    settings = load_settings()
    store = settings.open_store()
    log, last = run_history.start(store, arguments, plain(config)), run_history.last_keys(store, plain(config))
    log.write()
    records: dict[str, Record] = {}
    stopping = threading.Event()

    def progress(done: int, total: int) -> None:
        if stopping.is_set():
            raise Stopped

    def run(node: stages.Node) -> None:
        reporting = lambda node, decision: nullcontext(Reporting(progress=progress))  # noqa: E731
        decision = stages.decide(node, records, store, lambda: last)
        outcome = execute.run(node, decision, records, store, settings, reporting=reporting, stopping=stopping)
        records[node.id] = outcome.record
        log.stages[node.id] = {"key": outcome.record.key, "reused": outcome.reused}

    with liveness.hold(store.root / "runs", log.path.stem):
        for stage, group in groupby(nodes, key=lambda node: node.stage):
            if stage in stages.DATA_STAGES:
                with ThreadPoolExecutor(4) as pool:
                    try:
                        for future in [pool.submit(run, node) for node in group]:
                            future.result()
                    except BaseException:
                        stopping.set()
                        raise
            else:
                for node in group:
                    run(node)
            log.write()
    write_json(home / "done.json", log.stages)


def reset_signals() -> None:
    """Let SIGINT and SIGTERM end this process, also where the soak test was started in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def outputs(home: Path) -> dict[str, object]:
    """Return node id -> (content digests, {file: (bytes, sha256)}) of a run that ended."""
    found = {}
    for node_id, facts in json.loads((home / "done.json").read_text()).items():
        folder = home / "store" / node_id.partition("/")[0] / facts["key"]
        record = json.loads((folder / "stage.json").read_text())
        found[node_id] = (facts["key"], record["digests"], record["files"])
    return found
