"""Linear classifier heads on audio embeddings.

Shapes: U utterances, D joint embedding, N labels. Every row of the results table is one `Head`.
"""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clepdg.errors import StoreError
from clepdg.hashing import digest
from clepdg.models.tensors import digest_tensors, load_tensors, save_tensors
from clepdg.store.readers import read_facts

TENSORS = {"weight": ("float32", 2), "bias": ("float32", 1), "mean": ("float32", 1)}


@dataclass(frozen=True, kw_only=True)
class Head:
    """A linear classifier of embeddings x (U, D).

    Its logits are T n(x - mean) n(W)^T if cosine, else x W^T + b.

    Attributes:
        weight: W (N, D).
        bias: b (N,), unused by a cosine head.
        mean: (D,) that a cosine head subtracts from audio embeddings; zero without centring.
        log_temperature: log T in [0, ln 100].
    """

    labels: tuple[str, ...]
    cosine: bool
    weight: Tensor
    bias: Tensor
    mean: Tensor
    log_temperature: float = 0.0

    def inputs(self, embeddings: NDArray[np.float32]) -> Tensor:
        """Return what the weights multiply (U, D).

        Cosine heads with equal means have equal ones.
        """
        x = torch.from_numpy(np.ascontiguousarray(embeddings))
        return F.normalize(x - self.mean, dim=1) if self.cosine else x

    def logits(self, embeddings: NDArray[np.float32], inputs: Tensor | None = None) -> NDArray[np.float32]:
        """Return logits (U, N).

        Args:
            inputs: those of the embeddings, where they are known.
        """
        x = self.inputs(embeddings) if inputs is None else inputs
        if not self.cosine:
            return (x @ self.weight.T + self.bias).numpy()
        return (math.exp(self.log_temperature) * (x @ F.normalize(self.weight, dim=1).T)).numpy()

    def probabilities(self, embeddings: NDArray[np.float32], inputs: Tensor | None = None) -> NDArray[np.float64]:
        """Return probabilities (U, N); the arguments are those of `logits`."""
        logits = self.logits(embeddings, inputs).astype(np.float64)
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
    """Read a head that `Head.save` wrote.

    Raises:
        StoreError: the folder holds no head, or its files do not fit together.
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


def drop_label(head: Head, label: str) -> Head:
    """Return the head without a label."""
    keep = [n for n, name in enumerate(head.labels) if name != label]
    labels = tuple(head.labels[n] for n in keep)
    return replace(head, labels=labels, weight=head.weight[keep], bias=head.bias[keep])


def majority(y: NDArray[np.int64], names: tuple[str, ...], dimension: int) -> Head:
    """Return a head that predicts the label frequencies of y (U,).

    Args:
        dimension: D.
    """
    share = (np.bincount(y, minlength=len(names)) + 1e-4) / (len(y) + 1e-4 * len(names))
    return Head(
        labels=names,
        cosine=False,
        weight=torch.zeros(len(names), dimension),
        bias=torch.from_numpy(np.log(share)).float(),
        mean=torch.zeros(dimension),
    )
