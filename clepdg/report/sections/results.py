"""The report's section of results: methods x targets, confusions of any method, and every figure by fold."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clepdg.config.folds import LEAVE_OUT, PAIR, SUPERVISED
from clepdg.config.rows import MAIN_ROW
from clepdg.report.grid import Bounds, Column, best, ranked, shown_columns
from clepdg.report.headline import FLOOR, Headline, signed, uses_target
from clepdg.report.section import Section, render
from clepdg.report.summary import MAIN_ROWS
from clepdg.report.tables import FIGURES, PROTOCOLS, Cell, Footnotes, Group, by_protocol, counts, figure, remarks

if TYPE_CHECKING:
    import pandas as pd

KINDS = {LEAVE_OUT: "left out", SUPERVISED: "supervised", PAIR: "from one to another"}
TEXTS = ("[low, high]", "test part (n)", "speakers (effective)")  # figures that are not one number

Line = dict[str, Any]


def results(
    grid: Sequence[Column],
    groups: Sequence[Group],
    cells: "pd.DataFrame",
    speakers: "pd.DataFrame",
    rows: Mapping[str, str],
    headline: Headline,
    notes: Footnotes,
) -> Section:
    """Return the section.

    Args:
        grid: methods x targets.
        groups: the clean cells by fold and target.
        cells: what `evaluate.cells` returns.
        speakers: what `evaluate.speaker_uars` returns.
        rows: row -> title, in the order of the tables.
        headline: means over targets.
        notes: the page's, to which this section's are added.
    """
    first = first_rows(grid, cells, rows)
    return Section(
        id="results",
        title="Results",
        html=render(
            "results",
            note=headline.note,
            sentences=headline.sentences,
            overview=overview(grid, cells, rows, notes, first),
            methods=sum(any(row in column.values for column in grid) for row in rows),
            first=len(first),
            confusions=confusions(groups, rows),
            protocols=[
                (title, [_fold(group, rows, notes) for group in own])
                for title, own in sorted(by_protocol(groups), key=lambda found: found[1][0].protocol != LEAVE_OUT)
            ],
            speakers=list(_speakers(speakers, rows)),
        ),
    )


def first_rows(grid: Sequence[Column], cells: "pd.DataFrame", rows: Mapping[str, str]) -> list[str]:
    """Return the rows that are shown first.

    They are the main ones, and the best two of a mean and of the first column.
    """
    present = [row for row in rows if any(row in column.values for column in grid)]
    winners = {row for column in grid if column.targets > 1 or column is grid[0] for row in ranked(column, cells)[:2]}
    return [row for row in present if row in MAIN_ROWS or row in winners] or present


def overview(
    grid: Sequence[Column], cells: "pd.DataFrame", rows: Mapping[str, str], notes: Footnotes, first: Sequence[str]
) -> dict[str, Any]:
    """Return the table of methods x targets, as the macro `table` takes it."""
    shown = shown_columns(grid)
    winners = [best(column, cells) for column in shown]
    lead = shown[0] if shown[0].targets > 1 else None
    columns: list[Line] = [{"title": "method", "sub": ""}]
    spans: list[tuple[str, int]] = [("", 1)]
    for column in shown:
        mean = column.targets > 1
        title = f"mean of {column.targets}" if mean else column.name
        added: list[Line] = [{"title": title, "sub": "UAR", "notes": notes.lettered(_common(column))}]
        if column is lead:
            added += [{"title": "− floor", "sub": "difference"}, {"title": "− random", "sub": "contexts"}]
        columns += added
        of = KINDS[column.kind] + ", one by one" * (lead is not None and not mean and column.kind == LEAVE_OUT)
        before, span = spans[-1]
        spans[-1:] = [(before, span + len(added))] if before == of else [(before, span), (of, len(added))]
    lines = []
    for row, title in rows.items():
        if not any(row in column.values for column in shown):
            continue
        own: list[Line] = []
        for column, winner in zip(shown, winners, strict=True):
            value = column.values.get(row)
            common = _common(column)
            if value is None:
                own += [_nothing()] * (3 if column is lead else 1)
                continue
            own.append(
                {
                    **_cell(value.uar, figure),
                    "best": row == winner,
                    "notes": notes.lettered(text for text in value.remarks if text not in common),
                }
            )
            if column is lead:
                own += [_cell(value.minus_floor, signed), _cell(value.minus_random, signed)]
        kind = "main" if row == MAIN_ROW else "floor" if row in (FLOOR, "majority") else ""
        lines.append({"title": title, "kind": kind, "more": row not in first, "cells": own})
    return {"columns": columns, "lines": lines, "groups": spans}


def _common(column: Column) -> list[str]:
    """Return the remarks on every value of a column."""
    values = list(column.values.values())
    return [text for text in values[0].remarks if all(text in value.remarks for value in values)] if values[1:] else []


def _nothing() -> Line:
    return {"text": "", "value": "", "sub": ""}


def _cell(bounds: Bounds | None, show: Any) -> Line:
    if bounds is None:
        return _nothing()
    value, low, high = bounds
    sub = "" if math.isnan(low) else f"[{show(low)}, {show(high)}]"
    return {"text": show(value), "value": "" if math.isnan(value) else f"{value:.6f}", "sub": sub}


def _fold(group: Group, rows: Mapping[str, str], notes: Footnotes) -> dict[str, Any]:
    """Return a fold's table of all figures, and the words that fold it."""
    first, most = group.cells[0], max(cell["n"] for cell in group.cells)
    fair = [cell for cell in group.cells if not uses_target(cell["row"]) and cell["n"] == most]
    top = max((cell for cell in fair if cell["uar"] == cell["uar"]), key=lambda cell: cell["uar"], default=None)
    words = f"{first['n']} utterances, {first['speakers']} speaker{'s' * (first['speakers'] != 1)}"
    lines = [
        {
            "title": rows[cell["row"]],
            "kind": "main" if cell["row"] == MAIN_ROW else "",
            "more": False,
            "cells": [
                *({"text": show(cell), "value": _value(name, cell)} for name, show in FIGURES.items()),
                {"text": "", "value": len(remarks(cell)), "notes": notes.lettered(remarks(cell))},
            ],
        }
        for cell in group.cells
    ]
    columns = [{"title": name, "sub": ""} for name in ("method", *FIGURES, "notes")]
    best_words = f"; highest UAR {figure(top['uar'])}, {rows[top['row']]}" if top else ""
    return {"title": group.title, "words": words + best_words, "columns": columns, "lines": lines}


def _value(name: str, cell: Cell) -> str:
    """Return what a column of figures sorts by."""
    names = {"[low, high]": "low", "test part (n)": "uar_test", "speakers (effective)": "effective"}
    value = cell[names.get(name, name.lower().replace("-", "_").replace(" ", "_"))]
    return "" if value is None or value != value else f"{value:.6f}"


def confusions(groups: Sequence[Group], rows: Mapping[str, str]) -> dict[str, Any]:
    """Return the confusion matrices as JSON, and the lists to choose by.

    A matrix has a line for each true label: counts of each prediction, summed over seeds.
    """
    folds = [
        {
            "title": group.title,
            "labels": list(group.cells[0]["labels"]),
            "cells": {
                cell["row"]: {
                    "counts": counts(cell["confusion"]),
                    "uar": figure(cell["uar"]),
                    "seeds": int(cell["seeds"]),
                }
                for cell in group.cells
            },
        }
        for group in sorted(groups, key=lambda group: list(PROTOCOLS).index(group.protocol) != 1)
    ]
    present = {row for fold in folds for row in fold["cells"]}
    titles = {row: title for row, title in rows.items() if row in present}
    first = MAIN_ROW if MAIN_ROW in titles else list(titles)[-1]
    text = json.dumps({"methods": titles, "folds": folds}, allow_nan=False).replace("<", "\\u003c")
    return {"methods": titles, "folds": [fold["title"] for fold in folds], "first": first, "json": text}


def _speakers(speakers: "pd.DataFrame", rows: Mapping[str, str]) -> Iterator[tuple[str, list[Line], list[Line]]]:
    """Yield title, columns and lines of a table of UAR by speaker.

    One for each fold and target.
    """
    for (fold, target, condition), own in speakers.groupby(["fold", "target", "condition"], sort=False):
        uars = own.pivot(index="row", columns="speaker", values="uar")
        sizes = own.drop_duplicates("speaker", keep="last").set_index("speaker").n
        columns = [{"title": "method", "sub": ""}]
        columns += [{"title": str(name), "sub": f"n {sizes[name]}"} for name in uars.columns]
        lines = [
            {
                "title": title,
                "kind": "",
                "more": False,
                "cells": [
                    {"text": figure(uar), "value": "" if uar != uar else f"{uar:.6f}"}
                    for uar in map(float, uars.loc[row])
                ],
            }
            for row, title in rows.items()
            if row in uars.index
        ]
        yield f"{fold}: {target}, {condition}", columns, lines
