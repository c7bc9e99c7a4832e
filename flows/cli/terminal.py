"""Print a run on a terminal: a line for each group of stages that ended, and the result."""

import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clepdg.config.folds import SUPERVISED
from clepdg.config.rows import MAIN_ROW
from clepdg.corpora.cards import load_card
from clepdg.errors import counted
from clepdg.hashing import read_json
from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg_flows.cli.pin import refresh_line
from clepdg_flows.run.progress import NAMES, named
from clepdg_tasks.engine.node import Node, Outcome
from clepdg_tasks.engine.run_history import Arguments, as_command
from clepdg_tasks.engine.worker import STOPPED
from clepdg_tasks.host.settings import Settings

if TYPE_CHECKING:
    from clepdg_flows.run.display import Display

Ended = list[tuple[Node, Outcome]]
REASON = 100  # characters; the run's file in the store has all
NOTES = 1  # of a line; more are counted
WIDEST = 120  # columns of text


def print_result(
    result: dict[str, Any],
    ended: Ended,
    arguments: Arguments,
    settings: Settings,
    seconds: float,
    *,
    full: bool = False,
) -> str | None:
    """Print the results of a run, where they are, and a command to try next.

    Args:
        full: all tables; else a summary, in all at most 30 lines on a terminal of 80 columns or more.

    Returns:
        The path of the report's page, or None where the run made none.
    """
    store = settings.open_store()
    report = next((outcome.record for node, outcome in ended if node.stage == "report"), None)
    short = report is not None and not full
    said = f"{counted(result['computed'], 'stage')} computed, {result['reused']} reused"
    print(
        f"\n{said if result['computed'] else counted(result['reused'], 'stage') + ' up to date'}, in {seconds:.0f} s."
    )
    notes = [*result["notes"], *(() if short else _incomplete(ended, store))]  # the summary's warnings say it, short
    for note in _short(notes) if short else notes:
        print(note)
    page = settings.home / "report.html"
    if report is None:
        if arguments.until:
            _print_no_report(page, arguments)
        return None
    folder = store.local(report.stage, report.key)
    _print_report(folder, page if page.exists() else folder / "report.html", full=full)
    if full:
        from clepdg_tasks.tracking.client import where_to_view

        print(f"figures  {folder / 'results.csv'}, from predictions.parquet of each evaluate in {store.url}")
        print(f"MLflow   {where_to_view(settings)}")
    if refreshed := refresh_line(settings, arguments):
        print(refreshed)
    print(f"next     {_next(ended, arguments, store)}")
    return str(page)


def _print_report(folder: Path, page: Path, *, full: bool) -> None:
    """Print a report's table or summary, and where its page is."""
    from rich.console import Console
    from rich.text import Text

    from clepdg.report.summary import BEST, SUMMARY, WARNING, lay_out

    console = Console(highlight=False, soft_wrap=True)  # the terminal wraps what is too long, and copies it whole
    print()
    warned = False
    own = lay_out(read_json(folder / SUMMARY), _columns(), *["below"] * full)
    for line in [*own, "", *_table(folder)] if full else own:
        warned = line.startswith(WARNING) or (warned and line.startswith(" "))
        best = line.startswith(BEST) and "[" in line
        console.print(Text(line, "yellow" if warned else "bold" if best else ""))
    console.print(Text.assemble("\nreport   ", (_from_here(page), f"link {page.as_uri()}")))


def _table(folder: Path) -> Iterator[str]:
    """Yield the lines of all tables, and of the notes below, wrapped."""
    tables, _, notes = (folder / "table.txt").read_text(encoding="utf-8").rstrip("\n").rpartition("\n\n")
    yield from [*tables.splitlines(), ""] if tables else []
    yield from (line for note in notes.splitlines() for line in textwrap.wrap(note, min(_columns(), WIDEST)))


def _columns() -> int:
    """Return the width of the terminal, or COLUMNS; else 80."""
    return shutil.get_terminal_size().columns


def _print_no_report(page: Path, arguments: Arguments) -> None:
    """Say that a run made no report, and what makes one."""
    earlier = f" {_from_here(page)} is of an earlier run." if page.exists() else ""
    print(f"\nreport   none: --until {arguments.until} ends before it.{earlier}")
    print(f"next     {_activated(as_command(replace(arguments, until=None)))}")


def _short(notes: Sequence[str]) -> Iterator[str]:
    """Yield the first notes in full, and count the others."""
    yield from (line for note in notes[:NOTES] for line in textwrap.wrap(note, min(_columns(), WIDEST), max_lines=1))
    if len(notes) > NOTES:
        yield f"{len(notes) - NOTES} more notes: --table full"


def _from_here(path: Path) -> str:
    """Return a path, relative where it lies below the working folder."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _next(ended: Ended, arguments: Arguments, store: Store) -> str:
    """Return a command to try next."""
    preset = f" --preset {arguments.preset}" if arguments.preset != "open" else ""
    champion = any((node.fold, node.tags.get("row")) == (SUPERVISED, MAIN_ROW) for node, _ in ended)
    command = f"predict{preset} {_an_utterance(ended, store)}" if champion else f"compare{preset}"
    return _activated(f"clep-dg {command}")


def _activated(command: str) -> str:
    """Return a command that works where clep-dg is not on the path."""
    if shutil.which("clep-dg"):
        return command
    return f". {shlex.quote(str(Path(sys.executable).with_name('activate')))} && {command}"


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
    """Return an audio file of the run, as words of a shell.

    The key in its path, of 64 digits, is cut to a pattern.
    """
    from clepdg.download.source import root

    for record in (outcome.record for node, outcome in ended if node.stage == "source"):
        folder = store.at_hand(record.stage, record.key)
        paths = sorted(root(folder).rglob("*.wav")) if folder else ()
        found = next((path for path in paths if not path.name.startswith(".")), None)
        if found:
            path = shlex.quote(_from_here(found))
            return path if path.startswith("'") else path.replace(record.key, f"{record.key[:8]}*")
    return "FILE.wav"


def _line() -> int:
    return _columns() if sys.stdout.isatty() else 200  # of a stage's line


def _name_columns() -> int:
    return min(max(_line() - 72, NAMES[0]), NAMES[1])  # 72: for the rest of the line


def show(ended: Ended, display: "Display", stages: int) -> Any:
    """Return the display of a run on a terminal.

    Args:
        ended: receives the nodes that ended, with their outcomes.
        display: that is open.
        stages: of the run, in all.
    """
    from clepdg_flows.run.display import Show

    def done(outcomes: Sequence[tuple[Any, Any]]) -> None:
        ended.extend(outcomes)
        display.whole("stages", len(ended), stages)
        for line in _ended([pair for pair in outcomes if not pair[1].reused], display):
            display.say(line)

    def failed(node: Any, message: str) -> None:
        first = message.splitlines()[0]
        said = "stopped" if first == STOPPED else f"FAILED  {first}"
        display.say(f"{node.stage:17s} {node.name:{_name_columns()}s}  {said}")

    display.whole("stages", 0, stages)
    return Show(bar=lambda node, reason: display.bar(node.stage, node.name), done=done, failed=failed, say=display.say)


def _ended(computed: Sequence[tuple[Any, Any]], display: "Display") -> Iterator[str]:
    """Yield a line for stages of one kind and fold that were computed.

    Corpora whose index has other counts than its neighbour's have lines of their own.
    """
    from clepdg.report.tables import cut

    counts = {node.name: f"; {_counts(outcome.record)}" for node, outcome in computed if node.stage == "index"}
    for (stage, count), group in groupby(computed, key=lambda pair: (pair[0].stage, counts.get(pair[0].name, ""))):
        pairs = list(group)
        reasons = list(dict.fromkeys(outcome.reason for _, outcome in pairs))
        others = f" (and {counted(len(reasons) - 1, 'other reason')})" if len(reasons) > 1 else ""
        names = named([node.name for node, _ in pairs], getattr(pairs[0][0], "fold", None))
        seconds = display.seconds([f"{stage}/{node.name}" for node, _ in pairs])
        seconds = sum(outcome.seconds for _, outcome in pairs) if seconds is None else seconds
        each = " each" if count and len(pairs) > 1 else ""
        begin = f"{stage:17s} {names:{_name_columns()}s} {seconds:7.1f} s  "
        room = min(REASON, max(_line() - len(begin + others + count + each), 20))
        yield f"{begin}{cut(reasons[0], room)}{others}{count}{each}"


@contextmanager
def bar(stage: str, name: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a progress function of one thing that a command does."""
    from clepdg_flows.run.display import Display

    with Display() as display, display.bar(stage, name) as update:
        yield update
