"""Fit classifier heads on text embeddings or on audio embeddings.

Shapes: R rows of text embeddings, U utterances, D joint embedding, N labels.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clepdg.callbacks import DEFAULT_CHECKPOINTING, Checkpointing, Reporting
from clepdg.config.schema import ClassifierConfig
from clepdg.errors import ClepError
from clepdg.method.heads import Head
from clepdg.training.loop import Training

MAX_LOG_TEMPERATURE = math.log(100.0)


def arcface_logits(cosine: Tensor, y: Tensor, scale: float, margin: float) -> Tensor:
    """Return ArcFace logits (R, N) of cosines (R, N), labels y (R,).

    phi = cos(theta + m), but cos - m sin m if theta + m exceeds pi: otherwise the loss falls again beyond pi and
    training collapses (Deng et al., CVPR 2019). Cosines are clamped away from +-1, where the sine has no gradient.
    """
    cosine = cosine.float().clamp(-1 + 1e-6, 1 - 1e-6)
    sine = torch.sqrt(1 - cosine.square())
    phi = cosine * math.cos(margin) - sine * math.sin(margin)
    guarded = torch.where(cosine > math.cos(math.pi - margin), phi, cosine - margin * math.sin(margin))
    own = F.one_hot(y, cosine.shape[1]).bool()
    return scale * torch.where(own, guarded, cosine)


def class_means(x: Tensor, y: Tensor, n: int) -> Tensor:
    """Return the mean (N, D) of each class's rows of x (R, D)."""
    return torch.stack([x[y == label].mean(dim=0) for label in range(n)])


def fit_text(
    x: Tensor,
    y: Tensor,
    n: int,
    config: ClassifierConfig,
    seed: int,
    folder: Path,
    reporting: Reporting,
    checkpointing: Checkpointing = DEFAULT_CHECKPOINTING,
    *,
    new: int | None = None,
    sets: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Fit W (N, D) to text embeddings x (R, D) with labels y (R,).

    W starts from the class means. With centring, the mean of the class means is subtracted and x is normalised; audio
    has its own mean (`Head.mean`), since text and audio lie in different cones of the space (the modality gap). Noise,
    which spreads text towards audio, is added afterwards, and x is normalised again.

    Args:
        n: N.
        new: index of a label that is known by its word alone and left out of the mean; None: there is none.
        sets: (R,) set number of each row, -1: the row is in every set. Training passes over the sets in turn. None: all
            rows are one set.

    Returns:
        W, and metrics: relative change of the weights, accuracy on the text embeddings, number of rows.
    """
    if config.centring != "none":
        means = class_means(x, y, n)
        x = x - means[[label for label in range(n) if label != new]].mean(dim=0)
    x = F.normalize(x, dim=1)
    start = class_means(x, y, n)
    weight = torch.nn.Parameter(start.clone())

    passes = [torch.arange(len(x))]
    if sets is not None:
        passes = [torch.nonzero((sets == number) | (sets < 0))[:, 0] for number in range(int(sets.max()) + 1)]

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        pool = passes[step * config.batch_size // len(passes[0]) % len(passes)]
        rng = np.random.default_rng([seed, step])
        rows = pool[rng.integers(len(pool), size=config.batch_size)]
        drawn = x[rows]
        if config.noise:
            noise = torch.from_numpy(rng.standard_normal(drawn.shape)).float()
            drawn = F.normalize(drawn + config.noise / math.sqrt(drawn.shape[1]) * noise, dim=1)
        cosine = drawn @ F.normalize(weight, dim=1).T
        if config.loss == "arcface":
            logits = arcface_logits(cosine, y[rows], config.arcface_scale, config.arcface_margin)
        else:
            logits = config.arcface_scale * cosine
        return F.cross_entropy(logits, y[rows]), {}

    if config.steps:
        Training(
            tensors={"weight": weight},
            optimiser=torch.optim.SGD([weight], lr=config.learning_rate, momentum=config.momentum),
            loss=loss,
            steps=config.steps,
            seed=seed,
            folder=folder,
            checkpointing=checkpointing,
            reporting=reporting,
        ).run()
    learned = weight.detach()
    accuracy = (F.normalize(x) @ F.normalize(learned).T).argmax(dim=1).eq(y).float().mean()
    return learned, {
        "weight_change": float((learned - start).norm() / start.norm()),
        "text_accuracy": float(accuracy),
        "text_rows": float(len(x)),
    }


def source_mean(
    embeddings: NDArray[np.float32], label_index: NDArray[np.int64], corpora: Sequence[str]
) -> NDArray[np.float32]:
    """Return the mean (D,) of embeddings (U, D), balanced by corpus and class."""
    names = np.asarray(corpora)
    total = np.zeros(embeddings.shape[1])
    for corpus in sorted(set(corpora)):
        x, y = embeddings[names == corpus], label_index[names == corpus]
        total += np.mean([x[y == label].mean(axis=0) for label in np.unique(y)], axis=0)
    mean: NDArray[np.float32] = (total / len(set(corpora))).astype(np.float32)
    return mean


def balanced_weights(label_index: NDArray[np.int64], corpora: Sequence[str]) -> NDArray[np.float64]:
    """Return weights (U,) that balance corpora and their classes.

    They sum to 1.
    """
    names = np.asarray(corpora)
    w = np.zeros(len(names))
    for corpus in set(corpora):
        classes = np.unique(label_index[names == corpus])
        for y in classes:
            mask = (names == corpus) & (label_index == y)
            w[mask] = 1 / (mask.sum() * len(classes))
    w /= w.sum()
    return w


def fit_temperature(head: Head, embeddings: NDArray[np.float32], y: NDArray[np.int64], corpora: Sequence[str]) -> float:
    """Return the log T in [0, ln 100] that minimises the balanced NLL.

    Args:
        embeddings: (U, D) of the source corpora's validation utterances.
        y: (U,) their labels.
        corpora: (U,) their corpora.
    """
    from scipy.optimize import minimize_scalar

    cosine = head.logits(embeddings).astype(np.float64) / math.exp(head.log_temperature)
    w = balanced_weights(y, corpora)

    def nll(log_temperature: float) -> float:
        scaled = math.exp(log_temperature) * cosine
        top = scaled.max(axis=1)
        return float(w @ (top + np.log(np.exp(scaled - top[:, None]).sum(axis=1)) - scaled[np.arange(len(y)), y]))

    found = minimize_scalar(nll, bounds=(0.0, MAX_LOG_TEMPERATURE), method="bounded", options={"xatol": 1e-4})
    return round(float(found.x), 4)


def fit_audio(x: NDArray[np.float32], y: NDArray[np.int64], names: tuple[str, ...]) -> Head:
    """Fit a logistic regression on embeddings x (U, D), labels y (U,).

    The embeddings are standardised.

    Raises:
        ClepError: y holds fewer than two labels.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    if len(set(y)) < 2:
        found = [names[label] for label in sorted(set(y))]
        raise ClepError("A probe needs training utterances of at least two labels.", got=found, expected=names)
    x = x.astype(np.float64)  # in float32 the fourth digit of the weights depends on the processor and its threads
    mean, std = x.mean(axis=0), x.std(axis=0) + 1e-6
    with threadpool_limits(1):  # threads slow down small matrices
        model = LogisticRegression(max_iter=2000, class_weight="balanced").fit((x - mean) / std, y)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:  # with two classes, scikit-learn keeps one row
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    full = np.zeros((len(names), x.shape[1]))
    offsets = np.full(len(names), -1e4)  # a label without training utterances is never predicted
    full[model.classes_], offsets[model.classes_] = weight / std, bias - weight @ (mean / std)
    return Head(
        labels=names,
        cosine=False,
        weight=torch.from_numpy(full).float(),
        bias=torch.from_numpy(offsets).float(),
        mean=torch.zeros(x.shape[1]),
    )
