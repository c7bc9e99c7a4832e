"""A section of the report's page: its HTML, its charts and the look of their keys."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


SHAPES: Final = {  # filled and hollow
    "circle": "●○",
    "square": "■□",
    "triangle-up": "▲△",
    "diamond": "◆◇",
    "cross": "✚✛",
    "triangle-down": "▼▽",
}
FLOOR_SHAPE: Final = "triangle-right"


@dataclass(frozen=True, kw_only=True)
class Style:
    """The look of a method's marks.

    Attributes:
        colour: as #rrggbb.
        shape: a name of SHAPES, or FLOOR_SHAPE.
        line: solid, dashed or dotted.
        filled: whether the shape is filled.
    """

    colour: str
    shape: str
    line: str
    filled: bool = True

    @property
    def glyph(self) -> str:
        """The shape as a character."""
        return {**SHAPES, FLOOR_SHAPE: "▶▷"}[self.shape][not self.filled]

    @property
    def fill(self) -> str:
        """The colour inside the shape."""
        return self.colour if self.filled else "transparent"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A Vega-Lite chart with its data.

    Attributes:
        name: lower-case words joined by hyphens, unique on the page; also names its SVG and PNG beside the page.
        label: one sentence that says what it shows.
        spec: a whole Vega-Lite specification, without colours of text, axes and background (the page sets them).
        keys: name -> look, which the page writes below the chart in place of the legends; files have the legends.
    """

    name: str
    label: str
    spec: Mapping[str, Any]
    keys: Mapping[str, Style] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of the page.

    Attributes:
        id: its anchor.
        title: its heading.
        html: the content below the heading; `chart` places a chart in it.
        charts: every chart that `html` places.
    """

    id: str
    title: str
    html: "Markup"
    charts: Sequence[Chart] = ()


@cache
def templates() -> "Environment":
    """Return the environment of the templates; it escapes values."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from clepdg.report.glossary import anchor, linked
    from clepdg.report.tables import figure as number

    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(figure=number, linked=linked, anchor=anchor)
    found.globals["chart"] = figure
    return found


def render(template: str, **values: Any) -> "Markup":
    """Render a template of folder `templates`.

    Args:
        template: its name without ".html.j2".
    """
    from markupsafe import Markup

    return Markup(templates().get_template(f"{template}.html.j2").render(**values))


def figure(chart: Chart) -> "Markup":
    """Return the element for a chart, and its keys below it."""
    return render("chart", chart=chart)


def specs(sections: Sequence[Section]) -> "Markup":
    """Return all charts as JSON that may stand in a script element."""
    return as_json({chart.name: chart.spec for section in sections for chart in section.charts})


def as_json(value: Any) -> "Markup":
    """Return a value as JSON that may stand in a script element."""
    from markupsafe import Markup

    return Markup(json.dumps(value, sort_keys=True, allow_nan=False).replace("<", "\\u003c"))
