"""The report's section of facts: what was run, and what the figures beside the cells say."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from clepdg.report.section import Section, render
from clepdg.report.tables import is_table, text


def was_run(facts: Mapping[str, Any], said: Collection[str] = ()) -> Section:
    """Return the section.

    Args:
        facts: what was run, as in `write_report`; its caption is among the warnings of the verdict.
        said: facts that other sections show.
    """
    facts = {name: value for name, value in facts.items() if name not in said and name != "caption"}
    tables = {name: value for name, value in facts.items() if is_table(value)}
    return Section(
        id="was-run",
        title="What was run",
        html=render(
            "was_run",
            facts=[(name, text(value)) for name, value in facts.items() if name not in tables],
            tables=[_table(name, value) for name, value in tables.items()],
        ),
    )


def _table(name: str, value: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], Sequence[Sequence[str]]]:
    """Return a table of facts: its header and its lines."""
    columns = list(dict.fromkeys(column for item in value.values() for column in item))
    return [name, *columns], [(key, *(text(item.get(column, "")) for column in columns)) for key, item in value.items()]
