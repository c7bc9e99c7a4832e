"""Measure how far context words change a model's text features.

u_kn are hand-written contexts k with canonical emotions n in the joint template; c_n are the emotions in the content
template. CLEP pulls an utterance towards every caption of its emotion, so it may learn to ignore context words. The
texts are fixed so that models can be compared. Learnt contexts are measured too.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from clepdg import prompts
from clepdg.emotions import EMOTIONS
from clepdg.models.clap import Clap


@torch.no_grad()
def context_effect(clap: Clap) -> dict[str, float]:
    """Return the contexts' shift, variance share and effective rank.

    The shift is the mean |u_kn - c_n|. The variance share is the part of the variance of u_kn within emotions, which
    contexts cause. The rank is exp(entropy of the normalised singular values) of {u_kn - c_n}.
    """
    clap.model.eval()
    words = [prompts.class_word(emotion) for emotion in EMOTIONS]
    content = clap.encode_text([prompts.fill(prompts.CONTENT_TEMPLATE, word) for word in words])  # (N, D)
    joint = torch.stack(
        [
            clap.encode_text([prompts.fill(prompts.JOINT_TEMPLATE, word).format(context=context) for word in words])
            for context in prompts.HANDWRITTEN_CONTEXTS
        ]
    )  # (K, N, D)
    shift = joint - content
    within = (joint - joint.mean(dim=0)).square().sum()
    total = (joint - joint.mean(dim=(0, 1))).square().sum()
    figures = {
        "context_shift": shift.norm(dim=2).mean().item(),
        "context_variance_share": float(within / total),
        "context_effective_rank": effective_rank(shift.flatten(0, 1)),
    }
    return {name: round(value, 6) for name, value in figures.items()}


def effective_rank(matrix: Tensor) -> float:
    """Return exp(entropy of the normalised singular values) of (R, D)."""
    singular = torch.linalg.svdvals(matrix.double())
    share = singular / singular.sum().clamp_min(1e-12)
    return float(torch.exp(-torch.xlogy(share, share).sum()))


def nearest_captions(e: Tensor, captions: Tensor) -> list[tuple[str, float]]:
    """Return the hand-written context nearest to each context, and the cosine.

    Args:
        e: features of the contexts (K, D).
        captions: features of the hand-written contexts (C, D).
    """
    cosines, rows = (e @ captions.T).max(dim=1)
    return [
        (prompts.HANDWRITTEN_CONTEXTS[row], round(cosine, 6))
        for row, cosine in zip(rows.tolist(), cosines.tolist(), strict=True)
    ]


@torch.no_grad()
def context_figures(e: Tensor, u: Tensor, captions: Tensor, content: Tensor) -> dict[str, float]:
    """Measure the spread of contexts and their fit to emotions and words.

    Args:
        e: features of the contexts (K, D).
        u: features of the joint prompts (K, N, D).
        captions: features of the hand-written contexts (C, D).
        content: features of the content prompts (N, D).

    Returns:
        Metrics; "nearest_caption_cosine_of_captions" is the same cosine between hand-written contexts, for comparison.
    """
    shift = (u - content).flatten(0, 1)  # (K N, D)
    top1 = (u @ content.T).argmax(dim=2) == torch.arange(len(content), device=u.device)
    nearest = (e @ captions.T).max(dim=1).values
    others = captions @ captions.T - 2 * torch.eye(len(captions), device=captions.device)  # without itself
    among = others.max(dim=1).values
    return {
        "context_mean_abs_cosine": _mean_off_diagonal((e @ e.T).abs()),
        "shift_mean_abs_cosine": _mean_off_diagonal((F.normalize(shift, dim=1) @ F.normalize(shift, dim=1).T).abs()),
        "joint_mean_cosine": _mean_off_diagonal(u.flatten(0, 1) @ u.flatten(0, 1).T),
        "content_top1": top1.float().mean().item(),
        "shift_effective_rank": effective_rank(shift),
        "nearest_caption_cosine": nearest.mean().item(),
        "nearest_caption_cosine_lowest": nearest.min().item(),
        "nearest_caption_cosine_of_captions": among.mean().item(),
    }


def _mean_off_diagonal(matrix: Tensor) -> float:
    n = len(matrix)
    return float((matrix.sum() - matrix.diagonal().sum()) / max(1, n * (n - 1)))
