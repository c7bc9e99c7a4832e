"""Render the report's page: one HTML file without scripts or links."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clepdg.config.rows import MAIN_ROW
from clepdg.report import conditions
from clepdg.report.charts import uar_chart
from clepdg.report.headline import HEADER, Headline
from clepdg.report.tables import FIGURES, Footnotes, Section, by_protocol, counts, figure, is_table, text

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Template

Lines = Sequence[Sequence[str]]


def page(
    sections: Sequence[Section],
    speakers: "pd.DataFrame",
    facts: Mapping[str, Any],
    rows: Mapping[str, str],
    pictures: Mapping[str, Path],
    cells: "pd.DataFrame",
    headline: Headline,
) -> str:
    """Render the whole page.

    Args:
        sections: the clean cells by fold and target.
        speakers: what `cells.speaker_uars` returns.
        facts: what was run, as in `write_report`.
        rows: row -> title, in the order of the tables. MAIN_ROW is set in bold and its confusions are shown; the last
            row where a run has none.
        pictures: corpus -> PNG of its quality report.
        cells: in all conditions.
        headline: means over targets.
    """
    from markupsafe import Markup

    main = MAIN_ROW if MAIN_ROW in rows else list(rows)[-1]
    tables = {name: value for name, value in facts.items() if is_table(value)}
    return _template().render(
        caption=text(facts.get("caption", "")),
        headline=headline,
        headline_header=["method", *HEADER],
        facts=[(name, text(value)) for name, value in facts.items() if name != "caption" and name not in tables],
        fact_tables=[_fact_table(name, value) for name, value in tables.items()],
        figures=list(FIGURES),
        titles=rows,
        main=main,
        protocols=[
            {"title": title, "chart": Markup(uar_chart(own, rows, main)), **_results(own, rows)}
            for title, own in by_protocol(sections)
        ],
        conditions=conditions.table(cells, rows),
        conditions_chart=Markup(conditions.picture(cells, rows, main)),
        confusions=list(_confusions(sections, main)),
        speakers=list(_speakers(speakers, rows)),
        pictures=[(name, base64.b64encode(path.read_bytes()).decode()) for name, path in pictures.items()],
    )


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = figure
    return environment.get_template("page.html.j2")


def _fact_table(name: str, value: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], Lines]:
    """Return a table of facts: its header and its lines."""
    columns = list(dict.fromkeys(column for item in value.values() for column in item))
    return [name, *columns], [(key, *(text(item.get(column, "")) for column in columns)) for key, item in value.items()]


def _results(sections: Sequence[Section], rows: Mapping[str, str]) -> dict[str, Any]:
    """Return the groups of a table of results, and its footnotes.

    A group has a line (row, values) for each cell.
    """
    notes = Footnotes.of(sections)
    groups = [
        (
            section.title,
            [
                (cell["row"], (rows[cell["row"]], *(show(cell) for show in FIGURES.values()), notes.of_cell(cell)))
                for cell in section.cells
            ],
        )
        for section in sections
    ]
    return {"groups": groups, "notes": notes.lines()}


def _confusions(sections: Sequence[Section], main: str) -> Iterator[tuple[str, list[str], list[Any]]]:
    """Yield the confusions of a row: title, labels, lines.

    A line is a label and the (share, count) of each prediction.
    """
    for section in sections:
        for cell in section.cells:
            if cell["row"] == main:
                labels = list(cell["labels"])
                shown = [[(count / max(sum(row), 1), count) for count in row] for row in counts(cell["confusion"])]
                yield section.title, labels, list(zip(labels, shown, strict=True))


def _speakers(speakers: "pd.DataFrame", rows: Mapping[str, str]) -> Iterator[tuple[str, list[str], Lines]]:
    """Yield a table of UAR by row and speaker: title, header, lines.

    One for each fold, target and condition.
    """
    for (fold, target, condition), own in speakers.groupby(["fold", "target", "condition"], sort=False):
        uars = own.pivot(index="row", columns="speaker", values="uar")
        sizes = own.drop_duplicates("speaker", keep="last").set_index("speaker").n
        header = ["", *(f"{name} (n {sizes[name]})" for name in uars.columns)]
        lines = [(title, *map(figure, uars.loc[row])) for row, title in rows.items() if row in uars.index]
        yield f"{fold}: {target}, {condition}", header, lines
