"""Compare moves of audio by corruptions with moves of text by contexts.

A corruption moves an utterance by a(noisy) - a(clean), a context k moves emotion n by u_kn - c_n. Two questions:

    names       of all contexts in words, how high does the one that names a corruption rank by the cosine of its mean
                move with the corruption's? Null: the names dealt to the corruptions at random.
    subspace    how much of the squared moves of audio lies in the top directions of a set of contexts' moves? Against
                random contexts, and against random directions.

Shapes: U utterances, K contexts, N labels, D joint embedding, r directions, F corruptions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from clepdg.evaluation.metrics import Floats
from clepdg.hashing import generator

DIRECTIONS: Final = 8  # r
DEALS: Final = 10_000
DRAWS: Final = 200


@dataclass(frozen=True, kw_only=True)
class Names:
    """Ranks of the corruptions' own contexts among K, with their p-value.

    Rank 1 is best; p is that of a mean rank as high by chance.
    """

    ranks: dict[str, int]
    contexts: int
    mean_rank: float
    p: float


def rank_names(
    audio_moves: Mapping[str, Floats], text_moves: Floats, contexts: Sequence[str], names: Mapping[str, str]
) -> Names | None:
    """Rank each corruption's own context; None where none has one.

    Args:
        audio_moves: corruption -> a(noisy) - a(clean) of utterances (U, D).
        text_moves: u_kn - c_n of the contexts in words (K, N, D).
        contexts: the contexts in words (K,).
        names: corruption -> the context that names it.
    """
    own = {kind: list(contexts).index(names[kind]) for kind in audio_moves if names.get(kind) in contexts}
    if not own:
        return None
    audio = np.stack([_unit(audio_moves[kind]).mean(axis=0) for kind in own])  # (F, D)
    text = _unit(_unit(text_moves).mean(axis=1))  # (K, D)
    text = text - text.mean(axis=0)  # what all contexts share tells none of them from another
    cosine = audio @ _unit(text).T  # (F, K), but for a corruption's own length, which ranks nothing
    ranks = 1 + (cosine[:, None, :] > cosine[:, :, None]).sum(axis=2)  # (F, K): the rank of each context
    observed = ranks[np.arange(len(own)), list(own.values())]
    rng = generator("names", sorted(own))
    dealt = np.stack([rng.permutation(len(contexts))[: len(own)] for _ in range(DEALS)])  # (DEALS, F)
    by_chance = ranks[np.arange(len(own)), dealt].mean(axis=1)
    return Names(
        ranks={kind: int(rank) for kind, rank in zip(own, observed, strict=True)},
        contexts=len(contexts),
        mean_rank=float(observed.mean()),
        p=float((1 + (by_chance <= observed.mean()).sum()) / (1 + DEALS)),
    )


def subspace_share(audio_moves: Floats, text_moves: Floats, directions: int = DIRECTIONS) -> float:
    """Return the share of squared audio moves in the text moves' subspace.

    The subspace is that of the top r directions of text moves (..., D); audio moves are (U, D).
    """
    _, _, basis = np.linalg.svd(text_moves.reshape(-1, text_moves.shape[-1]), full_matrices=False)
    return _inside(audio_moves.T @ audio_moves, basis[:directions])


def random_share(audio_moves: Floats, directions: int = DIRECTIONS) -> tuple[float, float]:
    """Return mean and 95th percentile of that share in random subspaces."""
    rng = generator("subspace", directions, audio_moves.shape[1])
    shares, products = [], audio_moves.T @ audio_moves
    for _ in range(DRAWS):
        basis, _ = np.linalg.qr(rng.standard_normal((audio_moves.shape[1], directions)))
        shares.append(_inside(products, basis.T))
    return float(np.mean(shares)), float(np.quantile(shares, 0.95))


def _inside(products: Floats, basis: Floats) -> float:
    """Return the share of squared moves inside an orthonormal basis (r, D).

    Args:
        products: of the moves (D, D).
        basis: (r, D).
    """
    return float(((basis @ products) * basis).sum() / max(np.trace(products), 1e-12))


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return unit
