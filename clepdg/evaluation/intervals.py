"""Confidence intervals over speakers, of UAR and of differences.

Utterances of one speaker are not independent, so speakers are what is resampled. The percentile bootstrap covers less
than it says when there are few of them (about .77 / .85 / .89 / .92 of a nominal .95 with 4 / 6 / 10 / 24), hence:

    20 and more speakers   "bootstrap"          percentile bootstrap over speakers
    6 to 19                "jackknife t"        t interval on the speakers' jackknife pseudo-values
    fewer                  "ignores speakers"   percentile bootstrap over utterances: describes, credits nothing

Shapes: S seeds, U utterances, C clusters (speakers), N labels, R resamples. Seeds are averaged inside: the statistic is
the mean over seeds of UAR on one and the same resample.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from clepdg.evaluation import metrics
from clepdg.evaluation.metrics import Bools, Floats, Ints

BOOTSTRAP, JACKKNIFE, UTTERANCES = "bootstrap", "jackknife t", "ignores speakers"
BOOTSTRAP_SPEAKERS = 20
JACKKNIFE_SPEAKERS = 6


Metric = Callable[[Floats, Bools], Floats]  # of confusion matrices (..., N, N) and the kept classes (N,)
METRICS: Final[Mapping[str, Metric]] = {
    "UAR": metrics.uar,
    "WAR": lambda confusion, keep: metrics.war(confusion),
    "macro-F1": metrics.macro_f1,
}
LINEAR: Final = ("UAR", "WAR")  # in the counts, for one truth: of the seeds' mean counts they are the mean over seeds


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A statistic on all utterances, with its interval.

    `method` says how it was found; `redrawn` counts resamples that lacked a class.
    """

    value: float
    low: float
    high: float
    method: str
    redrawn: int = 0


def interval(
    truth: Ints,
    predicted: Ints,
    clusters: Ints,
    keep: Bools,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> Interval:
    """Return UAR, averaged over seeds, with its interval.

    Args:
        truth: label indices (U,).
        predicted: label indices (S, U).
        clusters: the speaker of each utterance (U,), 0 ... C - 1.
        keep: the classes that UAR is taken over (N,); each has at least one utterance.
        resamples: R of the bootstraps.
        confidence: nominal coverage, for example 0.95.
        seed: of the resamples: an equal one gives equal resamples to every row on the same utterances.
    """
    return _interval(truth, [predicted], clusters, keep, resamples, confidence, seed)


def paired(
    truth: Ints,
    predicted: Ints,
    rival: Ints,
    clusters: Ints,
    keep: Bools,
    *,
    resamples: int,
    confidence: float,
    seed: int,
    metric: str = "UAR",
) -> Interval:
    """Return UAR of predicted (S, U) minus UAR of rival (S', U), paired.

    One resample of the utterances serves both.

    The other arguments are those of `interval`.

    Args:
        metric: one of METRICS, in the place of UAR.
    """
    return _interval(truth, [predicted, rival], clusters, keep, resamples, confidence, seed, metric)


def _interval(
    truth: Ints,
    rows: Sequence[Ints],
    clusters: Ints,
    keep: Bools,
    resamples: int,
    confidence: float,
    seed: int,
    metric: str = "UAR",
) -> Interval:
    measure = METRICS[metric]
    parts = [_by_cluster(truth, row, clusters, len(keep), metric) for row in rows]
    support = _support(truth, clusters, keep)
    if not keep.any() or not support.sum(axis=0).all():
        raise ValueError("Every class that is kept needs an utterance, and at least one class is kept.")
    method = _method(support)
    if method == JACKKNIFE:
        value, low, high = _jackknife(parts, keep, confidence, measure)
        redrawn = 0
    else:
        if method == UTTERANCES:
            clusters = np.arange(truth.size)
            parts = [_by_cluster(truth, row, clusters, len(keep), metric) for row in rows]
            support = _support(truth, clusters, keep)
        weights, redrawn = _resamples(support.tobytes(), support.shape, resamples, seed)
        value = float(_statistic(parts, np.ones((1, len(support))), keep, measure)[0])
        tail = (1 - confidence) / 2
        low, high = np.quantile(_statistic(parts, weights, keep, measure), [tail, 1 - tail])
    bottom = 0.0 if len(rows) == 1 else -1.0
    return Interval(value=value, low=max(bottom, low), high=min(1.0, high), method=method, redrawn=redrawn)


def _method(support: Ints) -> str:
    """Choose the method by the number of speakers.

    The jackknife can't leave out the only speaker of a class.
    """
    if len(support) >= BOOTSTRAP_SPEAKERS:
        return BOOTSTRAP
    alone = ((support > 0).sum(axis=0) < 2).any()
    return UTTERANCES if len(support) < JACKKNIFE_SPEAKERS or alone else JACKKNIFE


def _support(truth: Ints, clusters: Ints, keep: Bools) -> Ints:
    """Count the utterances of each cluster and kept class (C, kept)."""
    count = int(clusters.max()) + 1
    return np.bincount(clusters * len(keep) + truth, minlength=count * len(keep)).reshape(count, -1)[:, keep]


def _by_cluster(truth: Ints, predicted: Ints, clusters: Ints, labels: int, metric: str) -> Floats:
    """Count the confusion matrices of each cluster and seed (C, S, N, N).

    Of linear metrics those of the seeds' mean (C, 1, N, N).
    """
    seeds, count = len(predicted), int(clusters.max()) + 1
    cell = ((clusters * seeds + np.arange(seeds)[:, None]) * labels + truth) * labels + predicted  # (S, U)
    counts = np.bincount(cell.ravel(), minlength=count * seeds * labels**2).reshape(count, seeds, labels, labels)
    return counts.mean(axis=1, keepdims=True) if metric in LINEAR else counts.astype(np.float64)


def _statistic(parts: Sequence[Floats], weights: Floats, keep: Bools, metric: Metric) -> Floats:
    """Compute the metric (R,), or a difference of two, on resamples.

    Args:
        weights: how often each cluster counts (R, C).
    """
    values: list[Floats] = []
    for part in parts:
        summed = (weights @ part.reshape(len(part), -1)).reshape(len(weights), *part.shape[1:])
        values.append(metric(summed, keep).mean(axis=-1))
    return values[0] if len(values) == 1 else values[0] - values[1]


@lru_cache(maxsize=2)
def _resamples(support_bytes: bytes, shape: tuple[int, int], resamples: int, seed: int) -> tuple[Floats, int]:
    """Draw how often each cluster is in each resample (R, C).

    A resample without a kept class is redrawn and counted.

    Rows on the same utterances follow one another: what was drawn last is kept.
    """
    support, rng, count = np.frombuffer(support_bytes, np.int64).reshape(shape), np.random.default_rng(seed), shape[0]
    weights = np.zeros((resamples, count))
    pending, redrawn = np.arange(resamples), 0
    while True:
        drawn = rng.integers(count, size=(len(pending), count)) + np.arange(len(pending))[:, None] * count
        weights[pending] = np.bincount(drawn.ravel(), minlength=len(pending) * count).reshape(-1, count)
        pending = pending[(weights[pending] @ support == 0).any(axis=1)]
        if len(pending) == 0:
            weights.flags.writeable = False
            return weights, redrawn
        redrawn += len(pending)


def _jackknife(parts: Sequence[Floats], keep: Bools, confidence: float, metric: Metric) -> tuple[float, float, float]:
    """Compute the statistic and the t interval of its pseudo-values."""
    from scipy.stats import t

    count = len(parts[0])
    value = float(_statistic(parts, np.ones((1, count)), keep, metric)[0])
    pseudo = count * value - (count - 1) * _statistic(parts, 1.0 - np.eye(count), keep, metric)
    half = float(t.ppf((1 + confidence) / 2, count - 1)) * pseudo.std(ddof=1) / np.sqrt(count)
    return value, float(pseudo.mean() - half), float(pseudo.mean() + half)
