"""Write the report as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from clepdg.report.headline import HEADER, Headline
from clepdg.report.tables import FIGURES, Footnotes, Group, by_protocol, is_table, text


def markdown(
    groups: Sequence[Group],
    facts: Mapping[str, Any],
    rows: Mapping[str, str],
    conditions: Sequence[tuple[str, list[str], list[list[str]]]],
    headline: Headline,
) -> str:
    """Return the report as Markdown.

    Args:
        groups: the clean cells by fold and target.
        facts: what was run, as in `write_report`.
        rows: row -> title, in the order of the tables.
        conditions: what `conditions.table` returns.
        headline: means over targets.
    """

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
    notes = Footnotes.of(groups)
    for title, own in by_protocol(groups):
        lines += ["", f"## {title}"]
        for group in own:
            lines += ["", f"### {group.title}", "", line(["method", *FIGURES, "notes"])]
            lines.append("|---|" + "---:|" * len(FIGURES) + "---|")
            for cell in group.cells:
                lines.append(line([rows[cell["row"]], *(show(cell) for show in FIGURES.values()), notes.of_cell(cell)]))
    for title, header, found in conditions:
        lines += ["", f"## In noise, in rooms, over lines: {title} (UAR)", "", line(["method", *header])]
        lines.append("|---|" + "---:|" * len(header))
        lines += [line(each) for each in found]
    if notes.lines():
        lines += ["", "## Notes", "", *(f"- {_inline(note)}" for note in notes.lines())]
    return "\n".join(lines) + "\n"


def _inline(value: str) -> str:
    """Return a text so that Markdown shows it as it is, also inside a table."""
    return escape(value, quote=False).replace("|", "\\|").replace("\n", " ")
