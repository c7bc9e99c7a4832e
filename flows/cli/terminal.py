"""Display of a run on a terminal: progress bars, a line for each group of stages, and the result."""

import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from clepdg.config.folds import SUPERVISED
from clepdg.config.rows import MAIN_ROW
from clepdg.corpora.cards import load_card
from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg_flows.run.progress import describe, in_bytes, since_first
from clepdg_tasks.engine.node import Node, Outcome
from clepdg_tasks.engine.run_history import Arguments
from clepdg_tasks.host.settings import Settings

Ended = list[tuple[Node, Outcome]]


def print_result(
    result: dict[str, Any], ended: Ended, arguments: Arguments, settings: Settings, seconds: float
) -> str | None:
    """Print the results of a run, where they are, and a command to try next.

    Returns:
        The path of the report's page, or None where the run made none.
    """
    from clepdg_tasks.tracking.client import where_to_view

    store = settings.open_store()
    stages = "stage" if result["computed"] == 1 else "stages"
    print(f"\n{result['computed']} {stages} computed, {result['reused']} reused, in {seconds:.0f} s.")
    for note in [*result["notes"], *_incomplete(ended, store)]:
        print(note)
    report = next((outcome.record for node, outcome in ended if node.stage == "report"), None)
    if report is None:
        return None
    folder = store.local(report.stage, report.key)
    print("\n" + (folder / "table.txt").read_text())
    print(f"report   {folder / 'report.html'}")
    print(f"figures  {folder / 'results.csv'}, from predictions.parquet of each evaluate in {store.url}")
    print(f"MLflow   {where_to_view(settings)}")
    preset = f" --preset {arguments.preset}" if arguments.preset != "open" else ""
    champion = any((node.fold, node.tags.get("row")) == (SUPERVISED, MAIN_ROW) for node, _ in ended)
    command = f"predict{preset} {shlex.quote(_an_utterance(ended, store))}" if champion else f"compare{preset}"
    activate = (
        "" if shutil.which("clep-dg") else f". {shlex.quote(str(Path(sys.executable).with_name('activate')))} && "
    )
    print(f"next     {activate}clep-dg {command}")
    return str(folder / "report.html")


def _incomplete(ended: Ended, store: Store) -> Iterator[str]:
    """Yield a line for each corpus that is partial, altered or quarantined."""
    for record in (outcome.record for node, outcome in ended if node.stage == "index"):
        if _is_incomplete(record):
            place = store.address(record.stage, record.key)
            yield f"{record.name:8s} {_counts(record)}: see quarantine.parquet and quality.png in {place}"


def _is_incomplete(record: Record) -> bool:
    from clepdg.dataset.validate import copy_differences

    altered = record.figures["quarantined"] or record.figures["alterations"]
    return bool(altered or copy_differences(record.figures, load_card(record.name)))


def _counts(record: Record) -> str:
    """Return counts of an index: its utterances, and those of its card."""
    card, figures = load_card(record.name), record.figures
    whole = f" of {card.expected.utterances}" if card.expected.utterances and not card.acoustics else ""
    altered = ", altered files" if figures["published"]["altered"] else ""
    notes = f", notes on {sum(figures['notes'].values())}" if figures["notes"] else ""
    alike = "".join(f", {count} {what}" for what, count in figures["alterations"].items())
    return f"{figures['utterances']}{whole} utterances, {figures['quarantined']} quarantined{notes}{altered}{alike}"


def _an_utterance(ended: Ended, store: Store) -> str:
    """Return an audio file of the run, to try `clep-dg predict` with."""
    from clepdg.download.source import root

    for record in (outcome.record for node, outcome in ended if node.stage == "source"):
        folder = store.at_hand(record.stage, record.key)
        paths = sorted(root(folder).rglob("*.wav")) if folder else ()
        found = next((path for path in paths if not path.name.startswith(".")), None)
        if found:
            return str(found)
    return "FILE.wav"


def by_reason(items: Iterable[tuple[tuple[str, str], str]]) -> Iterator[tuple[str, str, str, int]]:
    """Yield (stage, names, reason, count) of adjacent items alike.

    Args:
        items: ((stage, name), reason).
    """
    for (stage, reason), group in groupby(items, key=lambda item: (item[0][0], item[1])):
        names = [name for (_, name), _ in group]
        yield (
            stage,
            names[0] if len(names) == 1 else f"{os.path.commonprefix(names)}* ({len(names)})",
            reason,
            len(names),
        )


def show(ended: Ended) -> Any:
    """Return the display of a run on a terminal.

    Args:
        ended: receives the nodes that ended, with their outcomes.
    """
    from clepdg_flows.run.run import Show

    def of_node(node: Any, reason: str) -> AbstractContextManager[Callable[[int, int], None]]:
        return bar(node.stage, node.name)

    def done(outcomes: Sequence[tuple[Any, Any]]) -> None:
        ended.extend(outcomes)

        def said(pair: tuple[Any, Any]) -> str:
            node, outcome = pair
            return f"{outcome.reason}; {_counts(outcome.record)}" if node.stage == "index" else str(outcome.reason)

        computed = [pair for pair in outcomes if not pair[1].reused]
        ends = iter(outcome.seconds for _, outcome in computed)
        for stage, names, reason, count in by_reason([((p[0].stage, p[0].name), said(p)) for p in computed]):
            each = " each" if count > 1 and stage == "index" else ""
            _write(f"{stage:17s} {names:44s} {sum(islice(ends, count)):7.1f} s  {reason}{each}")

    def failed(node: Any, message: str) -> None:
        _write(f"{node.stage:17s} {node.name:44s}  FAILED  {message.splitlines()[0]}")

    return Show(bar=of_node, done=done, failed=failed, say=_write)


@contextmanager
def bar(stage: str, name: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a progress function: a bar on a terminal, else a line every 30 s."""
    if not sys.stderr.isatty():
        yield _lines(stage, name)
        return
    from tqdm import tqdm

    unit = "B" if in_bytes(stage) else "it"
    with tqdm(
        desc=f"{stage} {name}", leave=False, file=sys.stderr, mininterval=0.2, unit=unit, unit_scale=in_bytes(stage)
    ) as progress:

        def update(done: int, total: int) -> None:
            progress.total = total or None
            if not progress.n:  # the rate counts from here
                progress.initial = progress.n = progress.last_print_n = done
            progress.update(done - progress.n)

        yield update


def _lines(stage: str, name: str, every: float = 30.0) -> Callable[[int, int], None]:
    last, since = time.monotonic(), since_first()

    def update(done: int, total: int) -> None:
        nonlocal last
        lately = since(done)
        if time.monotonic() - last >= every:
            last = time.monotonic()
            print(f"{describe(stage, name, done, total, *lately)}\n", end="", file=sys.stderr, flush=True)

    return update


def _write(line: str) -> None:
    if sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(line)
    else:
        print(f"{line}\n", end="", flush=True)  # in one write: threads print at once
