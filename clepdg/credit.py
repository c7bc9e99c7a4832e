"""The credit rule, fixed before any result: when ACPT may be said to help (METHOD, evaluation).

ACPT's UAR minus that of every rival, on the same utterances, macro-averaged over the targets of the leave-out folds:
(i) clean, and (ii) averaged over the corrupted conditions. Credit needs both above 0 against every rival, the best
one included, with Holm's correction over the two. All else in the report is descriptive.

A target's difference is a mean of its speakers' jackknife pseudo-values; targets are independent, so the macro-average
has a t interval with Welch's degrees of freedom. With fewer than 6 speakers in a target, or one in a class, there
is no test: the verdict is "not decidable".

Shapes: C clusters (speakers) of a target, S seeds, Q conditions, N labels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from clepdg import metrics
from clepdg.answers import read_answers
from clepdg.corruptions import CLEAN
from clepdg.intervals import JACKKNIFE_SPEAKERS
from clepdg.metrics import Bools, Floats
from clepdg.protocols import LEAVE_OUT, MAIN_ROW

if TYPE_CHECKING:
    import pandas as pd

RIVALS: Final = ("text-none", "text-random", "text-hand-written", "text-noise", "clep-zero-shot-centred")
LEFT_OUT: Final = 3  # a class with fewer utterances in a target's test part is in no UAR
CLEAN_WORDS, CORRUPTED_WORDS = "clean", "averaged over the corrupted conditions"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """ACPT's macro-averaged UAR minus a rival's, its t interval and two-sided p; None where it is not tested."""

    rival: str
    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the rule says: "credited", "not credited" or "not decidable", why, and the differences it looked at."""

    says: str
    why: str
    differences: dict[str, list[Difference]]

    def parts(self) -> dict[str, str]:
        """Return part of the rule -> what was found in it, in words."""
        found = {}
        for part, differences in self.differences.items():
            best = min(differences, key=lambda difference: difference.value)
            interval = "not tested" if best.low is None else f"[{best.low:+.3f}, {best.high:+.3f}], p {best.p:.3f}"
            found[part] = f"{best.value:+.3f} against the best rival, {best.rival}; {interval}"
        return found


def verdict(
    predictions: "pd.DataFrame", labels: tuple[str, ...], *, confidence: float = 0.95, row: str = MAIN_ROW
) -> Verdict:
    """Apply the rule to the predictions of all folds.

    Args:
        labels: the label set, in the order of the probabilities.
        confidence: 1 - alpha of both parts together.
        row: whose credit it is.
    """
    test = predictions[(predictions["split"] == "test") & predictions["fold"].str.startswith(LEAVE_OUT)]
    rows = set(test["row"])
    corrupted = sorted(set(test["condition"]) - {CLEAN})
    lacking = [name for name in (row, *RIVALS) if name not in rows]
    if row not in rows:
        return Verdict(says="not decidable", why=f"no leave-out fold has row {row}", differences={})
    parts = {CLEAN_WORDS: [CLEAN], **({CORRUPTED_WORDS: corrupted} if corrupted else {})}
    targets = [_Target(own, labels) for _, own in test.groupby("fold")]
    differences = {
        words: [_difference(targets, row, rival, conditions, confidence) for rival in RIVALS if rival in rows]
        for words, conditions in parts.items()
    }
    missing = [f"rows {', '.join(lacking)} were not run"] if lacking else []
    missing += [] if corrupted else ["no corrupted condition was heard"]
    missing += [fault for target in targets for fault in target.faults]
    differences = {words: found for words, found in differences.items() if found}
    if missing:
        return Verdict(says="not decidable", why="; ".join(missing), differences=differences)
    credited = _holm({words: _largest_p(found) for words, found in differences.items()}, 1 - confidence)
    passed = [words for words, holds in credited.items() if holds]
    why = {2: "above every rival in both parts", 1: f"above every rival only {''.join(passed)}"}
    return Verdict(
        says="credited" if len(passed) == 2 else "not credited",
        why=why.get(len(passed), "not above every rival in either part"),
        differences=differences,
    )


def _largest_p(differences: Sequence[Difference]) -> float:
    """Return the p of "above every rival": that of the comparison it fails first; 1 where one is not above 0."""
    return max(1.0 if difference.value <= 0 else float(difference.p or 0.0) for difference in differences)


def _holm(p: dict[str, float], alpha: float) -> dict[str, bool]:
    """Return which hypotheses are rejected at a family-wise error of alpha (Holm 1979)."""
    holds, rejected = True, {}
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        holds = holds and p[name] <= alpha / (len(p) - rank)
        rejected[name] = holds
    return rejected


class _Target:
    """The test part of one leave-out fold's target: what every row answered, by speaker."""

    def __init__(self, predictions: "pd.DataFrame", labels: tuple[str, ...]) -> None:
        self.predictions, self.labels = predictions, labels
        one = read_answers(_of(predictions, predictions["row"].iloc[0], CLEAN), labels)
        self.keep: Bools = np.bincount(one.truth, minlength=len(labels)) >= LEFT_OUT
        self.speakers = len(np.unique(one.clusters))
        fold = str(predictions["fold"].iloc[0])
        alone = [
            label
            for number, label in enumerate(labels)
            if self.keep[number] and len(np.unique(one.clusters[one.truth == number])) < 2
        ]
        self.faults = []
        if self.speakers < JACKKNIFE_SPEAKERS:
            self.faults.append(f"{fold} has {self.speakers} speakers, a test needs {JACKKNIFE_SPEAKERS}")
        elif alone or not self.keep.any():
            self.faults.append(f"{fold} has one speaker of {', '.join(alone) or 'no class'}")

    def counts(self, row: str, conditions: Sequence[str]) -> np.ndarray:
        """Return a row's confusion matrices (C, S, Q, N, N)."""
        n, parts = len(self.labels), []
        for condition in conditions:
            answers = read_answers(_of(self.predictions, row, condition), self.labels)
            one_hot = np.zeros((self.speakers, len(answers.predicted), n, n))
            for seed, predicted in enumerate(answers.predicted):
                np.add.at(one_hot[:, seed], (answers.clusters, answers.truth, predicted), 1)
            parts.append(one_hot)
        return np.stack(parts, axis=2)

    def uar(self, counts: np.ndarray) -> Floats:
        """Return the mean UAR (...) over seeds and conditions of summed counts (..., S, Q, N, N)."""
        mean: Floats = metrics.uar(counts, self.keep).mean(axis=(-2, -1))
        return mean


def _of(predictions: "pd.DataFrame", row: str, condition: str) -> "pd.DataFrame":
    return predictions[(predictions["row"] == row) & (predictions["condition"] == condition)]


def _difference(
    targets: Sequence[_Target], row: str, rival: str, conditions: Sequence[str], confidence: float
) -> Difference:
    from scipy.stats import t

    tested = not any(target.faults for target in targets)
    values, centres, variances, freedoms = [], [], [], []
    for target in targets:
        ours, theirs = (target.counts(name, conditions) for name in (row, rival))
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
    half = float(t.ppf((1 + confidence) / 2, freedom)) * error
    p = 2 * float(t.sf(abs(centre) / error, freedom))
    return Difference(rival=rival, value=value, low=centre - half, high=centre + half, p=p)
