"""Summarise a run, and lay the summary out for a terminal: warnings, verdict, and one table of main methods."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from clepdg.config.folds import LEAVE_OUT, PAIR
from clepdg.config.rows import MAIN_ROW
from clepdg.report import grid
from clepdg.report.grid import Column
from clepdg.report.headline import FLOOR, Headline
from clepdg.report.sections.limits import warnings
from clepdg.report.sections.picture import bounds
from clepdg.report.sections.verdict import sentences
from clepdg.report.tables import figure, group

if TYPE_CHECKING:
    import pandas as pd

SUMMARY: Final = "summary.json"  # in the folder of a report
WIDTH: Final = 80  # columns; a narrower table has one column of figures
NARROW: Final = 60  # the narrowest layout
WIDE: Final = 120  # the widest
LINES: Final = 20  # at most; `clep-dg run` has a few of its own, and ends with at most 30
COLUMN: Final = 22  # width of a column of figures
WARNED: Final = 5  # lines of warnings, if there are no more warnings
LEAST: Final = 4  # methods in the table, unless there are fewer
TABLE: Final = LEAST + 2  # its lines then
MAIN_ROWS: Final = (  # in the order in which the terminal has room for them
    FLOOR,
    MAIN_ROW,
    "clep-zero-shot",
    "text-none",
    "text-random",
    "encoder-probe",
    "clep-probe",
)
BEST: Final = "* "  # before the best method
WARNING: Final = "! "
FULL: Final = "--table full"  # of clep-dg run


def summary(
    cells: "pd.DataFrame", rows: Mapping[str, str], headline: Headline, facts: Mapping[str, Any], *, confidence: float
) -> dict[str, Any]:
    """Return a run's summary as JSON values.

    "warnings"; "sentences", those that have room; the table's "header" and "columns", the first one and the first of
    another kind (of pairs of corpora the first two); "methods" in the order of the rows: "title", "figures" and
    "place", the order in which methods have room (null: shown nowhere).

    Args:
        cells: what `evaluate.cells` returns.
        rows: row -> title, in the order of the table.
        headline: means over targets.
        facts: what was run, as in `write_report`.
        confidence: of the intervals.
    """
    columns = grid.columns(cells, group(cells, rows), headline)
    warned = warnings(cells, facts)
    free = LINES - len(_warned(warned, WIDTH)) - 2 - TABLE  # below warnings and two empty lines
    said: list[str] = []
    for sentence in sentences(columns, cells, rows, facts):
        if (lines := len(_item(sentence, WIDTH))) <= free:
            said.append(sentence)
            free -= lines
    lead = columns[0]
    chosen = [lead, *[column for column in columns[1:] if column.kind != lead.kind or column.kind == PAIR][:1]]
    present = [row for row in rows if any(row in column.values for column in chosen)]
    best = grid.ranked(lead, cells)[:2]
    wanted = dict.fromkeys((*best[:1], *MAIN_ROWS[:2], *best[1:], *MAIN_ROWS))
    order = [row for row in wanted if row in present] or present
    methods = [
        {
            "title": rows[row],
            "figures": [bounds(column.values[row].uar) if row in column.values else "" for column in chosen],
            "best": row in best[:1],
            "place": order.index(row) if row in order else None,
        }
        for row in present
    ]
    chance = "" if math.isnan(lead.chance) else f", chance {figure(lead.chance)}"
    return {
        "warnings": warned,
        "sentences": said,
        "header": f"UAR [{confidence:.0%}]{chance}",
        "columns": [_title(column)[: COLUMN - 2] for column in chosen],
        "methods": methods,
    }


def lay_out(own: Mapping[str, Any], width: int = WIDTH, more: str = f"with {FULL}") -> list[str]:
    """Return a summary's lines: on WIDTH columns or more, at most LINES.

    Args:
        own: what `summary` returns.
        width: columns of the terminal; text is laid out for NARROW to WIDE.
        more: where the other methods are.
    """
    width = min(max(width, NARROW), WIDE)
    warned = _warned(own["warnings"], width)
    verdict = [line for sentence in own["sentences"] for line in _item(sentence, width)]
    most = max(LINES - len(warned) - len(verdict) - 4, LEAST - 1)  # 4: two empty lines, the table's first and last
    shown = [one for one in own["methods"] if one["place"] is not None and one["place"] < most]
    parts = (warned, verdict, _table(own, shown, width, more))
    return [line.replace("\N{NO-BREAK SPACE}", " ") for part in parts if part for line in ("", *part)][1:]


def _item(sentence: str, width: int) -> list[str]:
    return textwrap.wrap(f"- {sentence}", width, subsequent_indent="  ")


def _warned(warnings: Sequence[str], width: int) -> list[str]:
    """Return the lines of warnings: one each, or two while WARNED allows it."""
    found: list[str] = []
    free = max(WARNED - len(warnings), 0)
    for each in warnings:
        lines = textwrap.wrap(WARNING + each, width, max_lines=1 + (free > 0), placeholder=" …", subsequent_indent="  ")
        free -= len(lines) - 1
        found += lines
    return found


def _table(own: Mapping[str, Any], shown: Sequence[Mapping[str, Any]], width: int, more: str) -> list[str]:
    """Return the lines of the table: a header, methods, and how many others."""
    columns = own["columns"] if width >= WIDTH else own["columns"][:1]
    room, usual = (each - len(BEST) - COLUMN * len(columns) for each in (width, WIDTH))
    room = max(min(room, max(len(one["title"]) for one in shown)), min(room, usual))
    lines = [own["header"].ljust(len(BEST) + room) + "".join(title.rjust(COLUMN) for title in columns)]
    for one in shown:
        title = textwrap.shorten(one["title"], room, placeholder="…")
        figures = "".join(each.rjust(COLUMN) for each in one["figures"][: len(columns)])
        lines.append(f"{BEST if one['best'] else ' ' * len(BEST)}{title:{room}}{figures}".rstrip())
    others = len(own["methods"]) - len(shown)
    return [*lines, f"{BEST}best" + (f"; {others} more {more}" if others else "")]


def _title(column: Column) -> str:
    if column.kind == PAIR:
        return column.name
    if column.kind == LEAVE_OUT:
        return f"{column.targets} left-out corpora" if column.targets > 1 else f"without {column.name}"
    return f"{column.targets} supervised corpora" if column.targets > 1 else "supervised"
