"""Write the report: a page, tables as files, charts; and the terminal's table.

All of it is a function of its arguments: no date, no random id, no path, so that equal input gives equal bytes. Figures
have three decimals and no leading zero; what weakens a cell stands beside it as a footnote letter.
"""

import re
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clepdg.config.conditions import CLEAN
from clepdg.evaluation import cells as evaluate
from clepdg.report import conditions as report_conditions
from clepdg.report import grid
from clepdg.report.charts import save
from clepdg.report.downloads import FILES, embed, write_tables
from clepdg.report.headline import HEADER, Headline
from clepdg.report.html import page
from clepdg.report.markdown import markdown
from clepdg.report.section import Section
from clepdg.report.sections.results import results
from clepdg.report.sections.robustness import robustness
from clepdg.report.sections.verdict import joined, verdict
from clepdg.report.sections.was_run import was_run
from clepdg.report.tables import FIGURES, Footnotes, cut, group, text

if TYPE_CHECKING:
    import pandas as pd

WIDTH = 120  # of the terminal's table
SHORT = ("UAR", "[low, high]", "WAR", "n", "test part (n)", "chance")


def table(cells: "pd.DataFrame", rows: Mapping[str, str], *, targets: Sequence[str] | None = None) -> str:
    """Format the clean cells as the terminal's table, with footnotes.

    It is at most 120 columns wide.

    Args:
        cells: what `evaluate.cells` returns.
        rows: row -> title, in the order of the table.
        targets: the targets to show; None: all.

    Raises:
        ConfigError: a row has no title, or a target has no cells.
    """
    sections = group(cells, rows, targets)
    notes = Footnotes.of(sections)
    lines: list[list[str]] = [["", *SHORT, "notes"]]
    for section in sections:
        lines.append([section.title])
        for cell in section.cells:
            lines.append([f"  {rows[cell['row']]}", *(FIGURES[name](cell) for name in SHORT), notes.of_cell(cell)])
    shown = _aligned(lines)
    for line in notes.lines():
        shown += textwrap.wrap(line, WIDTH, subsequent_indent="   ")
    return "\n".join(shown)


def headline_table(headline: Headline) -> str:
    """Format the headline as the terminal's tables and sentences."""
    shown = []
    for title, own in headline.tables:
        shown += [*_aligned([["", *HEADER], [title], *([f"  {name}", *figures] for name, *figures in own)]), ""]
    shown += textwrap.wrap(headline.note, WIDTH) if headline.tables else []
    for sentence in headline.sentences:
        shown += textwrap.wrap(f"- {sentence}", WIDTH, subsequent_indent="  ")
    return "\n".join(shown)


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Align a table's columns, the last to the left; a lone cell is a title."""
    whole = [line for line in lines if len(line) > 1]
    first, *widths = (max(len(line[column]) for line in whole) for column in range(len(whole[0])))
    first = min(first, WIDTH - sum(widths) - 2 * len(widths))
    shown = []
    for title, *figures in lines:
        if not figures:
            shown.append(cut(title, WIDTH))
            continue
        aligned = [value.rjust(width) for value, width in zip(figures[:-1], widths, strict=False)]
        shown.append("  ".join([cut(title, first).ljust(first), *aligned, figures[-1]]).rstrip())
    return shown


def write_report(
    folder: Path,
    cells: "pd.DataFrame",
    predictions: "pd.DataFrame",
    facts: Mapping[str, Any],
    rows: Mapping[str, str],
    headline: Headline | None = None,
    sections: Sequence[Section] = (),
) -> None:
    """Write report.html and the files beside it.

    results.csv, headline.csv, results.md, results.tex, predictions.parquet, and charts/NAME.svg and .png.

    Args:
        cells: what `evaluate.cells` returns, also when read back from Parquet.
        predictions: what the cells were computed from.
        facts: what was run: "caption" is what limits the figures; every other entry is a line of a table, or a table of
            its own where its value maps names to mappings.
        rows: row -> title, in the order of the tables.
        headline: means over targets; None: there are none.
        sections: further sections of the page, after the verdict, the results and the robustness.

    Raises:
        ConfigError: a row has no title.
    """
    groups, headline = group(cells, rows), headline or Headline()
    folder.mkdir(parents=True, exist_ok=True)
    speakers = evaluate.speaker_uars(predictions, cells[cells["condition"] == CLEAN])
    methods = grid.columns(cells, groups, headline)
    notes = Footnotes.of(groups)
    found = [
        verdict(methods, cells, rows, facts),
        results(methods, groups, cells, speakers, rows, headline, notes),
        robustness(cells, rows),
        *sections,
        was_run(facts, ["corpora"] if any(section.id == "data" for section in sections) else ()),
    ]
    every = [section for section in found if section is not None]
    tables = report_conditions.table(cells, rows)
    (folder / "results.md").write_text(markdown(groups, facts, rows, tables, headline), encoding="utf-8")
    write_tables(folder, cells, predictions, methods, rows, headline)
    html = embed(page(*heading(facts, [column.name for column in methods]), every, notes, FILES), folder)
    (folder / "report.html").write_text(html, encoding="utf-8")
    save((chart for section in every for chart in section.charts), folder / "charts")


def heading(facts: Mapping[str, Any], targets: Collection[str]) -> tuple[str, list[str]]:
    """Return the page's title, and the line below it in parts.

    Args:
        targets: names of columns; those of corpora are named in the title.
    """
    every = list(facts.get("corpora", {}))
    corpora = [name for name in every if name in targets] or every
    title = f"Results on {joined(corpora)}" if corpora else "Results"
    lead = [f"{name} {short(facts[name])}" for name in ("preset", "backbone") if name in facts]
    return title, lead + [text(facts[name]) for name in ("label set", "seeds") if name in facts]


def short(value: Any) -> str:
    """Return a fact without the folders of its paths."""
    return re.sub(r"/[^ +:]*/(?=[^/ +:]+)", "", text(value))
