"""Draw the emotions of a recording over time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def draw_timeline(rows: Sequence[Mapping[str, Any]], labels: Sequence[str], title: str, path: Path) -> None:
    """Draw probabilities over time, and the most likely emotion as a band.

    Args:
        rows: pieces in their order: start and end in s, emotion, and a probability per label.
        labels: the columns of probabilities.
        title: of the picture.
        path: ends in .png or .svg.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    curves, band = figure.subplots(2, 1, sharex=True, height_ratios=(6, 1))
    colours = {label: f"C{number % 10}" for number, label in enumerate(labels)}
    middles = [(row["start"] + row["end"]) / 2 for row in rows]
    for label in labels:
        curves.plot(middles, [row[label] for row in rows], color=colours[label], marker="o", markersize=3, label=label)
    for row, (start, end) in zip(rows, _bounds(rows), strict=True):
        band.axvspan(start, end, color=colours[row["emotion"]], linewidth=0)
    curves.set(title=title, ylabel="probability", ylim=(-0.02, 1.02))
    curves.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    band.set(xlabel="time in s", xlim=(0, rows[-1]["end"]), yticks=[])
    figure.savefig(path, dpi=120)


def _bounds(rows: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Return the part of the band of each piece: overlaps are halved."""
    bounds = [[row["start"], row["end"]] for row in rows]
    for before, after in zip(bounds, bounds[1:], strict=False):
        if after[0] < before[1]:
            before[1] = after[0] = (after[0] + before[1]) / 2
    return [(start, end) for start, end in bounds]
