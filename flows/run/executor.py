"""Execute the graph of a run: corpora in parallel, then what folds share, then the folds, each in order."""

from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import replace
from functools import cache
from itertools import groupby
from queue import LifoQueue
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed
from prefect.utilities.annotations import quote

from clepdg.errors import StoreAway
from clepdg.store.record import Record
from clepdg_flows.run.prefect_logging import log_computed, without_secrets
from clepdg_flows.run.run import Run
from clepdg_tasks.engine import run_history
from clepdg_tasks.engine.node import DATA_STAGES, Decision, Node, decide
from clepdg_tasks.engine.worker import WorkerProcess

Worker = tuple[str, WorkerProcess]  # a device, and the process that computes on it


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{title}")
def compute_stage(title: str, node: Any, decision: Any, run: Any) -> State[Any]:
    """Compute or reuse a stage; its state has the reason."""
    with without_secrets():
        outcome = run.compute(node, decision)
    if not outcome.reused:
        log_computed(node, outcome)
    name = "Reused" if outcome.reused else "Completed"
    return Completed(name=name, message=outcome.reason)


def execute(run: Run, nodes: list[Node], devices: Callable[[], list[str]]) -> None:
    """Execute nodes: corpora in parallel, then what folds share, then folds.

    Args:
        devices: returns a device setting for each training that may run at once; asked where something is computed.
    """
    find_reusable(run, nodes)
    with ExitStack() as ends:
        workers = cache(lambda: open_workers(devices(), ends))
        for stage, group in groupby(nodes, key=lambda node: "folds" if node.fold else node.stage):
            if stage in DATA_STAGES:
                execute_group(run, list(group), parallel=True)
            else:
                execute_lanes(run, list(group), workers)


def open_workers(devices: list[str], ends: ExitStack) -> list[Worker]:
    """Return devices with a worker process each, started by its first stage."""
    workers = [(device, WorkerProcess()) for device in devices]
    for _, worker in workers:
        ends.callback(worker.end)
    return workers


def find_reusable(run: Run, nodes: list[Node]) -> None:
    """Find and record stored outputs before the first task.

    What MLflow has of them is read too: later, Prefect's threads would slow the reading down.
    """
    records: dict[str, Record] = {}
    keys: dict[str, dict[str, Any]] = {}
    with run_history.deciding(run.store):
        for node in nodes:
            decision = decide(node, records, run.store, run.last, run.redo)
            if decision.record is not None:
                run.reusable[node.id], records[node.id] = decision, decision.record
            if decision.key is not None:
                keys[node.id] = {"key": decision.key, "outcome": "Reused" if decision.record else run_history.RUNNING}
        run.log.record(keys)
    for record in records.values():
        run.run_logger.is_registered(record)


def decide_and_record(run: Run, node: Node) -> Decision:
    """Decide about a node whose inputs are there, and record its key."""
    with run_history.deciding(run.store):
        decision = decide(node, run.records, run.store, run.last, run.redo)
        outcome = "Reused" if decision.record else run_history.RUNNING
        run.log.record_stage(node.id, decision.key or "", outcome)
    return decision


def execute_group(run: Run, nodes: list[Node], *, parallel: bool) -> None:
    """Execute nodes of one stage, and skip those whose inputs failed.

    Unless they run in parallel, a node may need another one of the group that comes before it.
    """
    ended: dict[str, State[Any]] = {}
    submitted: dict[str, PrefectFuture[Any]] = {}
    for node in nodes:
        if any(need not in run.records for need in node.needs):
            continue
        decision = run.reusable.get(node.id) or decide_and_record(run, node)
        if run.failed_parts and decision.record is None:  # the parts of this run elsewhere compute it
            continue
        call = (f"{node.stage} {node.name}", quote(node), quote(decision), quote(run))
        if decision.record is None:
            run.reusable.clear()  # computing takes time: other runs may add or remove outputs
        if parallel and decision.record is None:
            submitted[node.id] = compute_stage.submit(*call)
        else:
            ended[node.id] = compute_stage(*call, return_state=True)
    for node_id, future in submitted.items():
        future.wait()
        ended[node_id] = future.state
    with run.writing:
        for node in nodes:
            run.note(node, ended.get(node.id))
        run.show.done([(node, run.outcomes[node.id]) for node in nodes if node.id in run.outcomes])
        if not all(node.id in run.outcomes and run.outcomes[node.id].reused for node in nodes):
            run.log.write()  # reused outputs need no entry: the next run finds them again
    for state in ended.values():
        if not state.is_completed() and isinstance(away := state.result(raise_on_failure=False), StoreAway):
            raise away


def execute_lanes(run: Run, nodes: list[Node], workers: Callable[[], list[Worker]]) -> None:
    """Execute folds, or nodes that they share, in parallel on devices.

    With one device they run one after another in this process; otherwise each on a free device, in its worker process.
    """
    lanes = defaultdict(list)
    for node in nodes:
        lanes[node.fold or node.tags.get("corpus", node.id)].append(node)  # models share what a corpus sounds like
    some = workers() if len(lanes) > 1 and any(node.id not in run.reusable for node in nodes) else []
    if len(some) < 2:
        execute_in_order(run, nodes)
        return
    free = LifoQueue[Worker]()  # the one that was used last has started
    for worker in reversed(some):
        free.put(worker)

    def execute_lane(lane: list[Node]) -> None:
        device, process = free.get()
        try:
            execute_in_order(replace(run, settings=replace(run.settings, device=device), worker=process), lane)
        finally:
            free.put((device, process))

    with ThreadPoolExecutor(len(some)) as pool:
        try:
            for ended in [pool.submit(copy_context().run, execute_lane, lane) for lane in lanes.values()]:
                ended.result()
        except BaseException:  # the run is cancelled: its worker processes end within seconds
            run.stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for _, process in some:
                process.close()
            raise


def execute_in_order(run: Run, nodes: list[Node]) -> None:
    """Execute nodes one after another, until the run is stopped."""
    for _, group in groupby(nodes, key=lambda node: node.stage):
        if not run.stopping.is_set():
            execute_group(run, list(group), parallel=False)
