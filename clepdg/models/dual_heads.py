"""The projection heads of a dual backbone.

Shapes: B batch, U utterances, P hidden states (layers and their input), A the speech encoder's hidden size, D joint
embedding.
"""

from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from clepdg.config.schema import ClepConfig

DIMENSION: Final = 256  # D
AUDIO_DROPOUT, TEXT_DROPOUT = 0.3, 0.1
LEAST_SPREAD: Final = 1e-5


class Head(nn.Module):
    """Projection head: linear, GELU, linear, residual, layer norm."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, DIMENSION), nn.Linear(DIMENSION, DIMENSION)
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(DIMENSION)

    def forward(self, x: Tensor) -> Tensor:
        """Project x (B, width) to (B, D)."""
        start = self.first(x)
        projected: Tensor = self.norm(start + self.dropout(self.second(F.gelu(start))))
        return projected


class AudioHead(Head):
    """Learned weights over hidden states, then a projection head.

    Means and standard deviations over time are weighted layer by layer: the weighted sum's own standard deviation would
    need the covariances between layers. `centre` and `spread` are statistics of source-training audio; `read` is 1
    where the head reads a number of the states, and 0 elsewhere.
    """

    centre: Tensor
    spread: Tensor
    read: Tensor

    def __init__(self, states: int, width: int) -> None:
        super().__init__(width, AUDIO_DROPOUT)
        self.layers = nn.Parameter(torch.zeros(states))
        self.register_buffer("centre", torch.zeros(states, width))
        self.register_buffer("spread", torch.ones(states, width))
        self.register_buffer("read", torch.ones(states, width))

    def forward(self, pooled: Tensor) -> Tensor:
        """Project pooled states (B, P, 2 A) to (B, D)."""
        standardised = (pooled - self.centre) / self.spread * self.read
        return super().forward(torch.einsum("p,bpa->ba", self.layers.softmax(0), standardised))

    def set_statistics(
        self, states: NDArray[np.float32], corpora: NDArray[Any], config: ClepConfig
    ) -> NDArray[np.float32]:
        """Set what the head reads, and its statistics; return states to train on.

        Args:
            states: (U, P, 2 A), of the training utterances.
            corpora: (U,) their corpora, which weigh the same.
            config: its `standardise` "none": one standardisation for all; "source": each corpus by its own statistics,
                and other audio by the mean of these.
        """
        if config.layers == "last":
            self.read[:-1] = 0
        if config.pooling == "mean":
            self.read[:, self.read.shape[1] // 2 :] = 0
        each = [corpora == corpus for corpus in sorted(set(corpora))]
        means, spreads = (np.stack([f(states[rows], axis=0) for rows in each]) for f in (np.mean, np.std))
        centre = means.mean(axis=0)
        between = 0 if config.standardise == "source" else (means - centre) ** 2
        spread = np.maximum(np.sqrt((spreads**2 + between).mean(axis=0)), LEAST_SPREAD)
        self.centre.copy_(torch.from_numpy(centre))
        self.spread.copy_(torch.from_numpy(spread))
        if config.standardise == "none":
            return states
        own = states.copy()
        for rows in each:
            own[rows] = self.standardise(states[rows], states[rows])
        return own

    def standardise(self, states: NDArray[np.float32], by: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give states (U, P, 2 A) the sources' mean and spread.

        Their own are those of `by` (V, P, 2 A).
        """
        shifted: NDArray[np.float32] = self.shift(torch.from_numpy(states), by).cpu().numpy()
        return shifted

    def shift(self, pooled: Tensor, by: NDArray[np.float32]) -> Tensor:
        """Do the same with gradients."""
        own = by.mean(axis=0), np.maximum(by.std(axis=0), LEAST_SPREAD)
        mean, deviation = (torch.from_numpy(x).to(self.centre.device) for x in own)
        return self.centre + self.spread * (pooled.to(self.centre.device) - mean) / deviation
