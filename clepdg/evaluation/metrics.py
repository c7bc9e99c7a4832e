"""Metrics of predictions, most of them from confusion matrices.

Shapes: U utterances, N labels, `...` leading axes (seeds, resamples, clusters). A confusion matrix (..., N, N) holds
counts, rows are the truth. `keep` (N,) says which classes a class average is taken over; None is all of them. Classes
without support never enter an average, and an average over nothing is NaN.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ECE_BINS = 15


def confusion(truth: Ints, predicted: Ints, labels: int) -> Ints:
    """Count a confusion matrix (..., N, N).

    Args:
        truth: label indices (U,).
        predicted: label indices (..., U).
    """
    leading = predicted.shape[:-1]
    cells = (truth * labels + predicted).reshape(math.prod(leading), truth.size)
    offsets = np.arange(len(cells))[:, None] * labels**2
    counts = np.bincount((cells + offsets).ravel(), minlength=len(cells) * labels**2)
    return counts.reshape(*leading, labels, labels)


def recalls(confusion: Floats | Ints) -> Floats:
    """Compute the recall of each class (..., N), NaN without support."""
    return _share(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1))


def uar(confusion: Floats | Ints, keep: Bools | None = None) -> Floats:
    """Compute the unweighted average recall (...) over the kept classes.

    Classes without support are left out.
    """
    return _class_mean(recalls(confusion), confusion, keep)


def war(confusion: Floats | Ints) -> Floats:
    """Compute the weighted average recall (...): accuracy."""
    return _share(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)))


def macro_f1(confusion: Floats | Ints, keep: Bools | None = None) -> Floats:
    """Return the mean F1 (...) over the kept classes with support."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _class_mean(_share(2 * hits, confusion.sum(axis=-1) + confusion.sum(axis=-2)), confusion, keep)


def largest_share(confusion: Floats | Ints) -> Floats:
    """Compute the share (...) of the label that is predicted most often.

    Near 1 the classifier has collapsed.
    """
    return _share(confusion.sum(axis=-2).max(axis=-1), confusion.sum(axis=(-2, -1)))


def nll(probabilities: Floats, truth: Ints) -> Floats:
    """Compute the mean negative log-likelihood (...) in nats.

    Of truth (U,) under probabilities (..., U, N).

    Probabilities are clipped at the float64 epsilon, as scikit-learn's log_loss does, so that a 0 stays finite.
    """
    if truth.size == 0:
        return np.full(probabilities.shape[:-2], np.nan)
    of_truth = probabilities[..., np.arange(truth.size), truth]
    mean: Floats = -np.log(of_truth.clip(np.finfo(np.float64).eps, 1.0)).mean(axis=-1)
    return mean


def ece(confidence: Floats, correct: Bools) -> float:
    """Compute the expected calibration error over 15 equal-mass bins.

    Of confidence (U,) against correct (U,).

    Equal confidences share a bin, so that the result does not depend on the order of the utterances.
    """
    if confidence.size == 0:
        return float("nan")
    rank = np.searchsorted(np.sort(confidence), confidence)
    gaps = np.bincount(rank * ECE_BINS // confidence.size, weights=confidence - correct)
    return float(np.abs(gaps).sum() / confidence.size)


def uar_weights(corpora: NDArray[Any], truth: NDArray[Any]) -> Floats:
    """Weigh utterances (U,): weighted accuracy is the corpora's mean UAR.

    A class that a corpus lacks is left out of that corpus's UAR. The weights add up to 1.

    Args:
        corpora: of each utterance (U,).
        truth: its label (U,).
    """
    names, corpus = np.unique(corpora, return_inverse=True)
    labels, label = np.unique(truth, return_inverse=True)
    support = np.zeros((len(names), len(labels)))
    np.add.at(support, (corpus, label), 1)
    weights: Floats = 1 / support[corpus, label] / (support > 0).sum(axis=1)[corpus] / len(names)
    return weights


def _share(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    share = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=share, where=np.asarray(whole) > 0)
    return share


def _class_mean(values: Floats, confusion: Floats | Ints, keep: Bools | None) -> Floats:
    counted = confusion.sum(axis=-1) > 0
    if keep is not None:
        counted = counted & keep
    return _share(np.where(counted, values, 0.0).sum(axis=-1), counted.sum(axis=-1))
