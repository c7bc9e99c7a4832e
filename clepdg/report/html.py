"""Render the report's page: one HTML file that needs nothing beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from clepdg.report.charts import colours, config, script
from clepdg.report.glossary import GLOSSARY
from clepdg.report.section import Section, as_json, render, specs
from clepdg.report.tables import Footnotes


def page(
    title: str,
    lead: Sequence[str],
    sections: Sequence[Section],
    notes: Footnotes,
    downloads: Mapping[str, str],
) -> str:
    """Render the whole page.

    Args:
        title: says what run it is of.
        lead: the line below the title, part by part.
        sections: in their order; the first is the verdict.
        notes: the one legend of the page's letters.
        downloads: name of a file beside the page -> what it holds.
    """
    folder = Path(__file__).parent / "templates"
    return str(
        render(
            "page",
            title=title,
            lead=lead,
            sections=sections,
            notes=notes,
            downloads=downloads,
            charts=[chart for section in sections for chart in section.charts],
            glossary=GLOSSARY,
            specs=specs(sections),
            config=as_json(config()),
            style=colours()
            + "".join((folder / name).read_text(encoding="utf-8") for name in ("page.css", "more.css", "print.css")),
            behaviour=(folder / "page.js").read_text(encoding="utf-8"),
            vega=script(),
        )
    )
