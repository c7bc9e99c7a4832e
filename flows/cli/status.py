"""clep-dg status: list every stage of a run, and why it is up to date or stale."""

import argparse
from functools import cache
from typing import Any

from clepdg.errors import ClepError
from clepdg_flows.cli.options import add_run_options, read_arguments
from clepdg_flows.cli.parser import Commands, add_command
from clepdg_tasks.engine import last_arguments, run_history
from clepdg_tasks.host.settings import load_settings


def add_status_command(commands: Commands) -> None:
    """Add the command."""
    what = "list the stages that are up to date or stale, and why"
    status = add_command(commands, "status", status_command, what, "clep-dg status --preset demo")
    add_run_options(status)
    status.add_argument("--refresh", action="store_true", help="of what run --refresh runs, and why that")


def status_command(options: argparse.Namespace) -> None:
    """Print the stages that are up to date or stale, and why; compute nothing."""
    from clepdg.corpora.cards import load_card
    from clepdg.download import upstream
    from clepdg.hashing import plain
    from clepdg.store.record import Record
    from clepdg_flows.run.plan import make_plan
    from clepdg_tasks.engine.node import decide

    settings = load_settings()
    store = settings.open_store()
    asked = any(v for name, v in vars(options).items() if name not in ("command", "refresh"))
    if options.refresh:
        from clepdg_flows.cli.pin import refresh_lines
        from clepdg_flows.run.refresh import pinned_run

        print(*refresh_lines(settings), sep="\n")
        arguments = pinned_run(read_arguments(options), settings)
        if arguments is None:
            return
    else:
        arguments = read_arguments(options) if asked else last_arguments.last(settings)
    if arguments is None:
        print("Nothing has been run on this machine yet. Start with: clep-dg run --preset demo")
        return
    plan = make_plan(arguments)
    last = cache(lambda: run_history.last_keys(store, plain(plan.config)))
    records, stale = dict[str, Record](), 0
    for node in plan.nodes:
        decision = decide(node, records, store, last, frozenset(arguments.redo if asked else ()))
        reason = decision.reason
        if decision.record is None:
            stale += 1
        elif refusal := _refusal(node, decision.record, store.address(node.stage, decision.record.key)):
            stale, reason = stale + 1, refusal
        else:
            records[node.id], reason = decision.record, "up to date"
        print(f"{node.stage:17s} {node.name:44s} {reason}")
    print(f"\npreset {arguments.preset}: {len(plan.nodes) - stale} of {len(plan.nodes)} stages are up to date.")
    for corpus in plan.config.corpora:
        if corpus not in arguments.sources:
            for change in upstream.changes(load_card(corpus), store.documents):
                print(change)


def _refusal(node: Any, record: Any, place: str) -> str:
    """Return in one line why a run would refuse a stored output, or ""."""
    try:
        node.accept(record, place)
    except ClepError as error:
        return f"refused: {' '.join(str(error).split())}"
    return ""
