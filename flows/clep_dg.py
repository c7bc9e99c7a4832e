"""The Prefect flow `clep-dg`: computes the stages that are not up to date, in order."""

from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.runtime import deployment, flow_run
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import WithJsonSchema

from clepdg.config.folds import LEAVE_OUT, SUPERVISED, pair
from clepdg.config.presets import option_names
from clepdg.corpora.cards import corpus_names
from clepdg.errors import ClepError
from clepdg_flows.run import fan_out as elsewhere
from clepdg_flows.run import refresh as refreshing
from clepdg_flows.run import retries
from clepdg_flows.run.executor import execute, find_reusable
from clepdg_flows.run.plan import CHECKED, check, make_plan
from clepdg_flows.run.prefect_logging import log_errors_once, survive_broken_pipe, without_secrets
from clepdg_flows.run.run import close_run, open_run, stop_run
from clepdg_tasks.admin.prefect_crashes import report_crashed, run_lock
from clepdg_tasks.engine.run_history import Arguments, run_name
from clepdg_tasks.host import liveness
from clepdg_tasks.host.settings import Settings, load_settings

StageName = Literal[
    "source",
    "index",
    "shard",
    "backbone",
    "features",
    "clep",
    "acpt",
    "text_embeddings",
    "audio_embeddings",
    "classifier",
    "evaluate",
    "report",
]
load_settings()  # names the folder of the user's own cards
# Prefect's server refuses other names before a run starts; the checks here also list the valid ones.
CORPORA = list(corpus_names())
CorpusName = Annotated[str, WithJsonSchema({"type": "string", "enum": CORPORA})]
Sources = Annotated[
    dict[str, str],
    WithJsonSchema({"type": "object", "propertyNames": {"enum": CORPORA}, "additionalProperties": {"type": "string"}}),
]


_CORPUS = f"({'|'.join(CORPORA)})"
FOLD = f"^({SUPERVISED}|{LEAVE_OUT}{_CORPUS}|{pair(_CORPUS, _CORPUS)})$"
FOLDS = [SUPERVISED, *(LEAVE_OUT + corpus for corpus in CORPORA)]
FoldName = Annotated[str, WithJsonSchema({"type": "string", "pattern": FOLD, "examples": FOLDS})]
Overrides = Annotated[
    dict[str, Any], WithJsonSchema({"type": "object", "propertyNames": {"enum": list(option_names())}})
]


log_errors_once()
survive_broken_pipe()


@flow(
    name="clep-dg",
    flow_run_name=lambda: run_name(flow_run.parameters, deployment.name),
    task_runner=ThreadPoolTaskRunner(max_workers=4),  # type: ignore[arg-type]
    persist_result=False,
)
def clep_dg(
    preset: Literal["demo", "open", "speech", "paper"] = "open",
    backbone: str | None = None,
    corpora: list[CorpusName] | None = None,
    sources: Sources | None = None,
    folds: list[FoldName] | None = None,
    until: StageName | None = None,
    redo: list[StageName] | None = None,
    allow_partial: bool = False,
    allow_pickle_weights: bool = False,
    overrides: Overrides | None = None,
    refresh: bool = False,
    fan_out: bool = False,
) -> dict[str, Any]:
    """Run CLEP-DG from the corpora's sources to the report.

    1. Check sources, models, disk and device; all faults come in one error.
    2. source, index and shard of all corpora, in parallel.
    3. backbone; then, fold by fold: clep, acpt, text and audio embeddings, classifiers, evaluate.
       With several devices, as many folds in parallel, each in a worker process.
    4. report over all folds.

    Args:
        preset: the configuration to start from.
        backbone: "micro", "micro-context", a folder, a Hugging Face name (NAME@COMMIT), or one of LAION's own
            checkpoints ("laion:630k-audioset-best"), or "dual:AUDIO+TEXT"; None: the preset's.
        corpora: names of corpora; None: the preset's.
        sources: corpus -> the user's own folder, archive or address.
        folds: names of folds; None: all of the preset's protocols.
        until: the last stage to compute.
        redo: stages to compute again even if they are up to date.
        allow_partial: accept a corpus that is not complete by its card.
        allow_pickle_weights: read weights that come as an unknown pickle (.bin).
        overrides: dotted settings, {"clep.epochs": 15}.
        refresh: repeat the run that `clep-dg pin` pinned, with the arguments given here in place of its own; ask every
            source whether it changed, and compute what is stale.
        fan_out: send corpora and folds to the workers of the pool, as runs of `clep-dg/fold`.
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
        allow_pickle_weights=allow_pickle_weights,
        overrides=overrides or {},
    )
    settings = load_settings()
    report_crashed(settings, PREFECT_API_URL.value(), PREFECT_API_AUTH_STRING.value())
    with run_lock(settings, str(flow_run.id)), without_secrets():
        try:
            result = run_all(arguments, settings, refresh=refresh, fan_out=fan_out)
        except ClepError as error:
            retries.retry_later(error)
            retries.send_events()
            raise
        retries.send_events()
        return result  # type: ignore[no-any-return]


def skipped(result: dict[str, Any]) -> Any:
    """Return the state of a run that had nothing to do, with its result."""
    return Completed(name="Skipped", message=result["notes"][0], data=result)


def run_all(arguments: Arguments, settings: Settings, *, refresh: bool, fan_out: bool) -> Any:
    """Check a run, then compute all stages that are not up to date."""
    if refresh:
        pinned = refreshing.pinned_run(arguments, settings)
        if pinned is None:
            return skipped(refreshing.nothing_pinned())
        arguments = pinned
    checked = CHECKED.get()
    plan = checked if checked is not None and checked.arguments == arguments else make_plan(arguments)
    sources = refreshing.SourceStates()
    if refresh:
        sources = refreshing.check_sources(plan, settings.open_store())
        plan = replace(plan, states=sources.states)
    if fan_out:
        elsewhere.check_workers(arguments)
    if plan is not checked:
        check(plan, settings)
    run = open_run(plan, settings, sources)
    with liveness.hold(run.store.root / "runs", run.log.path.stem):
        try:
            if fan_out:
                find_reusable(run, plan.nodes)  # so that gc keeps it while the parts run
                run.failed_parts = elsewhere.send_parts(plan, run.store, run.show.say)
            execute(run, plan.nodes, partial(settings.lanes, plan.config.clep.ranks, plan.config.compute.threads))
        except BaseException as error:
            stop_run(run, error)
            raise
        return close_run(run)
