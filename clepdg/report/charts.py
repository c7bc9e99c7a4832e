"""Charts in Vega-Lite: what all have in common, the script that draws them in a page, and files of them.

Methods differ in colour, shape and dash, so that no chart is read by colour alone. The colours are those of Okabe and
Ito, which colour-blind readers tell apart, without black and yellow, which are lost on dark or on light.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from clepdg.report.headline import FLOOR
from clepdg.report.section import Chart

PALETTE: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
NEUTRAL: Final = "#7a828a"  # of the floor and of what all others are held against
SHAPES: Final = {"circle": "●", "square": "■", "triangle-up": "▲", "diamond": "◆", "cross": "✚", "triangle-down": "▼"}
DASHES: Final[Mapping[str, tuple[int, ...]]] = {"solid": (1, 0), "dashed": (6, 3), "dotted": (2, 2)}
WIDTH: Final = 720  # of a chart's file, where the page fits it to its own width
INK: Final = "#1c2126"


@dataclass(frozen=True, kw_only=True)
class Style:
    """The look of a method's marks.

    Attributes:
        colour: as #rrggbb.
        shape: a name of SHAPES.
        line: a name of DASHES.
    """

    colour: str
    shape: str
    line: str

    @property
    def glyph(self) -> str:
        """The shape as a character."""
        return SHAPES[self.shape]


def styles(rows: Iterable[str], first: Sequence[str] = ()) -> dict[str, Style]:
    """Return row -> style.

    The first 6 differ in colour and shape, the first 18 in colour and dash.

    Args:
        first: rows that are styled before the others. The floor is grey and dashed.
    """
    found = {FLOOR: Style(colour=NEUTRAL, shape="square", line="dashed")}
    rows = [row for row in rows if row != FLOOR]
    for number, row in enumerate(sorted(rows, key=lambda row: row not in first)):
        again, colour = divmod(number, len(PALETTE))
        shape = list(SHAPES)[(colour + again) % len(SHAPES)]
        found[row] = Style(colour=PALETTE[colour], shape=shape, line=list(DASHES)[again % len(DASHES)])
    return found


def scales(titles: Mapping[str, str], look: Mapping[str, Style], first: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the encodings colour, shape and strokeDash of a field `row`.

    Args:
        titles: row -> its name in the legend.
        first: the rows of the legend.
    """
    rows = list(titles)
    names = " : ".join(f"datum.label === {row!r} ? {titles[row]!r}" for row in rows) + " : ''"
    legend = {
        "title": None,
        "labelExpr": names,
        "orient": "bottom",
        "columns": 2,
        "labelLimit": 340,
        "values": list(first),
    }
    ranges = {
        "color": [look[row].colour for row in rows],
        "shape": [look[row].shape for row in rows],
        "strokeDash": [DASHES[look[row].line] for row in rows],
    }
    return {
        channel: {
            "field": "row",
            "type": "nominal",
            "scale": {"domain": rows, "range": values},
            "legend": legend if channel != "strokeDash" else None,
        }
        for channel, values in ranges.items()
    }


def config(ink: str = "currentColor", font: str = "sans-serif") -> dict[str, Any]:
    """Return Vega-Lite's configuration, by default in the page's colour."""
    axis = {
        **{name: ink for name in ("labelColor", "titleColor", "domainColor", "tickColor", "gridColor")},
        **{"domainOpacity": 0.35, "tickOpacity": 0.35, "gridOpacity": 0.13, "labelOpacity": 0.85, "titleOpacity": 0.85},
        **{"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelPadding": 6},
    }
    words = {"labelColor": ink, "titleColor": ink, "labelFontSize": 12, "titleFontSize": 12, "symbolSize": 70}
    return {
        "background": "transparent",
        "font": font,
        "view": {"stroke": None},
        "axis": axis,
        "legend": {**words, "titleFontWeight": "normal"},
        "header": {name: words[name] for name in ("labelColor", "titleColor", "labelFontSize", "titleFontSize")},
        "title": {"color": ink, "subtitleColor": ink, "fontSize": 13, "anchor": "start", "fontWeight": 600},
        "text": {"color": ink, "fontSize": 12},
        "rule": {"color": ink},
        "range": {"category": list(PALETTE), "heatmap": {"scheme": "blues"}, "ramp": {"scheme": "blues"}},
        "point": {"filled": True, "size": 55},
        "line": {"strokeWidth": 2},
    }


@cache
def script() -> str:
    """Return the script that draws Vega-Lite charts in a browser.

    It sets `vegaEmbed`, and holds no end of a script element.
    """
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script")


def save(charts: Iterable[Chart], folder: Path) -> None:
    """Write NAME.svg and NAME.png of each chart, black on white.

    Equal charts give equal bytes.
    """
    import vl_convert

    folder.mkdir(parents=True, exist_ok=True)
    for chart in charts:
        spec = dict(chart.spec)
        if spec.get("width") == "container":
            spec["width"] = WIDTH
        own = {**config(INK), "background": "white", "padding": 12}
        (folder / f"{chart.name}.svg").write_text(vl_convert.vegalite_to_svg(spec, config=own), encoding="utf-8")
        (folder / f"{chart.name}.png").write_bytes(vl_convert.vegalite_to_png(spec, config=own, scale=2))
