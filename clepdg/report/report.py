"""Write the report: a page, a CSV, Markdown; and the terminal's table.

All of it is a function of its arguments: no date, no random id, no path, so that equal input gives equal bytes. Figures
have three decimals and no leading zero; what weakens a cell stands beside it as a footnote letter.
"""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clepdg.audio.corruptions import CLEAN
from clepdg.evaluation import cells as evaluate
from clepdg.report import conditions as report_conditions
from clepdg.report.headline import HEADER, RECORD, Headline
from clepdg.report.html import page
from clepdg.report.tables import FIGURES, Footnotes, Section, by_protocol, counts, group, is_table, text

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
            shown.append(_cut(title, WIDTH))
            continue
        aligned = [value.rjust(width) for value, width in zip(figures[:-1], widths, strict=False)]
        shown.append("  ".join([_cut(title, first).ljust(first), *aligned, figures[-1]]).rstrip())
    return shown


def _cut(title: str, width: int) -> str:
    return title if len(title) <= width else title[: width - 1] + "…"


def write_report(
    folder: Path,
    cells: "pd.DataFrame",
    predictions: "pd.DataFrame",
    facts: Mapping[str, Any],
    rows: Mapping[str, str],
    pictures: Mapping[str, Path] | None = None,
    headline: Headline | None = None,
) -> None:
    """Write report.html, results.csv, headline.csv and results.md.

    Args:
        cells: what `evaluate.cells` returns, also when read back from Parquet.
        predictions: what the cells were computed from.
        facts: what was run: "caption" is the line under the title; every other entry is a line of the first table, or
            a table of its own where its value maps names to mappings.
        rows: row -> title, in the order of the tables.
        pictures: corpus -> its quality report's picture (PNG), which the page shows.
        headline: means over targets; None: there are none.

    Raises:
        ConfigError: a row has no title.
    """
    import pandas as pd

    sections, headline = group(cells, rows), headline or Headline()
    folder.mkdir(parents=True, exist_ok=True)
    speakers = evaluate.speaker_uars(predictions, cells[cells["condition"] == CLEAN])
    html = page(sections, speakers, facts, rows, pictures or {}, cells, headline)
    (folder / "report.html").write_text(html, encoding="utf-8")
    (folder / "results.md").write_text(
        _markdown(sections, facts, rows, report_conditions.table(cells, rows), headline), encoding="utf-8"
    )
    pd.DataFrame(headline.records, columns=RECORD).to_csv(folder / "headline.csv", index=False, lineterminator="\n")
    flat = cells.assign(
        labels=cells["labels"].map(" ".join),
        marks=cells["marks"].map("; ".join),
        recalls=cells["recalls"].map(lambda recalls: json.dumps(_present(recalls))),
        confusion=cells["confusion"].map(lambda confusion: json.dumps(counts(confusion))),
    )
    flat.to_csv(folder / "results.csv", index=False, lineterminator="\n")


def _present(recalls: Mapping[str, float | None]) -> dict[str, float]:
    return {label: recall for label, recall in recalls.items() if recall is not None}


def _markdown(
    sections: Sequence[Section],
    facts: Mapping[str, Any],
    rows: Mapping[str, str],
    conditions: Sequence[tuple[str, list[str], list[list[str]]]],
    headline: Headline,
) -> str:
    def line(values: Iterable[str]) -> str:
        return "| " + " | ".join(_inline(value) for value in values) + " |"

    lines = ["# CLEP-DG results", "", _inline(text(facts.get("caption", ""))), ""]
    for title, means in headline.tables:
        lines += [f"## {title}", "", line(["method", *HEADER]), "|---|" + "---:|" * len(HEADER), *map(line, means), ""]
    lines += [_inline(headline.note), ""] if headline.tables else []
    lines += [*(f"- {_inline(sentence)}" for sentence in headline.sentences), "", "## What was run", ""]
    for name, value in facts.items():
        if is_table(value):
            lines += [f"- {name}", *(f"  - {key}: {_inline(text(item))}" for key, item in value.items())]
        elif name != "caption":
            lines.append(f"- {name}: {_inline(text(value))}")
    for title, own in by_protocol(sections):
        notes = Footnotes.of(own)
        lines += ["", f"## {title}"]
        for section in own:
            lines += ["", f"### {section.title}", "", line(["method", *FIGURES, "notes"])]
            lines.append("|---|" + "---:|" * len(FIGURES) + "---|")
            for cell in section.cells:
                lines.append(line([rows[cell["row"]], *(show(cell) for show in FIGURES.values()), notes.of_cell(cell)]))
        lines += ["", *(f"- {_inline(note)}" for note in notes.lines())]
    for title, header, found in conditions:
        lines += ["", f"## In noise, in rooms, over lines: {title} (UAR)", "", line(["method", *header])]
        lines.append("|---|" + "---:|" * len(header))
        lines += [line(each) for each in found]
    return "\n".join(lines) + "\n"


def _inline(value: str) -> str:
    """Return a text so that Markdown shows it as it is, also inside a table."""
    return escape(value, quote=False).replace("|", "\\|").replace("\n", " ")
