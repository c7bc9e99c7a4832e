"""Draw UAR with its interval, a panel for each fold and target."""

from collections.abc import Mapping, Sequence
from typing import Any

from clepdg.report.tables import Section, svg


def uar_chart(sections: Sequence[Section], rows: Mapping[str, str], main: str) -> str:
    """Draw UAR with its interval, one panel per section, as SVG.

    Args:
        rows: row -> title, in the order of the bars.
        main: the row whose bars are dark.
    """
    import matplotlib
    from matplotlib.figure import Figure

    present = {cell["row"] for section in sections for cell in section.cells}
    order = [row for row in rows if row in present][::-1]  # the first row on top
    columns = min(3, len(sections))
    lines = -(-len(sections) // columns)
    settings = {"svg.hashsalt": "clep-dg", "font.size": 8, "font.family": ["DejaVu Sans"]}
    with matplotlib.rc_context(settings):
        chart = Figure(figsize=(11, (0.24 * len(order) + 0.7) * lines), layout="constrained")
        axes = chart.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
        for axis, section in zip(axes, sections, strict=False):
            _panel(axis, section, order, main)
        for axis in axes:
            axis.tick_params(labelbottom=True)
        for axis in axes[len(sections) :]:
            axis.set_visible(False)
        axes[0].set_yticks(range(len(order)), [_short(rows[row]) for row in order])
        chart.supxlabel("UAR")
        return svg(chart, "UAR with intervals, one panel per fold and target; the dashed line is chance")


def _panel(axis: Any, section: Section, order: Sequence[str], main: str) -> None:
    for cell in section.cells:
        place = order.index(cell["row"])
        axis.barh(place, cell["uar"], color="#1f5fa8" if cell["row"] == main else "#a9bdd6", height=0.7)
        axis.plot([cell["low"], cell["high"]], [place, place], color="#222", linewidth=1)
    axis.axvline(section.cells[0]["chance"], color="#b33", linewidth=0.8, linestyle="--")
    axis.set(xlim=(0, 1), title=_short(section.title))
    axis.spines[["top", "right"]].set_visible(False)


def _short(title: str) -> str:
    return title.replace("$", r"\$") if len(title) <= 40 else title[:39].replace("$", r"\$") + "…"
