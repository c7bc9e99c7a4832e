"""The verdict's picture: UAR of every method, left out and supervised."""

import math
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any, Final

from clepdg.config.rows import MAIN_ROW
from clepdg.report.charts import PALETTE, columns
from clepdg.report.grid import Bounds, Column
from clepdg.report.headline import FLOOR
from clepdg.report.section import Chart
from clepdg.report.tables import figure

HEIGHT: Final = 38  # of a method's name and its marks below it
LINE: Final = 52  # characters of a name where the chart is narrow
NAME: Final = "name"  # the place of a method's name, above its marks
UAR: Final = {"type": "quantitative", "scale": {"domain": [0, 1]}, "axis": {"tickCount": 5, "format": ".1f"}}


def picture(grid: Sequence[Column], rows: Mapping[str, str]) -> Chart | None:
    """Return the chart, the best method on top; None without figures.

    Args:
        grid: methods x targets.
        rows: row -> title.
    """
    lead = grid[0]
    beside = next((column for column in grid if column.kind != lead.kind and column.values), None)
    shown = {_name(column): column for column in (lead, beside) if column is not None}
    order = [row for row in rows if row in lead.values and not math.isnan(lead.values[row].uar[0])]
    order.sort(key=lambda row: -lead.values[row].uar[0])
    if not order:
        return None
    data = [
        {"row": row, "method": rows[row], "where": where, **_point(column.values[row].uar)}
        for where, column in shown.items()
        for row in order
        if row in column.values and not math.isnan(column.values[row].uar[0])
    ]
    names = [{"row": row, "method": rows[row], "lines": wrap(rows[row], LINE), "where": NAME} for row in order]
    where = list(shown)
    offset = {"field": "where", "type": "nominal", "scale": {"domain": [NAME, *where], "paddingOuter": 0.2}}
    place = {
        "y": {"field": "row", "type": "nominal", "sort": order, "axis": None, "scale": {"paddingInner": 0.12}},
        "yOffset": offset,
    }
    legend = {"title": None, "orient": "top", "columns": columns(2), "symbolOpacity": 1, "offset": 22}
    look = {
        "color": {"scale": {"domain": where, "range": list(PALETTE[:2])}},
        "shape": {"scale": {"domain": where, "range": ["circle", "diamond"]}},
    }
    encoding = {name: {"field": "where", "type": "nominal", "legend": legend, **own} for name, own in look.items()}
    x = {**UAR, "title": "mean UAR" if lead.targets > 1 else "UAR"}
    tooltip = [{"field": name, "type": "nominal"} for name in ("method", "where", "UAR and interval")]
    narrow = "width < 420 ? datum.lines : datum.method"
    bold = {"expr": f"datum.row === '{MAIN_ROW}' ? 600 : 400"}
    layer = [
        *_lines(lead, x),
        {
            "mark": {"type": "rule", "strokeWidth": 2, "clip": True},
            "encoding": {"x": {"field": "low", **x}, "x2": {"field": "high"}, **place, "color": encoding["color"]},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
            "encoding": {"x": {"field": "UAR", **x}, **place, **encoding, "tooltip": tooltip},
        },
        {
            "data": {"values": names},
            "mark": {
                "type": "text",
                "align": "left",
                "baseline": "middle",
                "lineHeight": 12,
                "fontSize": {"expr": "width < 420 ? 11 : 12"},
                "fontWeight": bold,
            },
            "encoding": {"x": {"value": 0}, **place, "text": {"value": {"expr": narrow}}},
        },
    ]
    label = f"UAR of {len(order)} methods with intervals, {' and '.join(where)}; chance and the floor are lines."
    spec = {"width": "container", "height": HEIGHT * len(order), "data": {"values": data}}
    return Chart(name="methods", label=label, spec={**spec, "layer": layer})


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
