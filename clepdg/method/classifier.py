"""The classifier: learnt from text embeddings, applied to audio embeddings.

Shapes: R rows of text embeddings, U utterances, D joint embedding, N labels. Every row of the results table is one
`Head`: the same linear form, whether it was learnt from text, from audio, or counts labels.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clepdg.callbacks import USUAL, Pace, Reporting
from clepdg.config.schema import ClassifierConfig
from clepdg.errors import ClepError, StoreError
from clepdg.hashing import digest
from clepdg.models.tensors import digest_tensors, load_tensors, save_tensors
from clepdg.store.readers import read_facts
from clepdg.training.loop import Training

MAX_LOG_TEMPERATURE = math.log(100.0)
TENSORS = {"weight": ("float32", 2), "bias": ("float32", 1), "mean": ("float32", 1)}


@dataclass(frozen=True, kw_only=True)
class Head:
    """Logits of embeddings x (U, D): cosine: T n(x - mean) n(W)^T; otherwise x W^T + b.

    Attributes:
        weight: W (N, D).
        bias: b (N,), not used by a cosine head.
        mean: subtracted from audio embeddings (D,), zero without centring.
        log_temperature: log T in [0, ln 100].
    """

    labels: tuple[str, ...]
    cosine: bool
    weight: Tensor
    bias: Tensor
    mean: Tensor
    log_temperature: float = 0.0

    def logits(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits (U, N)."""
        x = torch.from_numpy(np.ascontiguousarray(embeddings))
        if not self.cosine:
            return (x @ self.weight.T + self.bias).numpy()
        cosine = F.normalize(x - self.mean, dim=1) @ F.normalize(self.weight, dim=1).T
        return (math.exp(self.log_temperature) * cosine).numpy()

    def probabilities(self, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return probabilities (U, N)."""
        logits = self.logits(embeddings).astype(np.float64)
        odds: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
        odds /= odds.sum(axis=1, keepdims=True)
        return odds

    def save(self, folder: Path) -> str:
        """Write head.safetensors and head.json; return the content digest."""
        tensors = {"weight": self.weight, "bias": self.bias, "mean": self.mean}
        facts = {"labels": self.labels, "cosine": self.cosine, "log_temperature": self.log_temperature}
        save_tensors(folder / "head.safetensors", tensors)
        (folder / "head.json").write_text(json.dumps(facts, indent=1, sort_keys=True))
        return digest([digest_tensors(tensors), facts])


def load_head(folder: Path) -> Head:
    """Read what Head.save wrote.

    Raises:
        StoreError: the folder holds no head, or its parts do not fit together.
    """
    tensors = load_tensors(folder / "head.safetensors", TENSORS)
    facts = read_facts(folder / "head.json", dict)
    n, d = tensors["weight"].shape
    labels, log_temperature = facts.get("labels"), facts.get("log_temperature")
    if (
        set(facts) != {"labels", "cosine", "log_temperature"}
        or not (isinstance(labels, list) and len(labels) == n and all(isinstance(label, str) for label in labels))
        or not (isinstance(log_temperature, int | float) and isinstance(facts["cosine"], bool))
        or (len(tensors["bias"]), len(tensors["mean"])) != (n, d)
    ):
        raise StoreError("A classifier's head is inconsistent.", got=f"{facts}, weight {n} x {d}", where=folder)
    return Head(labels=tuple(labels), cosine=facts["cosine"], log_temperature=float(log_temperature), **tensors)


def arcface_logits(cosine: Tensor, y: Tensor, scale: float, margin: float) -> Tensor:
    """Return ArcFace logits of cosines (R, N) for labels y (R,), with its guard (Deng et al., CVPR 2019).

    phi = cos(theta + m), but cos - m sin m where theta + m would pass pi: without it the loss falls again beyond pi and
    training collapses. cosines are kept off +-1, where the sine has no gradient.
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
    pace: Pace = USUAL,
    *,
    new: int | None = None,
    sets: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Learn W (N, D) from text embeddings x (R, D) with labels y (R,); W starts from the class means.

    With centring, the mean over classes of the class means is subtracted, then x is normalised; audio is centred by a
    mean of its own (`Head.mean`), since the two live in different cones of the space (the modality gap). Noise, which
    widens text towards audio, is added after that, and x normalised again.

    Args:
        new: the label that is added by its word alone; the mean is that of the others.
        sets: (R,) number of the set that a row belongs to, -1 for those of every set: each pass over a set is followed
            by one over the next, in turn. None: all rows at once.
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
            pace=pace,
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
    """Return the mean (D,) over corpora of the mean over classes of source-training embeddings (U, D)."""
    names = np.asarray(corpora)
    total = np.zeros(embeddings.shape[1])
    for corpus in sorted(set(corpora)):
        x, y = embeddings[names == corpus], label_index[names == corpus]
        total += np.mean([x[y == label].mean(axis=0) for label in np.unique(y)], axis=0)
    mean: NDArray[np.float32] = (total / len(set(corpora))).astype(np.float32)
    return mean


def weights(label_index: NDArray[np.int64], corpora: Sequence[str]) -> NDArray[np.float64]:
    """Return weights (U,) that sum to 1 and give every corpus, and every class within it, the same sum."""
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
    """Return log T in [0, ln 100] with the least class- and corpus-weighted NLL on source validation (U, D)."""
    from scipy.optimize import minimize_scalar

    cosine = head.logits(embeddings).astype(np.float64) / math.exp(head.log_temperature)
    w = weights(y, corpora)

    def nll(log_temperature: float) -> float:
        scaled = math.exp(log_temperature) * cosine
        top = scaled.max(axis=1)
        return float(w @ (top + np.log(np.exp(scaled - top[:, None]).sum(axis=1)) - scaled[np.arange(len(y)), y]))

    found = minimize_scalar(nll, bounds=(0.0, MAX_LOG_TEMPERATURE), method="bounded", options={"xatol": 1e-4})
    return round(float(found.x), 4)


def without(head: Head, label: str) -> Head:
    """Return the head without a label."""
    keep = [n for n, name in enumerate(head.labels) if name != label]
    labels = tuple(head.labels[n] for n in keep)
    return replace(head, labels=labels, weight=head.weight[keep], bias=head.bias[keep])


def fit_audio(x: NDArray[np.float32], y: NDArray[np.int64], names: tuple[str, ...]) -> Head:
    """Fit a logistic regression on standardised audio embeddings (U, D): the probe, or the log-mel floor.

    Raises:
        ClepError: fewer than two labels to learn.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    if len(set(y)) < 2:
        found = [names[label] for label in sorted(set(y))]
        raise ClepError("A probe needs training utterances of two labels at least.", got=found, expected=names)
    x = x.astype(np.float64)  # in float32 the weights depend on the processor and its threads from the fourth digit on
    mean, std = x.mean(axis=0), x.std(axis=0) + 1e-6
    with threadpool_limits(1):  # small matrices: threads would only cost
        model = LogisticRegression(max_iter=2000, class_weight="balanced").fit((x - mean) / std, y)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:  # two classes: scikit-learn keeps one row
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    full = np.zeros((len(names), x.shape[1]))
    offsets = np.full(len(names), -1e4)  # a label that no source has is never predicted
    full[model.classes_], offsets[model.classes_] = weight / std, bias - weight @ (mean / std)
    return Head(
        labels=names,
        cosine=False,
        weight=torch.from_numpy(full).float(),
        bias=torch.from_numpy(offsets).float(),
        mean=torch.zeros(x.shape[1]),
    )


def majority(y: NDArray[np.int64], names: tuple[str, ...], dimension: int) -> Head:
    """Return the head that gives every utterance the sources' label frequencies."""
    share = (np.bincount(y, minlength=len(names)) + 1e-4) / (len(y) + 1e-4 * len(names))
    return Head(
        labels=names,
        cosine=False,
        weight=torch.zeros(len(names), dimension),
        bias=torch.from_numpy(np.log(share)).float(),
        mean=torch.zeros(dimension),
    )
