"""How much a model's text side tells contexts apart: on a fixed list of texts, so that models can be compared.

u_kn are hand-written contexts k with canonical emotions n in the joint template, c_n the emotions in the content
template. CLEP pulls an utterance towards every caption of its emotion, so it may learn to ignore context words.
"""

import torch

from clepdg import prompts
from clepdg.emotions import EMOTIONS
from clepdg.method.acpt import effective_rank
from clepdg.models.clap import Clap


@torch.no_grad()
def context_effect(clap: Clap) -> dict[str, float]:
    """Return context_shift (mean |u_kn - c_n|), context_variance_share and context_effective_rank.

    The share is that of the variance of u_kn which is within emotions: what contexts, not emotions, make of it. The
    rank is exp(entropy of the normalised singular values) of {u_kn - c_n}.
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
