"""The report's first section: warnings, the verdict in three sentences, and its picture."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from clepdg.config.folds import LEAVE_OUT
from clepdg.config.rows import MAIN_ROW
from clepdg.report.charts import PALETTE
from clepdg.report.facts import CREDIT
from clepdg.report.grid import Bounds, Column, best
from clepdg.report.headline import FLOOR, RANDOM, signed
from clepdg.report.section import Chart, Section, render
from clepdg.report.summary import warnings
from clepdg.report.tables import figure

if TYPE_CHECKING:
    import pandas as pd

SAID_BY_WARNINGS: Final = (
    "Real speech",
    "Synthetic speech",
    "Not the whole corpora",
)  # how a caption's sentences begin
LINE: Final = 30  # characters of a method's name in a line of the picture


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
    where = _where(lead)
    found = f"{_upper(rows[row])} is best {where}: UAR {_bounds(lead.values[row].uar)}"
    chance = "" if math.isnan(lead.chance) else f"; chance is {figure(lead.chance)}"
    beside = next(
        (c for c in grid if c.kind != lead.kind and row in c.values and c.targets == max(_sizes(grid, c))), None
    )
    also = f", supervised {figure(beside.values[row].uar[0])}" if beside and lead.kind == LEAVE_OUT else ""
    yield f"{found}{also}{chance}."
    if FLOOR in lead.values and row != FLOOR:
        yield _against(
            lead, row, FLOOR, "the floor (log-mel statistics + logistic regression)", lead.values[row].minus_floor
        )
    if MAIN_ROW in lead.values and RANDOM in lead.values:
        said = _against(
            lead, MAIN_ROW, RANDOM, "random contexts", lead.values[MAIN_ROW].minus_random, "ACPT's contexts"
        )
        credit = str(facts.get(CREDIT, "")).partition(":")[0]
        yield said + (f" By the credit rule ACPT is {credit}." if credit else "")


def _sizes(grid: Sequence[Column], of: Column) -> list[int]:
    return [column.targets for column in grid if column.kind == of.kind]


def _where(column: Column) -> str:
    if column.kind != LEAVE_OUT:
        return f"on {column.title}" if column.targets > 1 else f"on {column.title}"
    return f"on {column.targets} corpora that were left out" if column.targets > 1 else f"on {column.name}, left out"


def _against(column: Column, row: str, other: str, name: str, difference: Bounds | None, ours: str = "That") -> str:
    """Return how a row stands against another, and whether beyond the interval."""
    uar, its = column.values[row].uar[0], column.values[other].uar[0]
    if difference is None:
        said = f"{ours} is {signed(uar - its)} against {name}, {figure(uar)} against {figure(its)}"
        return f"{said}; one target says nothing about other corpora."
    value, low, high = difference
    if low > 0 or high < 0:
        verdict = "beyond the interval over targets"
    else:
        verdict = "within the interval over targets: other corpora may turn it round"
    interval = f"[{signed(low)}, {signed(high)}]"
    be = "is" if ours == "That" else "reach"
    shown = "" if ours == "That" else f" {figure(uar)},"
    return f"{ours} {be}{shown} {signed(value)} {interval} against {name}, which has {figure(its)}: {verdict}."


def _upper(words: str) -> str:
    return words[0].upper() + words[1:]


def _bounds(bounds: Bounds) -> str:
    value, low, high = bounds
    return figure(value) if math.isnan(low) else f"{figure(value)} [{figure(low)}, {figure(high)}]"


def wrapped(title: str) -> str:
    """Break a title into lines of at most LINE characters."""
    import textwrap

    return "\n".join(textwrap.wrap(title, LINE))


def picture(grid: Sequence[Column], rows: Mapping[str, str]) -> Chart | None:
    """Return the chart of UAR by method, left out and supervised; None where there is nothing to draw."""
    lead = grid[0]
    beside = next((column for column in grid if column.kind != lead.kind and column.values), None)
    shown = [column for column in (lead, beside) if column is not None]
    order = sorted(
        (row for row in rows if row in lead.values and not math.isnan(lead.values[row].uar[0])),
        key=lambda row: -lead.values[row].uar[0],
    )
    if not order:
        return None
    data = [
        {
            "method": wrapped(rows[row]),
            "where": column.title,
            "UAR": round(column.values[row].uar[0], 4),
            "interval": _bounds(column.values[row].uar),
            **_ends(column.values[row].uar),
        }
        for column in shown
        for row in order
        if row in column.values and not math.isnan(column.values[row].uar[0])
    ]
    lines = [("chance", lead.chance)] if not math.isnan(lead.chance) else []
    lines += [("floor", lead.values[FLOOR].uar[0])] if FLOOR in lead.values else []
    where = [column.title for column in shown]
    y: dict[str, Any] = {
        "field": "method",
        "type": "nominal",
        "sort": [wrapped(rows[row]) for row in order],
        "title": None,
        "axis": {
            "labelExpr": "split(datum.label, '\\n')",
            "labelLimit": 240,
            "ticks": False,
            "domain": False,
            "grid": True,
        },
    }
    offset = {"field": "where", "type": "nominal", "sort": where, "scale": {"paddingOuter": 0.9}}
    look = {
        "color": {"field": "where", "type": "nominal", "scale": {"domain": where, "range": list(PALETTE[:2])}},
        "shape": {"field": "where", "type": "nominal", "scale": {"domain": where, "range": ["circle", "diamond"]}},
    }
    for channel in look.values():
        channel["legend"] = {"title": None, "orient": "top", "labelLimit": 320, "direction": "vertical"}
    x = {"type": "quantitative", "scale": {"domain": [0, 1]}, "title": "mean UAR" if lead.targets > 1 else "UAR"}
    tooltip = [{"field": name, "type": "nominal"} for name in ("method", "where")] + [
        {"field": "interval", "type": "nominal", "title": "UAR, interval"}
    ]
    layer: list[dict[str, Any]] = [
        {
            "data": {"values": [{"line": name, "UAR": round(value, 4)} for name, value in lines]},
            "layer": [
                {
                    "mark": {"type": "rule", "strokeWidth": 1.5},
                    "encoding": {
                        "x": {"field": "UAR", **x},
                        "strokeDash": {
                            "field": "line",
                            "type": "nominal",
                            "scale": {"domain": ["chance", "floor"], "range": [[2, 3], [7, 4]]},
                            "legend": None,
                        },
                        "opacity": {"value": 0.6},
                    },
                },
                {
                    "mark": {"type": "text", "align": "left", "dx": 4, "baseline": "bottom", "dy": -3},
                    "encoding": {"x": {"field": "UAR", **x}, "y": {"value": 0}, "text": {"field": "line"}},
                },
            ],
        },
        {
            "mark": {"type": "rule", "strokeWidth": 2.5, "opacity": 0.55, "clip": True},
            "encoding": {
                "x": {"field": "low", **x},
                "x2": {"field": "high"},
                "y": y,
                "yOffset": offset,
                "color": look["color"],
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 75, "opacity": 1},
            "encoding": {"x": {"field": "UAR", **x}, "y": y, "yOffset": offset, **look, "tooltip": tooltip},
        },
    ]
    label = f"UAR of {len(order)} methods with intervals: {' and '.join(where)}; chance and the floor are lines"
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "height": 34 * len(order),
        "data": {"values": data},
        "layer": layer,
    }
    return Chart(name="methods", label=label, spec=spec)


def _ends(bounds: Bounds) -> dict[str, float]:
    _, low, high = bounds
    return {} if math.isnan(low) else {"low": round(low, 4), "high": round(high, 4)}
