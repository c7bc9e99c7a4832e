"""The flow `clep-dg`: brings every stage of the graph up to date, in order, and says what became of each."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import WithJsonSchema

from clepdg.config.folds import LEAVE_OUT, SUPERVISED, pair
from clepdg.config.presets import option_names
from clepdg.corpora.cards import corpus_names
from flows.run import fan_out as elsewhere
from flows.run import refresh as refreshing
from flows.run.executor import finish
from flows.run.plan import CHECKED, check, make_plan
from flows.run.prefect_logging import log_errors_once, outlive_reader
from flows.run.run import close_run, open_run, stop_run
from tasks.admin.prefect_crashes import report_crashed, run_lock
from tasks.engine.run_history import Arguments, run_name
from tasks.host import liveness
from tasks.host.settings import Settings, load_settings

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
load_settings()  # it says where the user's own cards lie
# Prefect's server refuses other names before there is a run; here they are refused with the valid ones by the checks.
CORPORA = list(corpus_names())
CorpusName = Annotated[str, WithJsonSchema({"type": "string", "enum": CORPORA})]
Sources = Annotated[
    dict[str, str],
    WithJsonSchema({"type": "object", "propertyNames": {"enum": CORPORA}, "additionalProperties": {"type": "string"}}),
]


_CORPUS = f"({'|'.join(CORPORA)})"
FOLD = f"^({SUPERVISED}|{LEAVE_OUT}{_CORPUS}|{pair(_CORPUS, _CORPUS)})$"
FoldName = Annotated[str, WithJsonSchema({"type": "string", "pattern": FOLD})]
Overrides = Annotated[
    dict[str, Any], WithJsonSchema({"type": "object", "propertyNames": {"enum": list(option_names())}})
]


log_errors_once()
outlive_reader()


@flow(
    name="clep-dg",
    flow_run_name=lambda: run_name(flow_run.parameters),
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
    allow_pickle_weights: bool = False,
    overrides: Overrides | None = None,
    refresh: bool = False,
    fan_out: bool = False,
) -> dict[str, Any]:
    """Run CLEP-DG from the corpora's sources to the report.

    1. Check everything that can be known beforehand; all faults come in one error.
    2. source, index and shard of all corpora, side by side.
    3. backbone; then, fold by fold: clep, acpt, text and audio embeddings, classifiers, evaluate.
       With several devices, as many folds side by side, each in a child process.
    4. report over all folds.

    Args:
        preset: where the configuration starts from.
        backbone: "micro", "micro-context", a folder, a Hugging Face name (NAME@COMMIT), or one of LAION's own
            checkpoints ("laion:630k-audioset-best"); None: the preset's.
        corpora: which corpora; None: the preset's.
        sources: corpus -> the user's own folder, archive or address.
        folds: which folds; None: all of the preset's protocols.
        until: the last stage wanted.
        redo: stages to compute again even if they are up to date.
        allow_partial: take a corpus that is not complete by its card.
        allow_pickle_weights: read weights that come as an unknown pickle (.bin).
        overrides: dotted settings, {"clep.epochs": 15}.
        refresh: take the arguments of the last whole run of the preset, where they are not given here; ask every source
            whether it changed, and run what is stale.
        fan_out: have corpora and folds run as runs of `clep-dg/fold`, by the workers of its pool.
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
    report_crashed(settings, PREFECT_API_URL.value())
    with run_lock(settings, str(flow_run.id)):
        return run_all(arguments, settings, refresh=refresh, fan_out=fan_out)


def run_all(arguments: Arguments, settings: Settings, *, refresh: bool, fan_out: bool) -> dict[str, Any]:
    """Check what can be known beforehand, then compute all stages that are not up to date."""
    if refresh:
        last = refreshing.last_run(arguments, settings.open_store())
        if last is None:
            return refreshing.nothing(arguments.preset)
        arguments = last
    checked = CHECKED.get()
    plan = checked if checked is not None and checked.arguments == arguments else make_plan(arguments)
    asked = refreshing.Asked()
    if refresh:
        asked = refreshing.ask(plan, settings.open_store())
        plan = replace(plan, states=asked.states)
    if fan_out:
        elsewhere.check_workers(arguments)
    if plan is not checked:
        check(plan, settings)
    run = open_run(plan, settings, asked)
    with liveness.hold(run.store.root / "runs", run.log.path.stem):
        try:
            if fan_out:
                run.missed = elsewhere.send_parts(plan, run.store, run.show.say)
            finish(run, plan.nodes, settings.lanes(plan.config.clep.ranks))
        except BaseException as error:
            stop_run(run, error)
            raise
        return close_run(run)
