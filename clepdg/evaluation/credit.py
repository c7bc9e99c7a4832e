"""The credit rule, fixed before any result: when ACPT counts as better.

ACPT's UAR minus that of every rival, on the same utterances, macro-averaged over the targets of the leave-out folds:
(i) clean, and (ii) averaged over the whole sweep of corruptions. Credit needs both above 0 against every rival (an
intersection-union test: the largest of the rivals' p counts, which is never weaker than testing the best rival alone),
with Holm's correction over the two at a family-wise error of .05. All else in the report is descriptive.

A target's difference is a mean of its speakers' jackknife pseudo-values; targets are independent, so the macro-average
has a t interval with Welch's degrees of freedom. A target with fewer than 6 speakers in its test part, or with one in
a class, has no test and no part in the average: its card decides that, before anything is trained. With fewer than two
targets left, or where something that the rule needs was not run, the verdict is "not decidable".

Shapes: C clusters (speakers) of a target, S seeds, Q conditions, N labels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from clepdg.audio.corruptions import CLEAN, SWEEP
from clepdg.config.folds import LEAVE_OUT
from clepdg.config.rows import MAIN_ROW
from clepdg.evaluation import metrics
from clepdg.evaluation.cells import LEFT_OUT, seed_marks
from clepdg.evaluation.intervals import JACKKNIFE_SPEAKERS
from clepdg.evaluation.metrics import Bools, Floats
from clepdg.evaluation.predictions import to_arrays

if TYPE_CHECKING:
    import pandas as pd

RIVALS: Final = ("text-none", "text-random", "text-hand-written", "text-noise", "clep-zero-shot-centred")
ALPHA: Final = 0.05  # of both parts together, whatever the tables' confidence
TARGETS: Final = 2  # that can be tested: fewer say nothing about corpora
CLEAN_WORDS, CORRUPTED_WORDS = "clean", "averaged over the sweep of corruptions"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """ACPT's macro-averaged UAR minus a rival's.

    Its t interval and two-sided p are None where it is not tested.
    """

    rival: str
    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict of the credit rule, with its reason and its differences.

    `says` is "credited", "not credited" or "not decidable".
    """

    says: str
    why: str
    differences: dict[str, list[Difference]]

    def parts(self) -> dict[str, str]:
        """Return part of the rule -> its differences in words, the worst first."""
        return {
            part: "; ".join(_shown(difference) for difference in sorted(differences, key=lambda d: (-_p(d), d.value)))
            for part, differences in self.differences.items()
        }


def _shown(difference: Difference) -> str:
    tested = "not tested"
    if difference.low is not None:
        tested = f"[{difference.low:+.3f}, {difference.high:+.3f}], p {difference.p:.3f}"
    return f"{difference.value:+.3f} against {difference.rival} ({tested})"


def verdict(
    predictions: "pd.DataFrame",
    labels: tuple[str, ...],
    corpora: Sequence[str],
    *,
    sweep: Sequence[str] = SWEEP,
) -> Verdict:
    """Apply the rule to the predictions of all folds.

    Args:
        labels: the label set, in the order of the probabilities.
        corpora: each of them has to be a target once.
        sweep: the corrupted conditions that are averaged over; others that were heard have no part in the rule.
    """
    test = predictions[(predictions["split"] == "test") & predictions["fold"].str.startswith(LEAVE_OUT)]
    rows, heard = set(test["row"]), set(test["condition"])
    if MAIN_ROW not in rows:
        return Verdict(says="not decidable", why=f"no leave-out fold has method {MAIN_ROW}", differences={})
    corrupted = [name for name in sweep if name in heard]
    whole = len(corrupted) == len(sweep)
    words = CORRUPTED_WORDS if whole else f"averaged over {len(corrupted)} of the sweep's {len(sweep)} corruptions"
    parts = {CLEAN_WORDS: [CLEAN], **({words: corrupted} if corrupted else {})}
    every = [_Target(own, labels) for _, own in test.groupby("fold")]
    tested = [target for target in every if not target.fault]
    faults = [target.fault for target in every if target.fault]
    decidable = len(tested) >= TARGETS
    differences = {
        words: [
            _difference(tested if decidable else every, rival, conditions, tested=decidable)
            for rival in RIVALS
            if rival in rows
        ]
        for words, conditions in parts.items()
    }
    differences = {words: found for words, found in differences.items() if found}
    lacking = [name for name in RIVALS if name not in rows]
    targets = [corpus for corpus in corpora if LEAVE_OUT + corpus not in set(test["fold"])]
    missing = [f"methods {', '.join(lacking)} were not run"] if lacking else []
    missing += [f"{', '.join(targets)} was not left out"] if targets else []
    if unheard := len(sweep) - len(corrupted):
        missing.append(f"{unheard} of {len(sweep)} conditions of the sweep were not heard")
    if missing or not decidable:
        return Verdict(says="not decidable", why="; ".join(missing + faults * (not decidable)), differences=differences)
    credited = _holm({words: max(map(_p, found)) for words, found in differences.items()}, ALPHA)
    passed = [words for words, holds in credited.items() if holds]
    why = {2: "above every rival in both parts", 1: f"above every rival only {''.join(passed)}"}
    said = [why.get(len(passed), "not above every rival in either part"), *seed_marks(test["seed"].unique())]
    if faults:
        said.append(f"over {len(tested)} of {len(every)} targets: {', '.join(faults)}")
    return Verdict(
        says="credited" if len(passed) == 2 else "not credited", why="; ".join(said), differences=differences
    )


def _p(difference: Difference) -> float:
    """Return the p of "above this rival"; 1 where it is not above.

    That is in value or in the interval's centre.
    """
    if difference.low is None or difference.high is None or difference.p is None:
        return 1.0
    return difference.p if min(difference.value, difference.low + difference.high) > 0 else 1.0


def _holm(p: dict[str, float], alpha: float) -> dict[str, bool]:
    """Apply Holm's correction: which hypotheses are rejected at alpha."""
    holds, rejected = True, {}
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        holds = holds and p[name] <= alpha / (len(p) - rank)
        rejected[name] = holds
    return rejected


class _Target:
    """Predictions on the test part of one leave-out fold, by speaker."""

    def __init__(self, predictions: "pd.DataFrame", labels: tuple[str, ...]) -> None:
        self.predictions, self.labels = predictions, labels
        one = to_arrays(_of(predictions, predictions["row"].iloc[0], CLEAN), labels)
        self.keep: Bools = np.bincount(one.truth, minlength=len(labels)) >= LEFT_OUT
        self.speakers = len(np.unique(one.clusters))
        fold = str(predictions["fold"].iloc[0])
        alone = [
            label
            for number, label in enumerate(labels)
            if self.keep[number] and len(np.unique(one.clusters[one.truth == number])) < 2
        ]
        self.fault = ""
        if self.speakers < JACKKNIFE_SPEAKERS:
            self.fault = f"{fold} has {self.speakers} of the {JACKKNIFE_SPEAKERS} speakers that a test needs"
        elif alone or not self.keep.any():
            self.fault = f"{fold} has one speaker of {', '.join(alone) or 'no class'}"

    def counts(self, row: str, conditions: Sequence[str]) -> np.ndarray:
        """Return a row's confusion matrices (C, S, Q, N, N)."""
        n, parts = len(self.labels), []
        for condition in conditions:
            arrays = to_arrays(_of(self.predictions, row, condition), self.labels)
            one_hot = np.zeros((self.speakers, len(arrays.predicted), n, n))
            for seed, predicted in enumerate(arrays.predicted):
                np.add.at(one_hot[:, seed], (arrays.clusters, arrays.truth, predicted), 1)
            parts.append(one_hot)
        return np.stack(parts, axis=2)

    def uar(self, counts: np.ndarray) -> Floats:
        """Return the mean UAR (...) of summed counts (..., S, Q, N, N)."""
        mean: Floats = metrics.uar(counts, self.keep).mean(axis=(-2, -1))
        return mean


def _of(predictions: "pd.DataFrame", row: str, condition: str) -> "pd.DataFrame":
    return predictions[(predictions["row"] == row) & (predictions["condition"] == condition)]


def _difference(targets: Sequence[_Target], rival: str, conditions: Sequence[str], *, tested: bool) -> Difference:
    from scipy.stats import t

    values, centres, variances, freedoms = [], [], [], []
    for target in targets:
        ours, theirs = (target.counts(name, conditions) for name in (MAIN_ROW, rival))
        whole = float(target.uar(ours.sum(axis=0)) - target.uar(theirs.sum(axis=0)))
        values.append(whole)
        if tested:
            n = target.speakers
            without = target.uar(ours.sum(axis=0) - ours) - target.uar(theirs.sum(axis=0) - theirs)  # (C,)
            pseudo = n * whole - (n - 1) * without
            centres.append(pseudo.mean())
            variances.append(pseudo.var(ddof=1) / n / len(targets) ** 2)
            freedoms.append(n - 1)
    value = float(np.mean(values))
    if not tested:
        return Difference(rival=rival, value=value)
    centre, error = float(np.mean(centres)), math.sqrt(sum(variances))
    if error == 0:
        return Difference(rival=rival, value=value, low=centre, high=centre, p=float(centre == 0))
    freedom = sum(variances) ** 2 / sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
    half = float(t.ppf(1 - ALPHA / 2, freedom)) * error
    p = 2 * float(t.sf(abs(centre) / error, freedom))
    return Difference(rival=rival, value=value, low=centre - half, high=centre + half, p=p)
