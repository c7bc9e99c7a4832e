"""The contrastive loss of CLEP and the sampler that feeds it.

Shapes: B pairs of utterance and caption. The paper's body is not public; the loss is this project's choice: targets by
emotion (supervised contrastive), or the pair alone as CLAP itself.
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
    """Return Q (B, B), rows summing to 1: which captions each utterance should match.

    Args:
        emotions: (B,) emotion index of each pair.
        kind: "instance": its own caption. "emotion": all captions of its emotion, equally. "attribute": those of them
            that are true of it. "soft": (1 - share) of "emotion" and `share` of what is similar, whatever the emotion.
        true: of "attribute": (B, B), whether caption j says nothing that is not so of utterance i; its own is true.
        similarity: of "soft": (N, N) of emotions, over the temperature; its softmax over the batch is the share.
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
    """Return the symmetric cross-entropy of logits (B, B) against Q, and its floor, the targets' mean entropy.

    1/2 [CE(L, Q) + CE(L^T, rownorm(Q^T))]. mask (B, B) marks pairs that count neither as match nor as negative.
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
    """Draw the utterances (B,) of a step: uniform corpus, then emotion, then utterance; none twice.

    Args:
        groups: per corpus, per emotion it has, the utterances' positions.
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
    """Return (B, B): pairs whose captions are equal although they are not the same pair."""
    names = np.array(captions)
    equal = torch.from_numpy(names[:, None] == names[None, :])
    return equal & ~torch.eye(len(captions), dtype=torch.bool)
