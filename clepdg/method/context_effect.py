"""Measure how far context words change a model's text features.

u_kn are hand-written contexts k with canonical emotions n in the joint template; c_n are the emotions in the content
template. CLEP pulls an utterance towards every caption of its emotion, so it may learn to ignore context words. The
texts are fixed so that models can be compared.
"""

import torch
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
