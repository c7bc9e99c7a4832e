"""The flow `clep-dg`: brings every stage of the graph up to date, in order, and says what became of each."""

import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import groupby
from typing import Annotated, Any, Literal

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote
from pydantic import WithJsonSchema

from clepdg.cards import corpus_names
from clepdg.config import Config
from clepdg.errors import ClepError
from clepdg.presets import option_names
from clepdg.protocols import LEAVE_OUT, SUPERVISED
from clepdg.reporting import Reporting
from clepdg.store import Record, Store, plain
from flows.artifacts import progress_artifact, run_artifacts
from flows.checks import check, plan
from flows.logs import log_errors_once
from tasks import living, runs, stages
from tasks.crashes import alive, tell_crashed
from tasks.lineage import git_commit
from tasks.registry import Registry
from tasks.runs import Arguments, RunLog
from tasks.settings import Settings, load_settings
from tasks.stages import DATA_STAGES, Decision, Node, Outcome

StageName = Literal[
    "source",
    "index",
    "shard",
    "backbone",
    "clep",
    "acpt",
    "text_embeddings",
    "audio_embeddings",
    "classifier",
    "evaluate",
    "report",
]
# Prefect's server refuses other names before there is a run; here they are refused with the valid ones by the checks.
CORPORA = list(corpus_names())
CorpusName = Annotated[str, WithJsonSchema({"type": "string", "enum": CORPORA})]
Sources = Annotated[
    dict[str, str],
    WithJsonSchema({"type": "object", "propertyNames": {"enum": CORPORA}, "additionalProperties": {"type": "string"}}),
]


FoldName = Annotated[
    str, WithJsonSchema({"type": "string", "enum": [SUPERVISED, *(f"{LEAVE_OUT}{corpus}" for corpus in CORPORA)]})
]
Overrides = Annotated[
    dict[str, Any], WithJsonSchema({"type": "object", "propertyNames": {"enum": list(option_names())}})
]


class StagesFailed(ClepError):
    """Some stages failed; the others were finished."""


class Stopped(BaseException):
    """Ends the stages that run side by side when the run is stopped: no thread can be ended from outside."""


@dataclass
class Run:
    """One run of the flow: what stands, what failed, and who is told."""

    config: Config
    settings: Settings
    store: Store
    log: RunLog
    registry: Registry
    redo: frozenset[str]
    show: "Show"
    last: dict[str, str] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event)

    def bring_up_to_date(self, node: Node) -> Outcome:
        """Compute or reuse one node; remember it, and tell MLflow and the run's file."""
        opened: list[str | None] = []

        @contextmanager
        def reporting(node: Node, decision: Decision) -> Iterator[Reporting]:
            run_id = self.registry.start(node, decision.key or "")
            opened.append(run_id)
            points: list[tuple[str, float, int]] = []

            def log_metrics(metrics: Any, step: int) -> None:
                points.extend((name, float(value), step) for name, value in metrics.items())
                if len(points) >= 200:
                    self.registry.log_metrics(run_id, points)
                    points.clear()

            try:
                with self.show.bar(node, decision.reason) as shown:
                    kept = progress_artifact(node)

                    def progress(done: int, total: int) -> None:
                        if self.stopping.is_set():
                            raise Stopped("the run was stopped")
                        shown(done, total)
                        kept(done, total)

                    yield Reporting(log_metrics=log_metrics, progress=progress)
            except BaseException as error:
                self.registry.fail(run_id, error)
                raise
            self.registry.log_metrics(run_id, points)

        outcome = stages.run(
            node,
            self.records,
            self.store,
            self.settings,
            last=self.last,
            redo=self.redo,
            reporting=reporting,
            stopping=self.stopping,
        )
        self.records[node.id], self.outcomes[node.id] = outcome.record, outcome
        self.registry.finish(node, outcome.record, self.records, opened[0] if opened else None)
        return outcome

    def note(self, node: Node, state: State[Any] | None) -> None:
        """Write down what became of a node; None: it was not started, since something it needs failed."""
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
            facts = {"key": None, "outcome": "Failed", "reason": self.failures[node.id]}
            self.show.failed(node, self.failures[node.id])
        else:
            broken = next(need for need in node.needs if need not in self.records)
            facts = {"key": None, "outcome": "Skipped", "reason": f"depends on {broken}, which is not there"}
        self.log.stages[node.id] = facts


def _trace(error: Any) -> str:
    """Return a fault of the program with its traceback: nobody foresaw it, so all of it is needed."""
    if not isinstance(error, BaseException):
        return str(error)
    return f"{type(error).__name__}: {error}\n" + "".join(traceback.format_exception(error))


@dataclass(frozen=True)
class Show:
    """How a run shows itself to a person; the command line gives its own."""

    bar: Callable[[Node, str], Any]
    done: Callable[[list[tuple[Node, Outcome]]], None]
    failed: Callable[[Node, str], None]


def _silent() -> Show:
    @contextmanager
    def bar(node: Node, reason: str) -> Iterator[Callable[[int, int], None]]:
        yield lambda done, total: None

    return Show(bar=bar, done=lambda outcomes: None, failed=lambda node, message: None)


SHOW: ContextVar[Show | None] = ContextVar("SHOW", default=None)  # the command line sets its own


log_errors_once()


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{title}")
def bring_up_to_date(title: str, node: Any, run: Any) -> State[Any]:
    """Compute or reuse one stage."""
    outcome = run.bring_up_to_date(node)
    get_run_logger().info("%s: %s", node.id, outcome.reason)
    name = "Reused" if outcome.reused else "Completed"
    return Completed(name=name, message=outcome.reason)


@flow(
    name="clep-dg",
    flow_run_name="{preset}",
    task_runner=ThreadPoolTaskRunner(max_workers=4),  # type: ignore[arg-type]
    persist_result=False,
)
def clep_dg(
    preset: Literal["demo", "open"] = "open",
    backbone: str | None = None,
    corpora: list[CorpusName] | None = None,
    sources: Sources | None = None,
    folds: list[FoldName] | None = None,
    until: StageName | None = None,
    redo: list[StageName] | None = None,
    allow_partial: bool = False,
    overrides: Overrides | None = None,
) -> dict[str, Any]:
    """Run CLEP-DG from the corpora's sources to the report.

    1. Check everything that can be known beforehand; all faults come in one error.
    2. source, index and shard of all corpora, side by side.
    3. backbone; then, fold by fold: clep, acpt, text and audio embeddings, classifiers, evaluate.
    4. report over all folds.

    Args:
        preset: where the configuration starts from.
        backbone: "micro", a Hugging Face name, or a folder; None: the preset's.
        corpora: which corpora; None: the preset's.
        sources: corpus -> the user's own folder, archive or address.
        folds: which folds; None: all of the preset's protocols.
        until: the last stage wanted.
        redo: stages to compute again even if they are up to date.
        allow_partial: take a corpus that is not complete by its card.
        overrides: dotted settings, {"clep.epochs": 15}.
    """
    arguments = Arguments(
        preset=preset,
        backbone=backbone,
        corpora=tuple(corpora) if corpora else None,
        sources=sources or {},
        folds=tuple(folds) if folds else None,
        until=until,
        redo=tuple(redo or ()),
        allow_partial=allow_partial,
        overrides=overrides or {},
    )
    settings = load_settings()
    tell_crashed(settings, PREFECT_API_URL.value())
    with alive(settings, str(flow_run.id)):
        return finish(arguments, settings)


def finish(arguments: Arguments, settings: Settings) -> dict[str, Any]:
    """Check what can be known beforehand, then bring all stages up to date."""
    check(arguments, settings)
    config, nodes = plan(arguments)
    run = open_run(arguments, config, settings)
    with living.hold(run.log.path.parent, run.log.path.stem):
        try:
            for stage, group in groupby(nodes, key=lambda node: node.stage):
                finish_group(run, list(group), parallel=stage in DATA_STAGES)
        except BaseException:
            stop_run(run)
            raise
        return close_run(run)


def open_run(arguments: Arguments, config: Config, settings: Settings) -> Run:
    """Start a run's file and its (not yet opened) MLflow run."""
    store = settings.open_store()
    log = runs.start(store, arguments, plain(config))
    registry = Registry(
        settings=settings,
        preset=arguments.preset,
        store=store,
        parameters=plain(config),
        tags={"prefect.flow_run_id": str(flow_run.id), "git_commit": git_commit(), "run": log.path.stem},
    )
    last = runs.last_keys(store, plain(config))
    log.write()
    return Run(config, settings, store, log, registry, frozenset(arguments.redo), SHOW.get() or _silent(), last)


def finish_group(run: Run, nodes: list[Node], *, parallel: bool) -> None:
    """Run consecutive nodes of one stage; what needs something that failed is skipped, and the rest goes on."""
    ready = [node for node in nodes if all(need in run.records for need in node.needs)]
    calls = [(f"{node.stage} {node.name}", quote(node), quote(run)) for node in ready]
    if parallel:
        futures = [bring_up_to_date.submit(*call) for call in calls]
        for future in futures:
            future.wait()
        states = [future.state for future in futures]
    else:
        states = [bring_up_to_date(*call, return_state=True) for call in calls]
    ended = dict(zip((node.id for node in ready), states, strict=True))
    for node in nodes:
        run.note(node, ended.get(node.id))
    run.show.done([(node, run.outcomes[node.id]) for node in nodes if node.id in run.outcomes])
    run.log.write()


def stop_run(run: Run) -> None:
    """End what still runs side by side, the run's file and its MLflow run: it was cancelled or interrupted."""
    run.stopping.set()
    run.log.outcome = "stopped"
    run.log.write()
    run.registry.close(run.log.stages, "KILLED")


def close_run(run: Run) -> dict[str, Any]:
    """End the run's file and its MLflow run.

    Raises:
        StagesFailed: some stages failed; the message names each and why.
    """
    run.log.outcome = "failed" if run.failures else "completed"
    run.log.write()
    run.registry.close(run.log.stages, "FAILED" if run.failures else "FINISHED")
    run_artifacts(run.log.stages, run.store, run.registry)
    if run.failures:
        skipped = [node_id for node_id, facts in run.log.stages.items() if facts["outcome"] == "Skipped"]
        lines = [f"{node_id}: {message}" for node_id, message in run.failures.items()]
        raise StagesFailed(
            f"{len(run.failures)} of {len(run.log.stages)} stages failed, {len(skipped)} that need them were not"
            " started; the others are finished.\n- " + "\n- ".join(lines)
        )
    return {
        "run": run.log.path.stem,
        "reused": sum(facts["outcome"] == "Reused" for facts in run.log.stages.values()),
        "computed": sum(facts["outcome"] == "Completed" for facts in run.log.stages.values()),
        "stages": {node_id: facts["key"] for node_id, facts in run.log.stages.items()},
        "mlflow_run": run.registry.parent,
    }
