"""UAR lost in corruptions: a table of methods x families, and sentences."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from clepdg.config.conditions import CLEAN
from clepdg.config.folds import LEAVE_OUT
from clepdg.config.rows import MAIN_ROW
from clepdg.report.headline import FLOOR, signed, uses_target
from clepdg.report.sections.verdict import joined
from clepdg.report.tables import figure

if TYPE_CHECKING:
    import pandas as pd

BESIDE: Final = {"text-none": "without contexts", FLOOR: "the floor"}  # what the main row is held against


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Mean UAR of a method over targets, on clean and on corrupted audio.

    Attributes:
        families: family -> mean over its conditions.
    """

    row: str
    clean: float
    families: Mapping[str, float]

    @property
    def mean(self) -> float:
        """UAR averaged over families, which weigh the same."""
        return sum(self.families.values()) / len(self.families)

    @property
    def lost(self) -> float:
        """UAR that is lost from clean audio to the mean over families."""
        return self.clean - self.mean


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Losses of all methods over the same targets.

    Attributes:
        where: the targets, in words.
        found: in the order of the rows.
    """

    where: str
    found: Sequence[Loss]

    @property
    def candidates(self) -> list[Loss]:
        """Return the methods ahead of the floor on clean audio, least loss first.

        A method at chance has nothing to lose. Rows that use the target's own audio or labels are no candidates.
        """
        floor = next((each.clean for each in self.found if each.row == FLOOR), math.nan)
        fair = [each for each in self.found if not uses_target(each.row) and each.clean > floor]
        return sorted(fair, key=lambda each: each.lost)


def losses(cells: "pd.DataFrame", rows: Mapping[str, str]) -> Losses | None:
    """Return losses over the left-out targets, else on the first target.

    None where no audio was corrupted.

    Args:
        cells: what `conditions.corrupted` returns.
        rows: row -> title. Those without a figure in every condition of every target are left out.
    """
    left_out = cells[cells["title"].str.startswith(LEAVE_OUT)]
    titles = list(dict.fromkeys((left_out if len(left_out) else cells)["title"]))
    titles = titles if len(left_out) else titles[:1]
    own = cells[cells["title"].isin(titles)]
    families = [family for family in dict.fromkeys(own["family"]) if family]
    if not families:
        return None
    whole = own.groupby("title")["condition"].nunique().sum()
    found = []
    for row in rows:
        part = own[(own["row"] == row) & own["uar"].notna()]
        if len(part) != whole:
            continue
        clean = float(part.loc[part["condition"] == CLEAN, "uar"].mean())
        by_target = part.groupby(["family", "title"])["uar"].mean()
        found.append(Loss(row=row, clean=clean, families={each: float(by_target[each].mean()) for each in families}))
    where = f"Averaged over {len(titles)} left-out targets" if len(titles) > 1 else f"On {titles[0]}"
    return Losses(where=where, found=found) if found else None


def sentences(own: Losses, rows: Mapping[str, str]) -> Iterator[str]:
    """Yield which method loses least, and what the main row loses.

    Args:
        rows: row -> title.
    """
    if own.candidates:
        least = own.candidates[0]
        yield (
            f"{own.where}, “{rows[least.row]}” loses least of the methods that are ahead of the floor on clean audio:"
            f" {_lost(least)} on the mean over {joined(list(least.families))}."
        )
    else:
        yield f"{own.where}, no method is ahead of the floor on clean audio, so none has more to lose."
    by_row = {each.row: each for each in own.found}
    if MAIN_ROW in by_row:
        others = [f"{name} {_lost(by_row[row])}" for row, name in BESIDE.items() if row in by_row]
        beside = f"; {', '.join(others)}" if others else ""
        yield f"The classifier with ACPT's contexts loses {_lost(by_row[MAIN_ROW])}{beside}."


def _lost(loss: Loss) -> str:
    return f"{figure(loss.lost)}, from {figure(loss.clean)} to {figure(loss.mean)}"


def loss_table(own: Losses, rows: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the columns and lines of the table.

    Args:
        rows: row -> title.
    """
    families = list(own.found[0].families)
    several = ["all families"] if len(families) > 1 else []
    columns = [{"title": "method", "sub": ""}, {"title": CLEAN, "sub": "UAR"}]
    columns += [{"title": name, "sub": "change"} for name in (*families, *several)]
    columns.append({"title": "corrupted", "sub": "UAR, mean"})
    fair = {each.row for each in own.candidates}
    changes = {each.row: [*(value - each.clean for value in each.families.values()), -each.lost] for each in own.found}
    best = [max((changes[row][number] for row in fair), default=math.nan) for number in range(len(families) + 1)]
    lines = []
    for each in own.found:
        cells = [_cell(figure(each.clean), each.clean)]
        for number, change in enumerate(changes[each.row][: len(families) + len(several)]):
            cells.append({**_cell(signed(change), change), "best": each.row in fair and change == best[number]})
        cells.append(_cell(figure(each.mean), each.mean))
        kind = {MAIN_ROW: "main", FLOOR: "floor"}.get(each.row, "")
        lines.append({"title": rows[each.row], "kind": kind, "more": False, "cells": cells})
    return columns, lines


def _cell(text: str, value: float) -> dict[str, Any]:
    return {"text": text, "value": f"{value:.6f}"}
