"""The report's first section: warnings, the verdict in three sentences, and its picture."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from clepdg.config.folds import LEAVE_OUT
from clepdg.config.rows import MAIN_ROW
from clepdg.report.facts import CREDIT, warnings
from clepdg.report.grid import Bounds, Column, best
from clepdg.report.headline import FLOOR, RANDOM, signed
from clepdg.report.section import Section, render
from clepdg.report.sections.picture import bounds, picture
from clepdg.report.tables import figure

if TYPE_CHECKING:
    import pandas as pd

SAID_BY_WARNINGS: Final = (
    "Real speech",
    "Synthetic speech",
    "Not the whole corpora",
)  # how a caption's sentences begin


def verdict(
    grid: Sequence[Column], cells: "pd.DataFrame", rows: Mapping[str, str], facts: Mapping[str, Any]
) -> Section:
    """Return the section.

    Args:
        grid: methods x targets.
        cells: what `evaluate.cells` returns.
        rows: row -> title, in the order of the tables.
        facts: what was run, as in `write_report`.
    """
    chart = picture(grid, rows)
    return Section(
        id="verdict",
        title="Verdict",
        html=render(
            "verdict",
            warnings=[*warnings(cells, facts), *_limits(str(facts.get("caption", "")))],
            sentences=list(sentences(grid, cells, rows, facts)),
            trained=trained(grid, facts),
            picture=chart,
        ),
        charts=[chart] if chart else [],
    )


def _limits(caption: str) -> list[str]:
    """Return the sentences of a caption that the warnings leave unsaid."""
    found = [each.strip().rstrip(".") + "." for each in caption.split(". ") if each.strip()]
    return [each for each in found if not each.startswith(SAID_BY_WARNINGS)]


def joined(names: Sequence[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1] if names else "") if part)


def trained(grid: Sequence[Column], facts: Mapping[str, Any]) -> str:
    """Return in a line what was trained on what."""
    corpora = [str(name) for name in facts.get("corpora", {})]
    left_out = [column.name for column in grid if column.kind == LEAVE_OUT and column.targets == 1]
    others = {len(corpora) - 1: "the other corpora", 1: "the other corpus"}.get(len(corpora) - 1, "the other corpora")
    found = f"{joined(left_out)}: each is evaluated whole, after training on {others} alone" if left_out else ""
    if len(left_out) == 1:
        learnt = joined([corpus for corpus in corpora if corpus not in left_out])
        found = f"{left_out[0]} is evaluated whole, after training on {learnt or others} alone"
    if any(column.kind != LEAVE_OUT for column in grid):
        found += ". " * bool(found) + "Supervised: test parts, after training on the training parts of all corpora"
    return found + "." * bool(found)


def sentences(
    grid: Sequence[Column], cells: "pd.DataFrame", rows: Mapping[str, str], facts: Mapping[str, Any]
) -> Iterator[str]:
    """Yield the verdict's sentences: the best method, the floor, ACPT."""
    lead = grid[0]
    row = best(lead, cells)
    if row is None:
        return
    beside = next((column for column in grid if column.kind != lead.kind and row in column.values), None)
    aside = [f"supervised {figure(beside.values[row].uar[0])}"] if beside and lead.kind == LEAVE_OUT else []
    if any(own.uar[0] > lead.values[row].uar[0] for own in lead.values.values()):
        aside.append("methods that use the target's audio or labels do not count")
    aside += [] if math.isnan(lead.chance) else [f"chance {figure(lead.chance)}"]
    mean = "mean UAR" if lead.targets > 1 else "UAR"
    found = f"{_where(lead)}, the best method is “{rows[row]}”: {mean} {bounds(lead.values[row].uar)}"
    yield f"{found} ({', '.join(aside)})." if aside else f"{found}."
    if FLOOR in lead.values and row != FLOOR:
        yield _against(lead, row, FLOOR, "the floor", lead.values[row].minus_floor, "It")
    if MAIN_ROW in lead.values and RANDOM in lead.values:
        ours = f"The classifier with ACPT's contexts ({figure(lead.values[MAIN_ROW].uar[0])})"
        said = _against(lead, MAIN_ROW, RANDOM, "that with random contexts", lead.values[MAIN_ROW].minus_random, ours)
        credit = str(facts.get(CREDIT, "")).partition(":")[0]
        yield said + (f" The credit rule says: {credit}." if credit else "")


def _where(column: Column) -> str:
    if column.kind == LEAVE_OUT:
        return f"On {column.targets} corpora that were left out" if column.targets > 1 else f"On {column.title}"
    return f"On {column.title.replace('mean over ', '')}"


def _against(column: Column, row: str, other: str, name: str, difference: Bounds | None, ours: str) -> str:
    """Return in words how a row stands against another."""
    uar, its = column.values[row].uar[0], column.values[other].uar[0]
    value, low, high = difference or (uar - its, math.nan, math.nan)
    ahead = "is level with" if not abs(round(value, 3)) else "is ahead of" if value > 0 else "is behind"
    by = "" if not abs(round(value, 3)) else f" by {figure(abs(value))}"
    said = f"{ours} {ahead} {name} ({figure(its)}){by}"
    if math.isnan(low):
        return f"{said}; a single target says nothing about other corpora."
    said += f", interval [{signed(low)},\u00a0{signed(high)}]"
    return f"{said}." if low > 0 or high < 0 else f"{said}, which includes 0: other corpora may turn it round."
