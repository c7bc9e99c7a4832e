"""CLEP's contrastive loss, its targets, and the batch sampler.

Shapes: B pairs of utterance and caption, N emotions. The paper's full text is not public, so the loss is this project's
choice: targets by emotion (supervised contrastive), or the pairs alone, as in CLAP.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def targets(
    emotions: Tensor,
    kind: str,
    *,
    true: Tensor | None = None,
    similarity: Tensor | None = None,
    share: float = 0.1,
) -> Tensor:
    """Return the targets Q (B, B): captions that utterances match.

    Rows are distributions over the captions.

    Args:
        emotions: (B,) emotion index of each pair.
        kind: "instance": the utterance's own caption. "emotion": all captions of its emotion, equally. "attribute":
            those of them that are true of it. "soft": (1 - share) of "emotion", and `share` by similarity.
        true: for "attribute": (B, B), whether all attributes in caption j are true of utterance i; the diagonal is
            True.
        similarity: for "soft": (N, N) of emotions, divided by the temperature; its softmax over the batch is used.
        share: weight of the similarity in "soft".
    """
    if kind == "instance":
        return torch.eye(len(emotions), device=emotions.device)
    same = (emotions[:, None] == emotions[None, :]).float()
    if kind == "attribute":
        assert true is not None
        same = same * true.to(same.device)
    q = same / same.sum(dim=1, keepdim=True)
    if kind == "soft":
        assert similarity is not None
        q = (1 - share) * q + share * torch.softmax(similarity[emotions][:, emotions], dim=1)
    return q


def contrastive_loss(logits: Tensor, target: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the symmetric contrastive loss and its minimum.

    L is (B, B) logits, Q (B, B) targets. The loss is 1/2 [CE(L, Q) + CE(L^T, rownorm(Q^T))]; its minimum is the
    targets' mean entropy.

    Args:
        mask: (B, B), pairs that are neither positives nor negatives.
    """
    if mask is not None:
        logits = logits.masked_fill(mask, -torch.inf)
    loss, floor = logits.new_zeros(()), logits.new_zeros(())
    for scores, q in ((logits, target), (logits.T, target.T / target.T.sum(dim=1, keepdim=True))):
        log_p = F.log_softmax(scores, dim=1).masked_fill(q == 0, 0.0)  # 0 * -inf is not a number
        loss = loss - (q * log_p).sum(dim=1).mean() / 2
        floor = floor - torch.xlogy(q, q).sum(dim=1).mean() / 2
    return loss, floor


def draw_batch(groups: Sequence[Sequence[np.ndarray]], seed: int, step: int, size: int) -> np.ndarray:
    """Draw the positions (B,) of a step's utterances, without repetition.

    A corpus is drawn uniformly, then an emotion, then an utterance.

    Args:
        groups: per corpus and emotion, the utterances' positions.
    """
    rng = np.random.default_rng([seed, step])
    total = sum(len(emotion) for corpus in groups for emotion in corpus)
    drawn: dict[int, None] = {}
    while len(drawn) < min(size, total):
        corpus = groups[int(rng.integers(len(groups)))]
        emotion = corpus[int(rng.integers(len(corpus)))]
        drawn.setdefault(int(emotion[rng.integers(len(emotion))]))
    return np.fromiter(drawn, dtype=np.int64)


def equal_captions(captions: Sequence[str]) -> Tensor:
    """Return the mask (B, B) of different pairs with equal captions."""
    names = np.array(captions)
    equal = torch.from_numpy(names[:, None] == names[None, :])
    return equal & ~torch.eye(len(captions), dtype=torch.bool)
