"""Rows on several targets: means over targets, and paired differences of rows.

Targets have the same weight, whatever their size. Two intervals, by rules that were fixed beforehand:

    over targets x speakers x seeds   targets are a sample of the corpora one might meet. What differs between them, the
                                      luck of their speakers included, is the variance: a target of one speaker counts
                                      as any other.
    these corpora alone               targets are fixed, speakers and CLEP seeds vary: says nothing of another corpus.

A CLEP seed is one unit for all targets: its trainings share their start. Rows that use a target's test audio, or learn
from the rest of it, are compared on its test part, all others on the whole target.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from clepdg.config.conditions import CLEAN
from clepdg.config.folds import LEAVE_OUT, SUPERVISED
from clepdg.evaluation.crossed_effects import Mean, of_these_targets, over_targets
from clepdg.evaluation.intervals import Counts, count, estimate
from clepdg.evaluation.metrics import Bools
from clepdg.evaluation.predictions import LEFT_OUT, Predictions, by_cell, coded

if TYPE_CHECKING:
    import pandas as pd


class Target:
    """Predictions of all rows on one target.

    Attributes:
        name: the corpus.
        labels: the label set, in the order of the probabilities.
        seeds: names of all seeds, such as "c0.l0".
    """

    def __init__(
        self, name: str, predictions: "pd.DataFrame", labels: tuple[str, ...], test_only: Collection[str] = ()
    ) -> None:
        self.name, self.labels, self._test_only = name, labels, test_only
        self.seeds = sorted(map(str, predictions["seed"].unique()))
        self._parts = by_cell(predictions, labels)
        self._counts: dict[tuple[str, tuple[str, ...], bool], Counts] = {}

    @cached_property
    def rows(self) -> list[str]:
        """The rows, by name."""
        return sorted({row for row, _ in self._parts})

    def conditions(self, row: str) -> list[str]:
        """Return the conditions in which a row was evaluated, but clean."""
        return [condition for of, condition in self._parts if of == row and condition != CLEAN]

    def on_test_part(self, rows: Sequence[str]) -> bool:
        """Return whether rows are compared on the test part alone."""
        return any(row in self._test_only for row in rows)

    def heard(self, row: str, conditions: Sequence[str], *, test: bool) -> dict[str, Predictions]:
        """Return condition -> predictions of a row, of all or of the test part."""
        found = {name: self._parts[row, name] for name in conditions}
        return {name: own.test_part() if test else own for name, own in found.items()}

    def mean(self, row: str, conditions: Sequence[str], minus: str | None = None) -> Mean | None:
        """Return a row's UAR, or its difference to that of another row.

        Over speakers and CLEP seeds. Several conditions give the mean over families. None where a row lacks a
        condition, or no class is kept.
        """
        rows = [row] if minus is None else [row, minus]
        if not conditions or any((name, condition) not in self._parts for name in rows for condition in conditions):
            return None
        parts = [self._count(name, tuple(conditions), test=self.on_test_part(rows)) for name in rows]
        keep = _kept(parts[0])
        return estimate(parts, keep) if keep.any() else None

    def _count(self, row: str, conditions: tuple[str, ...], *, test: bool) -> Counts:
        key = (row, conditions, test)
        if key not in self._counts:
            self._counts[key] = count(self.heard(row, conditions, test=test))
        return self._counts[key]


def _kept(counts: Counts) -> Bools:
    """Return the classes that UAR is taken over (N,)."""
    if not counts.confusions.size:
        return np.zeros(counts.confusions.shape[-1], dtype=np.bool_)
    kept: Bools = counts.confusions[:, 0].sum(axis=(0, 2)) >= LEFT_OUT - 0.5  # a weighted sum is not exact
    return kept


def left_out(predictions: "pd.DataFrame", labels: tuple[str, ...], test_only: Collection[str] = ()) -> list[Target]:
    """Return the targets of the leave-out folds, by name.

    Args:
        test_only: rows that are evaluated on the test part alone.
    """
    found = coded(predictions[predictions["fold"].astype(str).str.startswith(LEAVE_OUT)])
    return [Target(str(fold).removeprefix(LEAVE_OUT), own, labels, test_only) for fold, own in found.groupby("fold")]


def supervised(predictions: "pd.DataFrame", labels: tuple[str, ...]) -> list[Target]:
    """Return the test parts of the corpora of fold supervised, by name."""
    found = coded(predictions[(predictions["fold"] == SUPERVISED) & (predictions["split"] == "test")])
    return [Target(str(corpus), own, labels) for corpus, own in found.groupby("corpus")]


@dataclass(frozen=True, kw_only=True)
class OverTargets:
    """A row's mean UAR over targets, or its mean difference to another row's.

    Attributes:
        sample: over targets x speakers x seeds.
        these: over speakers x seeds of these corpora alone.
        targets: how many.
    """

    sample: Mean
    these: Mean
    targets: int

    @property
    def value(self) -> float:
        """The mean."""
        return self.sample.value


def average(
    targets: Sequence[Target], row: str, conditions: Sequence[str] | None, minus: str | None = None
) -> OverTargets | None:
    """Return a row's mean over targets; None where none has it.

    Args:
        conditions: of which the mean over families is taken; None: all of the row's but clean.
        minus: the row to subtract.
    """
    found = [
        target.mean(row, target.conditions(row) if conditions is None else conditions, minus) for target in targets
    ]
    means = [mean for mean in found if mean is not None]
    return OverTargets(sample=over_targets(means), these=of_these_targets(means), targets=len(means)) if means else None
