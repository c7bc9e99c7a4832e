"""A chart of calibration: how often predictions are right against how sure they are."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from clepdg.config.conditions import CLEAN
from clepdg.evaluation.predictions import probability_columns
from clepdg.report.charts import DASHES, styles
from clepdg.report.section import Chart, Style
from clepdg.report.sections.curves import nominal
from clepdg.report.sections.listen import shown_folds
from clepdg.report.sections.robustness import FIRST

if TYPE_CHECKING:
    import pandas as pd

BINS: Final = 8  # of equally many predictions


def calibration_points(
    predictions: "pd.DataFrame", labels: Mapping[str, tuple[str, ...]], rows: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return confidence and share of right predictions in bins.

    Of equally many predictions of few methods, on clean audio, over all seeds and over the folds that leave a corpus
    out.

    Args:
        labels: fold -> its label set.
        rows: row -> title.
    """
    own = predictions[(predictions["condition"] == CLEAN) & predictions["fold"].isin(shown_folds(labels))]
    points = []
    for row in (row for row in rows if row in FIRST):
        part = own[own["row"] == row]
        if part.empty:
            continue
        parts = [(labels[str(fold)], each) for fold, each in part.groupby("fold", observed=True)]
        found = [each[probability_columns(names)].to_numpy(np.float64).max(axis=1) for names, each in parts]
        confidence = np.concatenate(found)
        right = np.concatenate([(each["true"].astype(str) == each["predicted"].astype(str)) for _, each in parts])
        order = np.argsort(confidence, kind="stable")
        for chosen in np.array_split(order, min(BINS, len(order))):
            sure, share = float(confidence[chosen].mean()), float(right[chosen].mean())
            points.append({"row": row, "method": rows[row], "sure": round(sure, 4), "right": round(share, 4)})
            points[-1]["predictions"] = len(chosen)
    return points


def calibration_chart(points: list[dict[str, Any]], rows: Mapping[str, str]) -> Chart | None:
    """Return the chart; None without points."""
    if not points:
        return None
    found = {point["row"]: point["method"] for point in points}
    looks: dict[str, Style] = {title: styles(rows, FIRST)[row] for row, title in found.items()}
    own, titles = list(looks.values()), list(looks)
    colour = nominal("method", titles, [style.colour for style in own], columns=1)
    shape = nominal("method", titles, [style.shape for style in own], columns=1)
    dash = nominal("method", titles, [DASHES[style.line] for style in own], columns=1)
    x: dict[str, Any] = {"field": "sure", "type": "quantitative", "title": "probability of the predicted label"}
    y: dict[str, Any] = {"field": "right", "type": "quantitative", "title": "share that is right"}
    for each in (x, y):
        each |= {"scale": {"domain": [0, 1]}, "axis": {"tickCount": 5}}
    tooltip = [{"field": name, "type": "nominal"} for name in ("method", "sure", "right", "predictions")]
    layers = [
        {
            "data": {"values": [{"sure": 0, "right": 0}, {"sure": 1, "right": 1}]},
            "mark": {"type": "line", "strokeDash": [2, 3], "strokeWidth": 1, "opacity": 0.6},
            "encoding": {"x": x, "y": y},
        },
        {
            "mark": {"type": "line", "strokeWidth": 1.5},
            "encoding": {"x": x, "y": y, "color": colour, "strokeDash": dash},
        },
        {
            "mark": {"type": "point"},
            "encoding": {"x": x, "y": y, "color": colour, "shape": shape, "tooltip": tooltip},
        },
    ]
    label = "Share of right predictions against the probability of the predicted label, a line a method"
    spec = {"width": "container", "height": 320, "data": {"values": points}, "layer": layers}
    return Chart(name="calibration", label=label, spec=spec, keys=looks)
