"""Charts of trainings: losses and validation UAR against epochs, a line for each fold and seed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from clepdg.report.charts import DARK, DASHES, columns
from clepdg.report.section import SHAPES, Chart, Style

COLOURS: Final = tuple(DARK)
MOST_FOLDS: Final = 8
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Course:
    """The course of one training.

    Attributes:
        metrics: metric -> (epoch, value), in order.
        best: the epoch whose weights were kept; None: the last one's.
    """

    fold: str
    seed: str
    metrics: dict[str, Points] = field(default_factory=dict)
    best: int | None = None


def nominal(name: str, values: Sequence[str], channel: Sequence[Any], **legend: Any) -> dict[str, Any]:
    """Return an encoding of a field by colours or shapes.

    In a fixed order; values beyond them begin again.
    """
    found = [channel[number % len(channel)] for number in range(len(values))]
    shown = {"title": None, "orient": "bottom", "columns": columns(2), **legend}
    return {"field": name, "type": "nominal", "scale": {"domain": [*values], "range": found}, "legend": shown}


def curve_chart(courses: Sequence[Course], metric: str, name: str, title: str, unit: str) -> Chart | None:
    """Return the chart of a metric; None where no training has recorded it.

    Args:
        title: what it shows.
        unit: what the y axis counts.
    """
    folds = list(dict.fromkeys(each.fold for each in courses if each.metrics.get(metric)))[:MOST_FOLDS]
    drawn = [each for each in courses if each.fold in folds]
    if not drawn:
        return None
    whole = all(epoch == int(epoch) for each in drawn for epoch, _ in each.metrics.get(metric, ()))
    values = [
        {"fold": each.fold, "seed": each.seed, "epoch": epoch, "value": value, "best": whole and epoch == each.best}
        for each in drawn
        for epoch, value in each.metrics.get(metric, ())
    ]
    x: dict[str, Any] = {"field": "epoch", "type": "quantitative", "title": "epoch", "axis": {"tickCount": 6}}
    if whole:
        last = int(max(epoch for each in drawn for epoch, _ in each.metrics.get(metric, ())))
        x["axis"] = {"values": [*range(1, last + 1, 1 + last // 12)], "format": "d"}
    y = {"field": "value", "type": "quantitative", "title": unit, "scale": {"zero": False}}
    looks = {
        fold: Style(
            colour=COLOURS[number],
            shape=[*SHAPES][number % len(SHAPES)],
            line=[*DASHES][number // len(SHAPES)],
        )
        for number, fold in enumerate(folds)
    }
    colour = nominal("fold", folds, [look.colour for look in looks.values()])
    shape = nominal("fold", folds, [look.shape for look in looks.values()])
    dash = {**nominal("fold", folds, [DASHES[look.line] for look in looks.values()]), "legend": None}
    tooltip = [{"field": each, "type": "nominal"} for each in ("fold", "seed", "epoch", "value")]
    line = {
        "mark": {"type": "line", "strokeWidth": 1.5},
        "encoding": {"x": x, "y": y, "color": colour, "strokeDash": dash, "detail": {"field": "seed"}},
    }
    marks: dict[str, Any] = {
        "mark": {"type": "point", "size": 45 if whole else 18},
        "encoding": {"x": x, "y": y, "color": colour, "shape": shape, "tooltip": tooltip},
    }
    layers = [line, marks]
    if any(value["best"] for value in values):
        ring = {"type": "point", "shape": "circle", "filled": False, "size": 190, "strokeWidth": 1.5}
        kept = {"x": x, "y": y, "color": colour}
        layers.append({"transform": [{"filter": "datum.best"}], "mark": ring, "encoding": kept})
    spec = {"width": "container", "height": 220, "title": title, "data": {"values": values}, "layer": layers}
    return Chart(name=name, label=f"{title} by epoch, a line for each fold and seed", spec=spec, keys=looks)
