"""State of one run of the flow: outputs, failures, its file, its MLflow run and its display."""

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from clepdg.callbacks import Reporting
from clepdg.errors import ClepError, counted
from clepdg.hashing import plain
from clepdg.redaction import scrub
from clepdg.report.sections.reproduce import record_facts
from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg_flows.run import fan_out, latest_report, refresh
from clepdg_flows.run.display import SHOW, Show, silent
from clepdg_flows.run.plan import Plan
from clepdg_flows.run.prefect_logging import log_outcomes
from clepdg_flows.run.prefect_page import progress_artifact, run_artifacts
from clepdg_flows.run.server_away import expect_server
from clepdg_tasks.engine import execute, last_arguments, pinned, run_history
from clepdg_tasks.engine.node import Decision, Node, Outcome
from clepdg_tasks.engine.run_history import RunLog
from clepdg_tasks.engine.worker import WorkerProcess
from clepdg_tasks.host.settings import Settings
from clepdg_tasks.tracking.run_logger import MlflowLogger


class StagesFailed(ClepError):
    """Some stages failed; the others were finished."""


class Stopped(BaseException):
    """Raised in parallel stages to stop a run."""


@dataclass
class Run:
    """State of one run of the flow.

    Attributes:
        redo: stages to compute again in any case.
        last: returns node id -> key in the last run.
        reusable: node id -> decision, found before the first task; emptied once something is computed.
        worker: process that computes torch stages where there are several devices; None: this process.
        failed_parts: corpus or fold -> why its run elsewhere failed.
        away: ids of the failed nodes that may succeed later.
        started: seconds since the epoch.
    """

    settings: Settings
    store: Store
    log: RunLog
    run_logger: MlflowLogger
    redo: frozenset[str]
    show: Show
    last: Callable[[], dict[str, str]]
    reusable: dict[str, Decision] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event)
    worker: WorkerProcess | None = None
    writing: Any = field(default_factory=threading.Lock)
    failed_parts: dict[str, str] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    started: float = field(default_factory=time.time)

    def compute(self, node: Node, decision: Decision) -> Outcome:
        """Compute or reuse a node's output; log it to MLflow and the run's file."""
        opened: list[str | None] = []

        @contextmanager
        def reporting(node: Node, decision: Decision) -> Iterator[Reporting]:
            self.log.record_stage(node.id, decision.key or "", run_history.RUNNING)
            run_id = self.run_logger.start(node, decision.key or "")
            opened.append(run_id)
            points: list[tuple[str, float, int]] = []

            def log_metrics(metrics: Any, step: int) -> None:
                points.extend((name, float(value), step) for name, value in metrics.items())
                if len(points) >= 200:
                    self.run_logger.log_metrics(run_id, points)
                    points.clear()

            try:
                with self.show.bar(node, decision.reason) as show_bar:
                    keep_artifact = progress_artifact(node)

                    def progress(done: int, total: int) -> None:
                        if self.stopping.is_set():
                            raise Stopped("the run was stopped")
                        show_bar(done, total)
                        keep_artifact(done, total)

                    yield Reporting(log_metrics=log_metrics, progress=progress)
            except BaseException as error:
                self.run_logger.fail(run_id, error)
                raise
            self.run_logger.log_metrics(run_id, points)

        outcome = execute.run(
            node,
            decision,
            self.records,
            self.store,
            self.settings,
            redo=self.redo,
            worker=self.worker,
            reporting=reporting,
            stopping=self.stopping,
            waiting=self.show.say,
        )
        self.records[node.id], self.outcomes[node.id] = outcome.record, outcome
        if outcome.reused:
            self.log.record_stage(node.id, outcome.record.key, "Reused")
        self.run_logger.finish(node, outcome.record, self.records, opened[0] if opened else None)
        return outcome

    def note(self, node: Node, state: State[Any] | None) -> None:
        """Note a node's outcome; state None: not started, since an input failed."""
        facts: dict[str, Any] = {}
        if node.id in self.outcomes:
            outcome = self.outcomes[node.id]
            facts = {
                "key": outcome.record.key,
                "outcome": "Reused" if outcome.reused else "Completed",
                "reason": outcome.reason,
                "seconds": round(outcome.seconds, 3),
            }
        elif state is not None:
            error = state.result(raise_on_failure=False)
            self.failures[node.id] = str(error) if isinstance(error, ClepError) else _trace(error)
            if isinstance(error, ClepError) and error.away:
                self.away.add(node.id)
            facts = {"key": None, "outcome": "Failed", "reason": self.failures[node.id]}
            self.show.failed(node, error.what if isinstance(error, ClepError) else self.failures[node.id])
        else:
            broken = next((need for need in node.needs if need not in self.records), None)
            reason = f"depends on {broken}, which is not there" if broken else "was to be computed elsewhere"
            facts = {"key": None, "outcome": "Skipped", "reason": reason}
        self.log.stages[node.id] = facts


def _trace(error: Any) -> str:
    """Return a bug with its traceback, which is needed to find it."""
    if not isinstance(error, BaseException):
        return scrub(str(error))
    return scrub(f"{type(error).__name__}: {error}\n" + "".join(traceback.format_exception(error)))


def open_run(plan: Plan, settings: Settings, sources: refresh.SourceStates) -> Run:
    """Start a run's file and its logger; report changes of sources."""
    refresh.report_changes(sources)
    arguments, config = plan.arguments, plain(plan.config)
    store = settings.open_store()
    log = run_history.start(store, arguments, config, part=_is_part(), notes=sources.lines)
    if not log.part:
        last_arguments.begin(settings, arguments)
    run_logger = MlflowLogger(
        settings=settings,
        preset=arguments.preset,
        store=store,
        parameters=config,
        tags={"prefect.flow_run_id": str(flow_run.id), "run": log.path.stem},
    )
    last = cache(lambda: run_history.last_keys(store, config))
    log.write()
    return Run(settings, store, log, run_logger, frozenset(arguments.redo), SHOW.get() or silent(), last)


def _is_part() -> bool:
    """Return whether this run is a part of another one, sent by fan-out."""
    from prefect.context import FlowRunContext
    from prefect.runtime import deployment

    context = FlowRunContext.get()
    deployed = context and context.flow_run and context.flow_run.deployment_id
    return bool(deployed) and f"clep-dg/{deployment.name}" == fan_out.DEPLOYMENT


def stop_run(run: Run, error: BaseException) -> None:
    """End the stages, file and MLflow run of a cancelled or failed run."""
    run.stopping.set()
    broken = isinstance(error, Exception)
    run.log.outcome = "failed" if broken else "stopped"
    run.log.write()
    run.run_logger.close(run.log.stages, "FAILED" if broken else "KILLED")
    expect_server()


def publish_report(run: Run) -> None:
    """Copy the report's page of a complete run into the home folder."""
    if record := next((record for record in run.records.values() if record.stage == "report"), None):
        facts = latest_report.run_facts(run.log, run.started) | record_facts(run.records.values())
        latest_report.publish(run.store.local(record.stage, record.key), run.settings.home, facts)


def close_run(run: Run) -> dict[str, Any]:
    """End a run's file and its MLflow run; return its result.

    Raises:
        StagesFailed: some stages failed; the message names each and why.
    """
    failed = {**run.failed_parts, **run.failures}
    skipped = [node_id for node_id, facts in run.log.stages.items() if facts["outcome"] == "Skipped"]
    assert failed or not skipped, f"nothing failed, but {skipped} were not started"
    run.log.outcome = "failed" if failed else "completed"
    run.run_logger.close(run.log.stages, "FAILED" if failed else "FINISHED")
    run.log.notes += tuple(run.run_logger.notes())
    run.log.write()
    if not run.log.part:
        last_arguments.keep(run.settings, run.log.arguments)
    if not (failed or run.log.part):
        pinned.keep(run.settings, run.log)
        publish_report(run)
    log_outcomes(run.log.stages)
    expect_server()
    run_artifacts(run.log, run.records, run.store, run.run_logger)
    if failed:
        what = f"{len(run.failures)} of {len(run.log.stages)} stages" if run.failures else "Runs elsewhere"
        were = "was" if len(skipped) == 1 else "were"
        waiting = f", {counted(len(skipped), 'stage')} after that {were} not started" if skipped else ""
        raise StagesFailed(
            f"{what} failed{waiting}; the others are finished.",
            children=[f"{name}: {message}" for name, message in failed.items()],
            away=failed.keys() <= run.away,
        )
    return {
        "run": run.log.path.stem,
        "reused": sum(facts["outcome"] == "Reused" for facts in run.log.stages.values()),
        "computed": sum(facts["outcome"] == "Completed" for facts in run.log.stages.values()),
        "stages": {node_id: facts["key"] for node_id, facts in run.log.stages.items()},
        "mlflow_run": run.run_logger.parent,
        "notes": list(run.log.notes),
    }
