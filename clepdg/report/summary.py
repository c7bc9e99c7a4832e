"""Write a run's summary for 80 columns, and fit it to a terminal: warnings, verdict, and one table of main methods."""

import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
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

WIDTH: Final = 80  # columns
NARROW: Final = 60  # the narrowest terminal that a summary is fitted to
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
HEADER: Final = "UAR ["  # begins the table
BEST: Final = "* "  # before the best method
WARNING: Final = "! "
FULL: Final = "--table full"  # of clep-dg run


def summary(
    cells: "pd.DataFrame", rows: Mapping[str, str], headline: Headline, facts: Mapping[str, Any], *, confidence: float
) -> str:
    """Return the summary, of at most LINES lines of at most WIDTH columns.

    Sentences, and then methods, that do not fit are left to the report.

    Args:
        cells: what `evaluate.cells` returns.
        rows: row -> title, in the order of the table.
        headline: means over targets.
        facts: what was run, as in `write_report`.
        confidence: of the intervals.
    """
    columns = grid.columns(cells, group(cells, rows), headline)
    warned = list(_warned(warnings(cells, facts)))
    free = LINES - len(warned) - 2 - TABLE  # below warnings and two empty lines, with the fewest methods
    verdict: list[str] = []
    for sentence in sentences(columns, cells, rows, facts):
        lines = textwrap.wrap(f"- {sentence}", WIDTH, subsequent_indent="  ")
        if len(verdict) + len(lines) <= free:
            verdict += lines
    table = _table(cells, rows, columns, confidence, most=LEAST + free - len(verdict))
    parts = "\n\n".join("\n".join(part) for part in (warned, verdict, table) if part)
    return parts.replace("\N{NO-BREAK SPACE}", " ") + "\n"


def _warned(warnings: Sequence[str]) -> Iterator[str]:
    """Yield the lines of warnings: one each, or two while WARNED allows it."""
    free = max(WARNED - len(warnings), 0)
    for each in warnings:
        lines = textwrap.wrap(WARNING + each, WIDTH, max_lines=1 + (free > 0), placeholder=" …", subsequent_indent="  ")
        free -= len(lines) - 1
        yield from lines


def _table(
    cells: "pd.DataFrame", rows: Mapping[str, str], columns: Sequence[Column], confidence: float, most: int
) -> Iterator[str]:
    """Yield the lines of the table: main methods, and how many others.

    It has the first column, and the first one of another kind; of pairs of corpora the first two.

    Args:
        most: methods that have room; LEAST of them are the floor, the best, the next and the main one.
    """
    lead = columns[0]
    chosen = [lead, *[column for column in columns[1:] if column.kind != lead.kind or column.kind == PAIR][:1]]
    first = grid.ranked(lead, cells)[:2]
    present = [row for row in rows if any(row in column.values for column in chosen)]
    wanted = [row for row in dict.fromkeys((*first, FLOOR, MAIN_ROW, *MAIN_ROWS)) if row in present]
    shown = [row for row in present if row in (wanted or present)[:most]]
    width = WIDTH - len(BEST) - COLUMN * len(chosen)
    header = f"{HEADER}{confidence:.0%}]" + ("" if math.isnan(lead.chance) else f", chance {figure(lead.chance)}")
    yield header.ljust(len(BEST) + width) + "".join(_title(column)[: COLUMN - 2].rjust(COLUMN) for column in chosen)
    for row in shown:
        title = textwrap.shorten(rows[row], width, placeholder="…")
        found = [bounds(column.values[row].uar) if row in column.values else "" for column in chosen]
        mark = BEST if row in first[:1] else " " * len(BEST)
        yield f"{mark}{title:{width}}{''.join(each.rjust(COLUMN) for each in found)}".rstrip()
    others = len(present) - len(shown)
    yield _end(others)


def _end(others: int) -> str:
    return f"{BEST}best" + (f"; {others} more with {FULL}" if others else "")


def _title(column: Column) -> str:
    if column.kind == PAIR:
        return column.name
    if column.kind == LEAVE_OUT:
        return f"{column.targets} left-out corpora" if column.targets > 1 else f"without {column.name}"
    return f"{column.targets} supervised corpora" if column.targets > 1 else "supervised"


def fitted(text: str, width: int, rows: Mapping[str, str]) -> str:
    """Return a summary for a terminal that is not of WIDTH columns.

    Sentences fill its width, between NARROW and WIDE. A narrower table has one column of figures, and fewer methods
    where sentences take more lines; a wider one has whole titles.

    Args:
        text: what `summary` returns.
        width: columns of the terminal.
        rows: as `summary` got them.
    """
    width = min(max(width, NARROW), WIDE)
    *prose, table = text.rstrip("\n").split("\n\n")
    if width == WIDTH or not table.startswith(HEADER):
        return text
    parts = ["\n".join(line for each in unwrapped(part) for line in wrapped(each, width)) for part in prose]
    most = LINES - sum(part.count("\n") + 2 for part in parts) - 2
    return "\n\n".join([*parts, "\n".join(_fitted_table(table.splitlines(), width, rows, most))]) + "\n"


def unwrapped(text: str, width: int = 0) -> list[str]:
    """Return the paragraphs of wrapped text.

    A line continues the paragraph where it is indented or, with a width, where its first word did not fit before it.
    """
    found: list[str] = []
    for line in text.splitlines():
        before = len(found[-1].splitlines()[-1]) if found and found[-1] else 0
        if before and (before + 1 + len(line.split(" ")[0]) > width if width else line.startswith(" ")):
            found[-1] += "\n" + line.strip()
        else:
            found.append(line)
    return [re.sub(r"(?<=\w-)\n", "", each).replace("\n", " ") for each in found]


def wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a paragraph, broken between words.

    Later lines of an item of a list are indented.
    """
    indent = "  " if text.startswith(("- ", WARNING)) else ""
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False) or [""]


def _fitted_table(lines: Sequence[str], width: int, rows: Mapping[str, str], most: int) -> Iterator[str]:
    header, *body, end = lines
    pair = bool(header[WIDTH - 2 * COLUMN : WIDTH - COLUMN].strip())  # of columns; one column leaves that empty
    place = WIDTH - COLUMN * (1 + pair)  # of the first figure
    known = {textwrap.shorten(title, place - len(BEST), placeholder="…"): row for row, title in rows.items()}
    shown = {line: known.get(line[len(BEST) : place].strip(), "") for line in body}
    first = sorted(body, key=lambda line: (not line.startswith(BEST), _rank(shown[line])))
    kept = [line for line in body if line in first[: max(most, LEAST - 1)]]
    titles = {line: rows.get(shown[line], line[len(BEST) : place].strip()) for line in kept}
    figures = width >= WIDTH or not pair
    room = width - COLUMN * (1 + (pair and figures)) - len(BEST)
    room = min(room, max(len(each) for each in (header[:place].rstrip(), *titles.values())))
    until = WIDTH if figures else WIDTH - COLUMN
    yield f"{header[:place].rstrip():{len(BEST) + room}}{header[place:until]}".rstrip()
    for line in kept:
        title = textwrap.shorten(titles[line], room, placeholder="…")
        yield f"{line[: len(BEST)]}{title:{room}}{line[place:until]}".rstrip()
    counted = re.search(r"; (\d+) more", end)
    yield _end(len(body) - len(kept) + (int(counted[1]) if counted else 0))


def _rank(row: str) -> int:
    """Return a method's place among those that a narrow table keeps."""
    order = (FLOOR, MAIN_ROW, *MAIN_ROWS)
    return order.index(row) if row in order else len(order)
