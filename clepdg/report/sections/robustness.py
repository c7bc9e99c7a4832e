"""The report's section on corruptions: UAR against SNR, and in rooms and over lines."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from clepdg.config.conditions import CLEAN
from clepdg.config.folds import LEAVE_OUT
from clepdg.config.rows import MAIN_ROW
from clepdg.report import conditions
from clepdg.report.charts import scales, styles
from clepdg.report.headline import FLOOR, RANDOM
from clepdg.report.section import Chart, Section, Style, render
from clepdg.report.sections.losses import loss_table, losses, sentences
from clepdg.report.tables import figure

if TYPE_CHECKING:
    import pandas as pd

FIRST: Final = (
    FLOOR,
    "clep-zero-shot",
    "encoder-probe",
    "clep-probe",
    RANDOM,
    MAIN_ROW,
)  # shown before one asks for more
MEAN: Final = "mean over left-out targets"
UAR: Final = {
    **{"type": "quantitative", "title": "UAR", "scale": {"domain": [0, 1]}},
    "axis": {"tickCount": 5, "format": ".1f"},
}

Data = list[dict[str, Any]]


def robustness(cells: "pd.DataFrame", rows: Mapping[str, str]) -> Section:
    """Return the section; where all audio was clean, one that says so.

    Args:
        cells: what `evaluate.cells` returns.
        rows: row -> title, in the order of the tables.
    """
    found = conditions.corrupted(cells)
    if not (found["condition"] != CLEAN).any():
        return Section(id="robustness", title="Robustness", html=render("robustness", keys=()))
    present = set(found["row"])
    titles = {row: title for row, title in rows.items() if row in present}
    look = styles(titles, FIRST)
    first = [row for row in titles if row in FIRST] or list(titles)
    points, targets = _points(found, titles)
    charts = _charts(points, targets, titles, look, first)
    lost = losses(found, titles)
    return Section(
        id="robustness",
        title="Robustness",
        html=render(
            "robustness",
            keys=[(row, title, look[row], row in first) for row, title in titles.items()],
            targets=targets,
            charts=charts,
            sentences=list(sentences(lost, titles)) if lost else [],
            losses=(lost.where, *loss_table(lost, titles)) if lost else None,
            tables=[
                (title, *_table(header, lines, rows[MAIN_ROW] if MAIN_ROW in rows else ""))
                for title, header, lines in conditions.table(cells, rows)
            ],
        ),
        charts=charts,
    )


def _points(found: "pd.DataFrame", rows: Mapping[str, str]) -> tuple[Data, list[str]]:
    """Return a point for each method, condition and target, and the targets.

    The mean over left-out targets is the first of them.
    """
    import pandas as pd

    names = ["title", "row", "condition", "curve", "family", "snr", "uar", "chance"]
    own = found[names].rename(columns={"title": "target"})
    targets = list(dict.fromkeys(own["target"]))
    left_out = own[own["target"].str.startswith(LEAVE_OUT)]
    count = left_out["target"].nunique()
    if count > 1:
        by = ["row", "condition", "curve", "family", "snr"]
        groups = left_out.groupby(by, sort=False, dropna=False)
        mean = groups.agg(uar=("uar", "mean"), chance=("chance", "mean"), n=("uar", "count")).reset_index()
        mean = mean[mean["n"] == count].drop(columns="n").assign(target=MEAN)
        targets = [MEAN, *targets]
        own = pd.concat([mean, own])
    data = [
        {
            "target": point["target"],
            "row": point["row"],
            "method": rows[point["row"]],
            "condition": point["condition"],
            "curve": point["curve"],
            "family": point["family"],
            "snr": None if math.isnan(point["snr"]) else round(point["snr"]),
            "UAR": round(point["uar"], 4),
            "shown": figure(point["uar"]),
            "chance": round(point["chance"], 4),
        }
        for point in own.to_dict("records")
        if not math.isnan(point["uar"])
    ]
    return data, targets


def _charts(
    points: Data, targets: Sequence[str], rows: Mapping[str, str], look: Mapping[str, Style], first: Sequence[str]
) -> list[Chart]:
    """Return a chart for each noise of several SNRs, and one of the rest."""
    snrs: dict[str, set[int]] = {}
    for point in points:
        if point["snr"] is not None:
            snrs.setdefault(point["curve"], set()).add(point["snr"])
    curves = {curve: sorted(found, reverse=True) for curve, found in snrs.items() if len(found) > 1}
    clean = [point for point in points if point["condition"] == CLEAN]
    base: dict[str, Any] = {
        "width": "container",
        "params": [{"name": "shown", "value": list(first)}, {"name": "target", "value": targets[0]}],
        "transform": [{"filter": "indexof(shown, datum.row) >= 0 && datum.target === target"}],
    }
    encoding = scales(rows, look, first)
    tooltip = [{"field": name, "type": "nominal"} for name in ("method", "condition")]
    tooltip.append({"field": "shown", "type": "nominal", "title": "UAR"})
    chance = {
        "mark": {"type": "rule", "strokeDash": [2, 3], "opacity": 0.6},
        "encoding": {"y": {"field": "chance", "aggregate": "min", **UAR}},
    }
    charts = []
    for curve, order in curves.items():
        own = [{**point, "at": str(point["snr"])} for point in points if point["curve"] == curve]
        own += [{**point, "at": CLEAN} for point in clean]
        axis = {"labelAngle": 0, "grid": False}
        x: dict[str, Any] = {
            "field": "at",
            "type": "ordinal",
            "sort": [CLEAN, *map(str, order)],
            "title": "SNR, dB",
            "axis": axis,
        }
        y: dict[str, Any] = {"field": "UAR", **UAR}
        lines = {
            "mark": {"type": "line"},
            "encoding": {"x": x, "y": y, **_only(encoding, "color", "strokeDash"), "detail": {"field": "row"}},
        }
        marks = {
            "mark": {"type": "point", "opacity": 1, "filled": False},
            "encoding": {"x": x, "y": y, **_only(encoding, "color", "shape", "fill"), "tooltip": tooltip},
        }
        spec = {**base, "title": curve, "height": 220, "data": {"values": own}, "layer": [chance, lines, marks]}
        charts.append(Chart(name=f"snr-{curve}", label=f"UAR against SNR in {curve}, a line a method", spec=spec))
    others = [point for point in points if point["curve"] not in curves]
    order = list(dict.fromkeys(point["condition"] for point in others))
    if len(order) > 1:
        y = {
            "field": "condition",
            "type": "nominal",
            "sort": order,
            "title": None,
            "axis": {"grid": True, "ticks": False},
        }
        x = {"field": "UAR", **UAR}
        offset = {"field": "row", "type": "nominal", "scale": {"domain": list(rows), "paddingOuter": 3}}
        marks = {
            "mark": {"type": "point", "size": 80, "opacity": 1, "filled": False},
            "encoding": {
                **{"x": x, "y": y, "yOffset": offset, "tooltip": tooltip},
                **_only(encoding, "color", "shape", "fill"),
            },
        }
        at = {"mark": chance["mark"], "encoding": {"x": {"field": "chance", "aggregate": "min", **UAR}}}
        title = "other conditions" if curves else "clean and corrupted"
        spec = {**base, "title": title, "height": 48 * len(order), "data": {"values": others}, "layer": [at, marks]}
        charts.append(Chart(name="conditions", label="UAR by condition, a mark a method", spec=spec))
    return charts


def _only(encoding: Mapping[str, Any], *channels: str) -> dict[str, Any]:
    return {name: encoding[name] for name in channels}


def _table(
    header: Sequence[str], lines: Sequence[Sequence[str]], main: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the columns and lines of a table of conditions."""
    columns = [{"title": name, "sub": ""} for name in ("method", *header)]
    found = [
        {
            "title": title,
            "kind": "main" if title == main else "",
            "more": False,
            "cells": [{"text": text, "value": text.strip("[").partition(",")[0].replace("–", "")} for text in texts],
        }
        for title, *texts in lines
    ]
    return columns, found
