"""The way through a run's graph: corpora side by side, then what folds share, then the folds, each in order."""

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import replace
from itertools import groupby
from queue import SimpleQueue
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed
from prefect.utilities.annotations import quote

from clepdg.errors import StoreAway
from clepdg.store.record import Record
from flows.run.run import Run
from tasks.engine.node import DATA_STAGES, Node, decide
from tasks.engine.worker import WorkerProcess


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{title}")
def bring_up_to_date(title: str, node: Any, decision: Any, run: Any) -> State[Any]:
    """Compute or reuse one stage; Prefect logs the state, and with it the reason."""
    outcome = run.bring_up_to_date(node, decision)
    name = "Reused" if outcome.reused else "Completed"
    return Completed(name=name, message=outcome.reason)


def finish(run: Run, nodes: list[Node], devices: list[str]) -> None:
    """Bring the nodes up to date: data stages corpus by corpus side by side, then what folds share, then the folds."""
    look(run, nodes)
    for stage, group in groupby(nodes, key=lambda node: "folds" if node.fold else node.stage):
        if stage in DATA_STAGES:
            finish_group(run, list(group), parallel=True)
        else:
            finish_lanes(run, list(group), devices)


def look(run: Run, nodes: list[Node]) -> None:
    """Find what stands and what MLflow has of it before the first task: then Prefect's threads hold no file up."""
    records: dict[str, Record] = {}
    for node in nodes:
        decision = decide(node, records, run.store, run.last, run.redo)
        if decision.record is not None:
            run.standing[node.id], records[node.id] = decision, decision.record
            run.registry.is_registered(decision.record)
            run.log.record_stage(node.id, decision.record.key, "Reused")


def finish_group(run: Run, nodes: list[Node], *, parallel: bool) -> None:
    """Run consecutive nodes of one stage; what needs something that failed is skipped, and the rest goes on.

    One may need another that comes before it, unless they run side by side.
    """
    ended: dict[str, State[Any]] = {}
    begun: dict[str, PrefectFuture[Any]] = {}
    for node in nodes:
        if any(need not in run.records for need in node.needs):
            continue
        decision = run.standing.get(node.id) or decide(node, run.records, run.store, run.last, run.redo)
        if run.missed and decision.record is None:  # what they left undone is not done here
            continue
        call = (f"{node.stage} {node.name}", quote(node), quote(decision), quote(run))
        if decision.record is None:
            run.standing.clear()  # computing takes time: what stands is looked at again
        if parallel and decision.record is None:
            begun[node.id] = bring_up_to_date.submit(*call)
        else:
            ended[node.id] = bring_up_to_date(*call, return_state=True)
    for node_id, future in begun.items():
        future.wait()
        ended[node_id] = future.state
    with run.writing:
        for node in nodes:
            run.note(node, ended.get(node.id))
        run.show.done([(node, run.outcomes[node.id]) for node in nodes if node.id in run.outcomes])
        if not all(node.id in run.outcomes and run.outcomes[node.id].reused for node in nodes):
            run.log.write()  # what is reused is found again
    for state in ended.values():
        if not state.is_completed() and isinstance(away := state.result(raise_on_failure=False), StoreAway):
            raise away


def finish_lanes(run: Run, nodes: list[Node], devices: list[str]) -> None:
    """Run folds, or the nodes of a stage that folds share: one after another here, or side by side on several devices.

    Side by side, each is computed on a device that is free, in the device's child process.
    """
    lanes = defaultdict(list)
    for node in nodes:
        lanes[node.fold or node.id].append(node)
    if len(devices) == 1 or len(lanes) == 1:
        finish_in_order(run, nodes)
        return
    free = SimpleQueue[tuple[str, WorkerProcess]]()

    def finish(lane: list[Node]) -> None:
        device, child = free.get()
        try:
            finish_in_order(replace(run, settings=replace(run.settings, device=device), worker=child), lane)
        finally:
            free.put((device, child))

    with ExitStack() as ends:
        children = [WorkerProcess() for _ in devices]
        for device, child in zip(devices, children, strict=True):
            free.put((device, child))
            ends.callback(child.end)
        pool = ends.enter_context(ThreadPoolExecutor(len(devices)))
        try:
            for ended in [pool.submit(copy_context().run, finish, lane) for lane in lanes.values()]:
                ended.result()
        except BaseException:  # the run is cancelled: its children end within seconds
            run.stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for child in children:
                child.close()
            raise


def finish_in_order(run: Run, nodes: list[Node]) -> None:
    """Run nodes one after another, until the run is stopped."""
    for _, group in groupby(nodes, key=lambda node: node.stage):
        if not run.stopping.is_set():
            finish_group(run, list(group), parallel=False)
