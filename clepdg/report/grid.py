"""Methods x targets: the clean UAR of every method on every target, and means over targets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from clepdg.config.folds import LEAVE_OUT, PAIR, SUPERVISED, kind
from clepdg.evaluation.cells import POOLED, rows_on_test_part
from clepdg.evaluation.intervals import UTTERANCES
from clepdg.report.headline import FLOOR, RANDOM, Headline, uses_target
from clepdg.report.tables import Cell, Group, remarks

if TYPE_CHECKING:
    import pandas as pd

Bounds = tuple[float, float, float]  # a figure and its interval

ON: Final = {LEAVE_OUT: "left-out targets", SUPERVISED: "supervised corpora"}  # as the headline's records say it


@dataclass(frozen=True, kw_only=True)
class Value:
    """UAR of a method on a target, or its mean over targets.

    Attributes:
        uar: with its interval; NaN where there is none.
        minus_floor: difference to the floor, of a mean.
        minus_random: difference to random contexts, of a mean.
        remarks: what weakens it.
    """

    uar: Bounds
    minus_floor: Bounds | None = None
    minus_random: Bounds | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Column:
    """One target, or the mean over targets of a kind.

    Attributes:
        name: the corpus, "mean", "pooled" or "from A to B".
        kind: LEAVE_OUT, SUPERVISED or PAIR.
        targets: how many a mean is over; 1 of a single target.
        chance: NaN where targets differ in it.
        utterances: that a target's methods are evaluated on; 0 of a mean.
        comparisons: (row, another) -> difference, of a mean.
    """

    name: str
    kind: str
    targets: int
    chance: float
    values: Mapping[str, Value]
    utterances: int = 0
    comparisons: Mapping[tuple[str, str], Bounds] = field(default_factory=dict)

    def difference(self, row: str, other: str) -> Bounds:
        """Return a row minus another; without an interval where none is known."""
        value = self.values[row]
        known = {(row, FLOOR): value.minus_floor, (row, RANDOM): value.minus_random, **self.comparisons}
        return known.get((row, other)) or (value.uar[0] - self.values[other].uar[0], math.nan, math.nan)

    @property
    def title(self) -> str:
        """The column in words."""
        of = {LEAVE_OUT: f"{self.name}, left out", SUPERVISED: f"{self.name}, supervised"}.get(self.kind, self.name)
        if self.targets == 1:
            return of
        return f"mean over {self.targets} {'left-out' if self.kind == LEAVE_OUT else 'supervised'} corpora"


def columns(cells: "pd.DataFrame", groups: Sequence[Group], headline: Headline) -> list[Column]:
    """Return the columns: left-out targets, supervised corpora, pairs.

    Means come before the targets that they are over.

    Args:
        cells: what `evaluate.cells` returns.
        groups: its clean cells by fold and target.
        headline: means over targets.
    """
    found = []
    for of in (LEAVE_OUT, SUPERVISED, PAIR):
        own = [_column(group) for group in groups if kind(group.cells[0]["fold"]) == of]
        means = headline.means(ON.get(of, of))
        if means:
            chance = {column.chance for column in own if column.name != POOLED}
            transductive = rows_on_test_part(cells) if of == LEAVE_OUT else set()
            found.append(
                Column(
                    name="mean",
                    kind=of,
                    targets=max(record["targets"] for record in means.values()),
                    chance=chance.pop() if len(chance) == 1 else math.nan,
                    values={row: _mean(record, row in transductive) for row, record in means.items()},
                    comparisons=headline.comparisons.get(ON.get(of, of), {}),
                )
            )
        found += own
    return found


def _column(group: Group) -> Column:
    first = group.cells[0]
    return Column(
        name=first["target"] if kind(first["fold"]) != PAIR else first["fold"].replace("-", " "),
        kind=kind(first["fold"]),
        targets=1,
        chance=first["chance"],
        utterances=max(cell["n"] for cell in group.cells),
        values={
            cell["row"]: Value(uar=(cell["uar"], cell["low"], cell["high"]), remarks=_weak(cell))
            for cell in group.cells
        },
    )


def _weak(cell: Cell) -> tuple[str, ...]:
    """Return the remarks of a cell but that its interval is over speakers."""
    over, *marks = remarks(cell)
    return tuple([over] * (cell["interval"] in (UTTERANCES, "none")) + marks)


def _mean(record: Mapping[str, Any], on_test_part: bool) -> Value:
    def bounds(*names: str) -> Bounds | None:
        value, low, high = (float(record.get(name, math.nan)) for name in names)
        return None if math.isnan(value) else (value, low, high)

    return Value(
        uar=bounds("uar", "low", "high") or (math.nan,) * 3,
        minus_floor=bounds("minus_floor", "low_minus_floor", "high_minus_floor"),
        minus_random=bounds("minus_random", "low_minus_random", "high_minus_random"),
        remarks=("on the test parts of the targets alone",) if on_test_part else (),
    )


def ranked(column: Column, cells: "pd.DataFrame") -> list[str]:
    """Return the rows of a column, the best first.

    Rows that use the target's own audio or labels are no candidates.
    """
    unfair = rows_on_test_part(cells)
    found = {row: value.uar[0] for row, value in column.values.items() if row not in unfair and not uses_target(row)}
    return sorted((row for row, uar in found.items() if not math.isnan(uar)), key=lambda row: -found[row])


def best(column: Column, cells: "pd.DataFrame") -> str | None:
    """Return the best row of a column, None where there is none."""
    return next(iter(ranked(column, cells)), None)


def shown_columns(grid: Sequence[Column]) -> list[Column]:
    """Return the columns of the overview, means first.

    Of supervised corpora it has their mean alone, or the pooled column.
    """
    supervised = [column for column in grid if column.kind == SUPERVISED]
    if len(supervised) == len(grid):
        return supervised
    lead, *others = (column for column in grid if column.kind != SUPERVISED)
    return [lead, *supervised[:1], *others]
