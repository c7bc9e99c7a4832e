"""Fan-out: run corpora and folds as runs of their own, on the workers of a work pool.

The run waits for them, then finds their outputs in the shared store. Parts that are up to date are not sent. A stage
that several folds share is computed by the first of them, under the store's lock.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from clepdg.config.folds import folds
from clepdg.errors import ClepError, ConfigError
from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg_flows.run.plan import Plan
from clepdg_tasks.engine.node import DATA_STAGES, STAGES, Node, decide
from clepdg_tasks.engine.run_history import Arguments, parameters, run_name
from clepdg_tasks.host.settings import UP

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

DEPLOYMENT: Final = "clep-dg/fold"
POLL_SECONDS: Final = 2.0


def check_workers(arguments: Arguments) -> None:
    """Raise where no worker can run the parts of a run.

    Raises:
        ConfigError: `redo` is given: each part would compute the stage again.
        ClepError: the deployment is not there, or no worker of its pool is online.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    if arguments.redo:
        do = "compute them again without fan-out first"
        raise ConfigError("Stages can't be computed again by a run that fans out.", got=arguments.redo, do=do)
    with get_client(sync_client=True) as client:
        try:
            pool = client.read_deployment_by_name(DEPLOYMENT).work_pool_name or "-"
            found = client.read_work_pool(pool)
        except ObjectNotFound as error:
            do = f"start the servers with {UP}, or deploy to yours: clep-dg deploy"
            raise ClepError(f"Prefect's server has no deployment {DEPLOYMENT}.", got=error, do=do) from error
        if found.is_push_pool or found.is_managed_pool:
            return  # it needs no workers
        workers = client.read_workers_for_work_pool(pool)
    if not any(worker.status == "ONLINE" for worker in workers):
        raise ClepError(
            f"No worker of the work pool {pool} is online: none would run the parts of this run.",
            got=[f"{worker.name} (last seen {worker.last_heartbeat_time})" for worker in workers] or "none",
            do=f"start one or more: prefect worker start --pool {pool} --limit 1",
        )


def send_parts(plan: Plan, store: Store, say: Callable[[str], None]) -> dict[str, str]:
    """Run stale corpora elsewhere, then stale folds; return why parts failed.

    Folds need all corpora: if one failed, none is sent.
    """
    data = [node for node in plan.nodes if node.stage in DATA_STAGES]
    failed = send(parts(plan, stale(data, store)), say)
    return failed or send(parts(plan, stale(plan.nodes, store)), say)


def stale(nodes: Iterable[Node], store: Store) -> list[Node]:
    """Return the nodes that are not up to date."""
    known, found = dict[str, Record](), list[Node]()
    for node in nodes:
        record = decide(node, known, store, dict).record
        if record is None:
            found.append(node)
        else:
            known[node.id] = record
    return found


def parts(plan: Plan, nodes: Iterable[Node]) -> dict[str, dict[str, Any]]:
    """Return corpus or fold -> the parameters of its own run, for stale nodes.

    A corpus's run has that corpus alone: no data stage depends on the others.
    """
    nodes, config, arguments = list(nodes), plan.config, plan.arguments
    stale_corpora = {node.tags["corpus"] for node in nodes if node.stage in DATA_STAGES}
    found: dict[str, Arguments] = {}
    for corpus in (corpus for corpus in config.corpora if corpus in stale_corpora):
        found[corpus] = replace(
            arguments,
            corpora=(corpus,),
            sources={name: place for name, place in arguments.sources.items() if name == corpus},
            folds=None,
            until=_first(arguments.until, "shard"),
            overrides={**arguments.overrides, "protocols": "supervised"},
        )
    stale_folds = {node.fold for node in nodes}
    for fold in folds(config.corpora, config.protocols, arguments.folds):
        if fold.name in stale_folds:
            found[fold.name] = replace(arguments, folds=(fold.name,), until=_first(arguments.until, "evaluate"))
    return {name: parameters(part) for name, part in found.items()}


def _first(until: str | None, stage: str) -> str:
    return stage if until is None else min(until, stage, key=STAGES.index)


def send(wanted: Mapping[str, Mapping[str, Any]], say: Callable[[str], None]) -> dict[str, str]:
    """Run parts elsewhere and wait; return part -> why it failed.

    If this run ends first, they are cancelled.
    """
    from prefect import get_run_logger
    from prefect.client.orchestration import get_client
    from prefect.deployments import run_deployment

    started: dict[str, FlowRun] = {}
    with get_client(sync_client=True) as client:
        try:
            for name, given in wanted.items():
                named = run_name(given, DEPLOYMENT.partition("/")[2])  # as it names itself when it starts
                made = run_deployment(DEPLOYMENT, parameters=dict(given), flow_run_name=named, timeout=0)
                started[name] = made  # type: ignore[assignment]
                say(f"{name}: sent to the workers of {DEPLOYMENT}")
            while waiting := [name for name, run in started.items() if _is_running(run)]:
                time.sleep(POLL_SECONDS)
                started |= {name: client.read_flow_run(started[name].id) for name in waiting}
                for name in waiting:
                    if not _is_running(started[name]):
                        get_run_logger().info("%s", _outcome(name, started[name]))
                        say(_outcome(name, started[name]).splitlines()[0])
        except BaseException:
            _cancel(started)
            raise
    return {name: _outcome(name, run) for name, run in started.items() if not (run.state and run.state.is_completed())}


def _is_running(run: "FlowRun") -> bool:
    return not (run.state and run.state.is_final())


def _outcome(name: str, run: "FlowRun") -> str:
    from prefect.utilities.urls import url_for

    where = url_for("flow-run", obj_id=run.id) or run.id
    state = run.state
    said = ": ".join(text for text in (state.name, state.message) if text) if state else "unknown"
    return f"the run of {name} elsewhere ({where}) ended {said}"


def _cancel(started: Mapping[str, "FlowRun"]) -> None:
    """Cancel the parts that still run; the server ends the rest with this run."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    with contextlib.suppress(Exception), get_client(sync_client=True) as client:  # a new client gives up soon
        for run in started.values():
            if _is_running(run):
                client.set_flow_run_state(run.id, Cancelling(message="The run that sent it ended."), force=True)
