"""The verdict's picture: UAR of every method, left out and supervised."""

import math
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any, Final

from clepdg.report.charts import PALETTE, columns
from clepdg.report.grid import Bounds, Column
from clepdg.report.headline import FLOOR
from clepdg.report.section import Chart
from clepdg.report.tables import figure

HEIGHT: Final = 38  # of a method's name and its marks below it
LINES: Final = ((420, 46, 2), (700, 66, 1), (math.inf, 104, 1))  # a chart narrower than this: characters, lines
NAME: Final = "name"  # the place of a method's name, above its marks
ASIDE: Final = "aside"  # the line above the methods that do not count
ASIDE_WORDS: Final = "hollow, not compared: they use the target's own audio or labels"
UAR: Final = {"type": "quantitative", "scale": {"domain": [0, 1]}, "axis": {"tickCount": 5, "format": ".1f"}}


def picture(grid: Sequence[Column], rows: Mapping[str, str], counted: Sequence[str]) -> Chart | None:
    """Return the chart, the best method on top; None without figures.

    Methods that do not count stand below the others, with hollow marks.

    Args:
        grid: methods x targets.
        rows: row -> title.
        counted: the rows that may be the best of the first column, the best first.
    """
    lead = grid[0]
    beside = next((column for column in grid if column.kind != lead.kind and column.values), None)
    shown = {_name(column): column for column in (lead, beside) if column is not None}
    found = [row for row in rows if row in lead.values and not math.isnan(lead.values[row].uar[0])]
    if not found:
        return None
    aside = sorted((row for row in found if row not in counted), key=lambda row: -lead.values[row].uar[0])
    order = [*(row for row in counted if row in found), *[ASIDE] * bool(aside), *aside]
    data = [
        {"row": row, "method": rows[row], "where": where, "counts": row in counted, **_point(column.values[row].uar)}
        for where, column in shown.items()
        for row in order
        if row in column.values and not math.isnan(column.values[row].uar[0])
    ]
    titles = {row: "★ " * (row in counted[:1]) + rows.get(row, ASIDE_WORDS) for row in order}
    names = [{"row": row, "method": title, "where": NAME, **_fitted(title)} for row, title in titles.items()]
    where = list(shown)
    offset = {"field": "where", "type": "nominal", "scale": {"domain": [NAME, *where], "paddingOuter": 0.2}}
    scale = {"domain": order, "paddingInner": 0.12}
    place = {"y": {"field": "row", "type": "nominal", "axis": None, "scale": scale}, "yOffset": offset}
    legend = {
        **{"title": None, "orient": "top", "columns": columns(2), "offset": 22, "columnPadding": 40},
        **{"symbolOpacity": 1, "symbolStrokeWidth": 2},
    }
    colour = {"scale": {"domain": where, "range": list(PALETTE[:2])}}
    look = {"shape": {"scale": {"domain": where, "range": ["circle", "diamond"]}}, "fill": colour, "stroke": colour}
    encoding = {name: {"field": "where", "type": "nominal", "legend": legend, **own} for name, own in look.items()}
    hollow = {"condition": {"test": "datum.counts", "value": 1}, "value": 0}
    x = {**UAR, "title": "mean UAR" if lead.targets > 1 else "UAR"}
    tooltip = [{"field": name, "type": "nominal"} for name in ("method", "where", "UAR and interval")]
    fitted = "".join(f"width < {width} ? datum.below{width} : " for width, *_ in LINES[:-1]) + "datum.whole"
    layer = [
        *_lines(lead, x),
        {
            "mark": {"type": "rule", "strokeWidth": 2, "clip": True},
            "encoding": {"x": {"field": "low", **x}, "x2": {"field": "high"}, **place, "stroke": encoding["stroke"]},
        },
        {
            "mark": {"type": "point", "filled": False, "size": 80, "opacity": 1, "strokeWidth": 2},
            "encoding": {"x": {"field": "UAR", **x}, **place, **encoding, "fillOpacity": hollow, "tooltip": tooltip},
        },
        {
            "data": {"values": names},
            "mark": {
                "type": "text",
                "align": "left",
                "baseline": "middle",
                "lineHeight": 12,
                "fontSize": {"expr": "width < 420 ? 11 : 12"},
                "fontStyle": {"expr": f"datum.row === '{ASIDE}' ? 'italic' : 'normal'"},
                "fontWeight": {"expr": f"datum.row === '{order[0] if counted else ''}' ? 600 : 400"},
            },
            "encoding": {
                **{"x": {"value": 0}, **place, "text": {"value": {"expr": fitted}}},
                "tooltip": {"field": "method", "type": "nominal"},
            },
        },
    ]
    label = f"UAR of {len(found)} methods with intervals, {' and '.join(where)}; chance and the floor are lines."
    label += " ★ the best" + ", of those that do not use the target's own audio or labels" * bool(aside) + "."
    spec = {"width": "container", "height": HEIGHT * len(order), "data": {"values": data}}
    return Chart(name="methods", label=label, spec={**spec, "layer": layer})


def _fitted(title: str) -> dict[str, list[str]]:
    """Return a title cut to the lines that a chart of each width has."""
    found: dict[str, list[str]] = {}
    for width, most, lines in LINES:
        cut = wrap(title, most)
        if len(cut) > lines:
            cut[lines - 1 :] = [f"{cut[lines - 1][: most - 1]}…"]
        found["whole" if width == math.inf else f"below{width}"] = cut
    return found


def _name(column: Column) -> str:
    """Return a column's short name in the legend."""
    if column.targets > 1:
        return f"{'left out' if column.title.endswith('left-out corpora') else 'supervised'}, mean of {column.targets}"
    return column.title


def _point(uar: Bounds) -> dict[str, Any]:
    value, low, high = uar
    ends = {} if math.isnan(low) else {"low": round(low, 4), "high": round(high, 4)}
    return {"UAR": round(value, 4), "UAR and interval": bounds(uar), **ends}


def _lines(lead: Column, x: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the layers of the lines at chance and at the floor.

    Their names point away from each other.
    """
    lines = {"chance": lead.chance, "floor": lead.values[FLOOR].uar[0] if FLOOR in lead.values else math.nan}
    found = sorted((value, name) for name, value in lines.items() if not math.isnan(value))
    layers: list[dict[str, Any]] = []
    for number, (value, name) in enumerate(found):
        data = {"values": [{"line": name, "at": round(value, 4)}]}
        left = number == 0 and len(found) > 1
        side = {"align": "right" if left else "left", "dx": -4 if left else 4, "baseline": "bottom", "dy": -4}
        at = {"x": {"field": "at", **x}}
        dash = [2, 3] if name == "chance" else [7, 4]
        layers.append({"data": data, "mark": {"type": "rule", "strokeDash": dash, "opacity": 0.7}, "encoding": at})
        text = {**at, "y": {"value": 0}, "text": {"field": "line"}}
        layers.append({"data": data, "mark": {"type": "text", **side}, "encoding": text})
    return layers


def bounds(uar: Bounds) -> str:
    """Return UAR and its interval as text."""
    value, low, high = uar
    return figure(value) if math.isnan(low) else f"{figure(value)} [{figure(low)},\u00a0{figure(high)}]"
