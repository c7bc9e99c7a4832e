"""The command clep-dg status: what is stale and why, and whose configuration that is about."""

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING

from clepdg.errors import ClepError
from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg_flows.cli.options import add_run_options, read_arguments
from clepdg_flows.cli.parser import Commands, add_command, add_json_option, print_json
from clepdg_flows.run.progress import by_reason
from clepdg_tasks.engine import last_arguments, run_history
from clepdg_tasks.engine.node import Node, decide
from clepdg_tasks.engine.run_history import Arguments, as_command
from clepdg_tasks.host.settings import Settings, load_settings

if TYPE_CHECKING:
    from clepdg_flows.run.plan import Plan

UP_TO_DATE, STALE, WAITS = "up to date", "stale", "depends on stale"  # states of a stage, as --json names them
ASKED = "what these options ask for"
LAST = "this machine's last finished run"
OWN = {"command", "refresh", "all", "json"}  # options that choose no run


@dataclass(frozen=True)
class StageStatus:
    """Status of one stage.

    Attributes:
        state: UP_TO_DATE, STALE, or WAITS where only an input is stale.
        key: of its output; None where an input is stale.
        resumes: step of the checkpoint that an interrupted training left, and of how many; None: there is none.
    """

    stage: str
    name: str
    state: str
    reason: str
    key: str | None
    resumes: dict[str, int] | None

    @property
    def text(self) -> str:
        """Return the reason, and where a training resumes."""
        if not self.resumes:
            return self.reason
        step, steps = self.resumes["step"], self.resumes.get("steps")
        return f"{self.reason}; resumes at step {step}" + (f" of {steps} ({step / steps:.0%})" if steps else "")


def add_status_command(commands: Commands) -> None:
    """Add the command."""
    what = "say which stages are stale, and why; computes nothing"
    status = add_command(commands, "status", status_command, what, "clep-dg status --preset demo")
    add_run_options(status)
    status.add_argument("--refresh", action="store_true", help="of what run --refresh runs, and why that")
    status.add_argument("--all", action="store_true", help="list every stage in a line of its own")
    add_json_option(status)


def status_command(options: argparse.Namespace) -> None:
    """Print which stages are stale, and why; compute nothing."""
    from clepdg_flows.run.plan import check_named_models, make_plan

    settings = load_settings()
    store = settings.open_store()
    arguments, whose, said = _judged(options, settings)
    if not options.json and said:
        print(*said, sep="\n")
    if arguments is None:
        if options.json:
            print_json({"judged": whose, "arguments": None, "stages": [], "changes": [], "notes": said})
        return
    plan = make_plan(arguments)
    if whose == ASKED:
        check_named_models(plan, store)
    stages = [*judge(plan, store, frozenset(arguments.redo))]
    changes = [*_changes(plan, store)]
    if options.json:
        facts = {"judged": whose, "arguments": run_history.parameters(arguments)}
        print_json(facts | {"stages": [asdict(each) for each in stages], "changes": changes, "notes": said})
        return
    print(*_lines(stages, f"{whose}: {as_command(arguments)}", every=options.all), *changes, sep="\n")


def _judged(options: argparse.Namespace, settings: Settings) -> tuple[Arguments | None, str, list[str]]:
    """Return a run's arguments or None, whose they are, and what to say first."""
    asked = any(value for name, value in vars(options).items() if name not in OWN)
    if options.refresh:
        from clepdg_flows.cli.pin import refresh_lines
        from clepdg_flows.run.refresh import pinned_run

        return pinned_run(read_arguments(options), settings), "the pinned run", refresh_lines(settings)
    if asked:
        return read_arguments(options), ASKED, []
    last, begun = last_arguments.last(settings), last_arguments.begun(settings)
    if last is None and begun is None:
        return None, LAST, ["Nothing has been run on this machine yet. Start with: clep-dg run --preset demo"]
    if last is None:
        return begun, "the last run, which has not ended or was stopped", []
    again = "" if begun is None else as_command(begun).replace("clep-dg run", "clep-dg status", 1)
    return last, LAST, [f"A later run has not ended or was stopped. Judge it with: {again}"] if again else []


def judge(plan: "Plan", store: Store, redo: frozenset[str]) -> Iterator[StageStatus]:
    """Yield the status of every stage of a run, in its order."""
    from clepdg.hashing import plain

    last = cache(lambda: run_history.last_keys(store, plain(plan.config)))
    records = dict[str, Record]()
    for node in plan.nodes:
        decision = decide(node, records, store, last, redo)
        state, reason = STALE if decision.key else WAITS, decision.reason
        if decision.record is not None:
            refusal = _refusal(node, decision.record, store)
            state, reason = (STALE, refusal) if refusal else (UP_TO_DATE, UP_TO_DATE)
            if not refusal:
                records[node.id] = decision.record
        resumes = _resumes(store, node.stage, decision.key) if state == STALE and decision.key else None
        yield StageStatus(node.stage, node.name, state, reason, decision.key, resumes)


def _lines(stages: list[StageStatus], judged: str, *, every: bool) -> Iterator[str]:
    """Yield what is stale first; stages that wait for it are only counted."""
    fresh = sum(each.state == UP_TO_DATE for each in stages)
    of = f"{fresh} of {len(stages)}" if fresh < len(stages) else f"All {fresh}"
    shown = [each for state in (STALE, WAITS, UP_TO_DATE) for each in stages if each.state == state]
    if every:
        for each in shown:
            yield f"{each.stage:17s} {each.name:44s} {each.text}"
    else:
        stale = [((each.stage, each.name), each.text) for each in shown if each.state == STALE]
        for stage, names, text, _ in by_reason(stale):
            yield f"{stage:17s} {names:44s} {text}"
        waiting = [each.stage for each in shown if each.state == WAITS]
        counts = ", ".join(f"{stage} {waiting.count(stage)}" for stage in dict.fromkeys(waiting))
        if waiting:
            yield f"and {len(waiting)} that depend on these: {counts}"
    yield f"{of} stages are up to date. Judged is {judged}"


def _changes(plan: "Plan", store: Store) -> Iterator[str]:
    """Yield what an earlier refresh saw change upstream."""
    from clepdg.corpora.cards import load_card
    from clepdg.download import upstream

    for corpus in plan.config.corpora:
        if corpus not in plan.arguments.sources:
            yield from upstream.changes(load_card(corpus), store.documents)


def _resumes(store: Store, stage: str, key: str) -> dict[str, int] | None:
    """Return the step that an interrupted training on this machine reached."""
    from clepdg_tasks.engine.changes import reached

    return reached(store.root / stage / f"{key}.partial")


def _refusal(node: Node, record: Record, store: Store) -> str:
    """Return in one line why a run would refuse a stored output, or ""."""
    try:
        node.accept(record, store.address(record.stage, record.key))
    except ClepError as error:
        return f"refused: {' '.join(str(error).split())}"
    return ""
