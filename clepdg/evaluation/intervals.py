"""Compute confidence intervals over speakers and CLEP seeds, of UAR and of differences.

Utterances of one speaker are not independent, nor are the figures of one trained CLEP: both are random
(clepdg/evaluation/crossed_effects.py). A speaker's value is its jackknife pseudo-value. Speakers of unequal size count
less: their effective number is (sum n)^2 / sum n^2, and it decides.

    6 and more effective speakers   "over speakers"      t with effective speakers - 1
    fewer, or a class of one        "ignores speakers"   the same over utterances: describes, credits nothing

Where predictions name clusters that are wider than speakers (sessions), these stand in for them: "over clusters".

Shapes: U utterances, C clusters, S seeds, J CLEP seeds, N labels. A CLEP seed's figure is the mean over the later seeds
below it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from clepdg.config.conditions import family_weights
from clepdg.evaluation import metrics
from clepdg.evaluation.crossed_effects import Mean, crossed
from clepdg.evaluation.metrics import Bools, Floats
from clepdg.evaluation.predictions import Predictions

SPEAKERS, CLUSTERS, UTTERANCES = "over speakers", "over clusters", "ignores speakers"
EFFECTIVE_SPEAKERS = 6  # fewer have no interval over speakers


Metric = Callable[[Floats, Bools], Floats]  # of confusion matrices (..., N, N) and the kept classes (N,)
METRICS: Final[Mapping[str, Metric]] = {
    "UAR": metrics.uar,
    "WAR": lambda confusion, keep: metrics.war(confusion),
    "macro-F1": metrics.macro_f1,
}


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A statistic on all utterances, with its interval.

    `method` says what it is over; `cleps` is the number of CLEP seeds.
    """

    value: float
    low: float
    high: float
    method: str
    cleps: int = 1


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Confusions (C, S, N, N) of a row, and the CLEP of each seed (S,)."""

    confusions: Floats
    cleps: tuple[str, ...]


def count(heard: Mapping[str, Predictions]) -> Counts:
    """Count confusions by cluster and seed.

    Of several conditions their mean over families: UAR, linear in the counts, is then the mean of the conditions' UARs.

    Args:
        heard: condition -> predictions of the same utterances by the same seeds.
    """
    weights, total = family_weights(list(heard)), np.zeros(())
    for condition, predictions in heard.items():
        labels, seeds, clusters = predictions.labels, len(predictions.predicted), predictions.clusters
        cells = int(clusters.max(initial=-1)) + 1
        place = (clusters * seeds + np.arange(seeds)[:, None]) * labels + predictions.truth
        found = np.bincount((place * labels + predictions.predicted).ravel(), minlength=cells * seeds * labels**2)
        total = total + weights[condition] * found.reshape(cells, seeds, labels, labels)
    return Counts(confusions=total, cleps=next(iter(heard.values())).cleps)


def interval(heard: Mapping[str, Predictions], keep: Bools, *, confidence: float) -> Interval:
    """Return UAR with its interval.

    Args:
        heard: condition -> predictions of the same utterances; several give the mean over families.
        keep: the classes that UAR is taken over (N,); each has at least two utterances.
        confidence: nominal coverage, for example 0.95.
    """
    return _interval([heard], keep, confidence, "UAR")


def paired(
    heard: Mapping[str, Predictions],
    rival: Mapping[str, Predictions],
    keep: Bools,
    *,
    confidence: float,
    metric: str = "UAR",
) -> Interval:
    """Return UAR minus UAR of a rival on the same utterances.

    The difference is taken speaker by speaker and CLEP by CLEP. The other arguments are those of `interval`.

    Args:
        metric: one of METRICS, in the place of UAR.
    """
    return _interval([heard, rival], keep, confidence, metric)


def _interval(rows: Sequence[Mapping[str, Predictions]], keep: Bools, confidence: float, metric: str) -> Interval:
    one = next(iter(rows[0].values()))
    support = np.bincount(one.truth, minlength=one.labels)
    if not keep.any() or (support[keep] < 2).any():
        raise ValueError("Every class that is kept needs two utterances, and at least one class is kept.")
    parts = [count(heard) for heard in rows]
    method = SPEAKERS if np.array_equal(one.clusters, one.speakers) else CLUSTERS
    if not testable(parts[0], keep):
        method = UTTERANCES
        each = np.arange(one.truth.size)
        parts = [count({name: replace(own, clusters=each) for name, own in heard.items()}) for heard in rows]
    mean = estimate(parts, keep, metric)
    low, high = mean.interval(confidence, low=0.0 if len(rows) == 1 else -1.0)
    return Interval(value=mean.value, low=low, high=high, method=method, cleps=len(mean.by_seed))


def effective(counts: Counts, keep: Bools) -> float:
    """Return the effective number of clusters, (sum n)^2 / sum n^2."""
    sizes = counts.confusions[:, 0].sum(axis=-1)[:, keep].sum(axis=-1)
    return float(sizes.sum() ** 2 / np.square(sizes).sum()) if sizes.any() else 0.0


def testable(counts: Counts, keep: Bools) -> bool:
    """Return whether clusters are enough for an interval over them.

    The jackknife can't leave out the only cluster of a class.
    """
    of_class = (counts.confusions[:, 0].sum(axis=-1)[:, keep] > 0).sum(axis=0)
    return effective(counts, keep) >= EFFECTIVE_SPEAKERS and bool((of_class > 1).all())


def estimate(parts: Sequence[Counts], keep: Bools, metric: str = "UAR") -> Mean:
    """Estimate a row's metric, or the difference of two rows.

    Over clusters and CLEP seeds; without a variance where a class has one cluster.
    """
    whole, pseudo = zip(*(_pseudo_values(part, keep, METRICS[metric]) for part in parts), strict=True)
    if len(parts) == 2:
        _check_pairing(*parts)
    by_seed = whole[0] if len(parts) == 1 else whole[0] - whole[1]
    table = pseudo[0] if len(parts) == 1 else pseudo[0] - pseudo[1]
    of_class = (parts[0].confusions[:, 0].sum(axis=-1)[:, keep] > 0).sum(axis=0)
    table = table if (of_class > 1).all() else table[:1]
    return crossed(table, by_seed, effective(parts[0], keep) - 1)


def _pseudo_values(counts: Counts, keep: Bools, metric: Metric) -> tuple[Floats, Floats]:
    """Return a metric by CLEP seed (J,), and its pseudo-values (C, J)."""
    names = list(dict.fromkeys(counts.cleps))
    member = np.array([[clep == name for name in names] for clep in counts.cleps], np.float64)  # (S, J)
    member /= member.sum(axis=0)
    total, clusters = counts.confusions.sum(axis=0), len(counts.confusions)
    whole: Floats = metric(total, keep) @ member
    without: Floats = metric(total - counts.confusions, keep) @ member
    return whole, whole + (clusters - 1) * (whole - without)


def _check_pairing(one: Counts, other: Counts) -> None:
    """Refuse rows of different CLEP seeds, of which none can be paired."""
    ours, theirs = (dict.fromkeys(counts.cleps) for counts in (one, other))
    if min(len(ours), len(theirs)) > 1 and list(ours) != list(theirs):
        raise ValueError(f"Rows of different CLEP seeds can't be paired: {', '.join(ours)}; {', '.join(theirs)}.")
