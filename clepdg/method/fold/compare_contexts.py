"""Compare contexts with corruptions in one model's space.

Shapes: U utterances, K contexts, N labels, D joint embedding.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clepdg.config.conditions import parse
from clepdg.evaluation import context_geometry
from clepdg.evaluation.metrics import Floats
from clepdg.method.audio_embeddings import AudioEmbeddings, select
from clepdg.method.text_embeddings import TextEmbeddings
from clepdg.prompts import CONTEXT_OF


class AudioMoves:
    """Moves a(noisy) - a(clean) of utterances by one model.

    Attributes:
        by_kind: kind of corruption -> moves (U, D), over its SNRs.
        every: the moves of all kinds (U, D).
        random_share: mean and 95th percentile of the share of their squares in random subspaces.
    """

    def __init__(self, pairs: Sequence[tuple[str, AudioEmbeddings, AudioEmbeddings]]) -> None:
        """Subtract embeddings.

        Args:
            pairs: (condition, its embeddings, the clean embeddings of the same corpus).
        """
        moves: dict[str, list[Floats]] = {}
        for condition, noisy, clean in pairs:
            before = select([clean], noisy.utterance_ids)
            moves.setdefault(parse(condition).curve, []).append(noisy.embeddings.astype(np.float64) - before)
        self.by_kind: Mapping[str, Floats] = {kind: np.concatenate(parts) for kind, parts in moves.items()}
        self.every: Floats = np.concatenate(list(self.by_kind.values()))
        self.random_share = context_geometry.random_share(self.every)


def compare_contexts(audio: AudioMoves, text: TextEmbeddings, contexts: Sequence[str] | None) -> dict[str, Any]:
    """Compare the moves of text by contexts with those of audio by noise.

    Args:
        contexts: the contexts in words (K,); None for vectors, which name no corruption.

    Returns:
        share (of the squared moves of audio in the top directions of the contexts' moves), random_share and random_high
        (mean and 95th percentile over random subspaces) and, where a context names a corruption, mean_rank, contexts
        (K), p, ranks (corruption -> rank of the context that names it, as JSON).
    """
    moves = text.shifts.numpy().astype(np.float64).reshape(-1, len(text.labels), audio.every.shape[1])  # (K, N, D)
    mean, high = audio.random_share
    share = context_geometry.subspace_share(audio.every, moves)
    found: dict[str, Any] = {"share": share, "random_share": mean, "random_high": high}
    names = context_geometry.rank_names(audio.by_kind, moves, contexts, CONTEXT_OF) if contexts is not None else None
    if names:
        found |= {"mean_rank": names.mean_rank, "contexts": names.contexts, "p": names.p}
        found |= {"ranks": json.dumps(names.ranks, sort_keys=True)}
    return found
