"""Charts in Vega-Lite: what all have in common, their script, and files of them.

Methods differ in shape, dash and filling as well as in colour, so that no chart is read by colour alone. The hues are
those of Okabe and Ito, which colour-blind readers tell apart, as dark or as light as the paper asks for.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from clepdg.report.headline import FLOOR
from clepdg.report.section import FLOOR_SHAPE, SHAPES, Chart, Style

PALETTE: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#a87400", "#2f93cf")
NEUTRAL: Final = "#6b737b"  # of the floor and of what all others are held against
OTHER: Final = "#7f6d00"  # where a chart needs an eighth
DARK: Final = {  # each colour on dark paper
    **dict(zip(PALETTE, ("#4ba3e0", "#f0803c", "#2fc498", "#e59cc5", "#f0b429", "#8fd0f7"), strict=True)),
    NEUTRAL: "#a3adb7",
    OTHER: "#d9c95a",
}
DASHES: Final[Mapping[str, tuple[int, ...]]] = {"solid": (1, 0), "dashed": (6, 3), "dotted": (2, 2)}
WIDTH: Final = 720  # of a chart's file, where the page fits it to its own width
INK: Final = "#1c2126"


def styles(rows: Iterable[str], first: Sequence[str] = ()) -> dict[str, Style]:
    """Return row -> style.

    The first 12 differ in shape and filling, the first 18 in shape and dash; the floor has a shape of its own.

    Args:
        first: rows that are styled before the others.
    """
    found = {FLOOR: Style(colour=NEUTRAL, shape=FLOOR_SHAPE, line="dashed")}
    rows = [row for row in rows if row != FLOOR]
    for number, row in enumerate(sorted(rows, key=lambda row: row not in first)):
        again, colour = divmod(number, len(PALETTE))
        shape = list(SHAPES)[(colour + again) % len(SHAPES)]
        line = list(DASHES)[again % len(DASHES)]
        found[row] = Style(colour=PALETTE[colour], shape=shape, line=line, filled=again % 2 == 0)
    return found


def scales(titles: Mapping[str, str], look: Mapping[str, Style], first: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the encodings color, shape, fill and strokeDash of a field `row`.

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
        "columns": columns(2),
        "values": list(first),
    }
    ranges = {
        "color": [look[row].colour for row in rows],
        "shape": [look[row].shape for row in rows],
        "fill": [look[row].fill for row in rows],
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


def columns(wide: int) -> dict[str, str]:
    """Return a legend's columns: fewer where the chart is narrow."""
    return {"expr": f"width < 420 ? {(wide + 1) // 2} : {wide}"}


def colours() -> str:
    """Return the styles of charts' colours, on light and on dark paper."""
    names = {colour: f"--c-{colour[1:]}" for colour in DARK}
    light = "".join(f"{name}:{colour};" for colour, name in names.items())
    dark = "".join(f"{name}:{DARK[colour]};" for colour, name in names.items())
    rules = "".join(
        f'.chart [{channel}="{colour}"]{{{channel}:var({name})}}\n'
        for colour, name in names.items()
        for channel in ("fill", "stroke")
    )
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}\n{rules}"


def config(ink: str = "currentColor", font: str = "sans-serif") -> dict[str, Any]:
    """Return Vega-Lite's configuration, by default in the page's colour.

    It cuts no label.
    """
    whole = {"labelLimit": 0, "titleLimit": 0}
    axis = {
        **{name: ink for name in ("labelColor", "titleColor", "domainColor", "tickColor", "gridColor")},
        **{"domainOpacity": 0.35, "tickOpacity": 0.35, "gridOpacity": 0.13, "labelOpacity": 0.85, "titleOpacity": 0.85},
        **{"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelPadding": 6, **whole},
    }
    words = {**whole, "labelColor": ink, "titleColor": ink, "labelFontSize": 12, "titleFontSize": 12, "symbolSize": 70}
    return {
        "background": "transparent",
        "font": font,
        "view": {"stroke": None},
        "axis": axis,
        "legend": {**words, "titleFontWeight": "normal"},
        "header": {name: value for name, value in words.items() if name != "symbolSize"},
        "title": {"limit": 0, "color": ink, "subtitleColor": ink, "fontSize": 13, "anchor": "start", "fontWeight": 600},
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
        svg = _renumbered(vl_convert.vegalite_to_svg(spec, config=own))
        (folder / f"{chart.name}.svg").write_text(svg, encoding="utf-8")
        (folder / f"{chart.name}.png").write_bytes(vl_convert.vegalite_to_png(spec, config=own, scale=2))


def _renumbered(svg: str) -> str:
    """Number a picture's clip paths from 1.

    vl-convert counts them on from picture to picture of a process.
    """
    found = list(dict.fromkeys(re.findall(r"\bclip\d+\b", svg)))
    return re.sub(r"\bclip\d+\b", lambda name: f"clip{found.index(name[0]) + 1}", svg)
