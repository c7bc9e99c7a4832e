"""Text features of captions and class prompts for CLEP.

Shapes: B batch, D joint embedding, N emotions, J templates.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clepdg import prompts
from clepdg.config.schema import ClepConfig
from clepdg.method.contrastive import contrastive_loss, targets
from clepdg.models.clap import Clap
from clepdg.training.loop import warmup_cosine

SEPARATION_STEPS: Final = 50
SEPARATION_PAIRS: Final = 24  # captions of equal or different groups, each beside another
SEPARATION_RATE: Final = 1e-3


class TextFeatures:
    """Text features of captions and class prompts.

    The output of a frozen text encoder is cached.
    """

    def __init__(self, clap: Clap, emotions: tuple[str, ...], config: ClepConfig) -> None:
        self.clap = clap
        self.prompts = prompts.class_prompts(emotions, config.templates)  # (N, J)
        self.cache: dict[str, Tensor] | None = None
        if not config.train_text_encoder:
            texts = sorted({t for e in emotions for t in prompts.captions(e, config.templates)})
            texts += sorted({t for row in self.prompts for t in row} - set(texts))
            with torch.no_grad():
                pooled = [clap.pool_text(**clap.tokenize(texts[i : i + 64])) for i in range(0, len(texts), 64)]
            self.cache = dict(zip(texts, torch.cat(pooled), strict=True))

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return text features (B, D); equal texts are encoded once."""
        distinct = list(dict.fromkeys(texts))
        if self.cache is None:
            encoded = self.clap.encode_text(distinct)
        else:
            for text in distinct:
                if text not in self.cache:  # one at a time: padding would change the last bit
                    with torch.no_grad():
                        self.cache[text] = self.clap.pool_text(**self.clap.tokenize([text]))[0]
            encoded = self.clap.project_text(torch.stack([self.cache[text] for text in distinct]))
        place = {text: index for index, text in enumerate(distinct)}
        return encoded[[place[text] for text in texts]]

    def with_prototypes(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return caption features (B, D) and class prototypes (N, D).

        The prototypes are n(mean_j n(t_nj)).
        """
        shape = len(self.prompts), len(self.prompts[0])
        both = self.encode([*captions, *(text for row in self.prompts for text in row)])
        prototypes = both[len(captions) :].reshape(*shape, -1).mean(dim=1)
        return both[: len(captions)], F.normalize(prototypes, dim=-1)

    @torch.no_grad()
    def similarity(self) -> Tensor:
        """Return the cosine similarities (N, N) of the current class prototypes."""
        self.clap.model.eval()
        _, prototypes = self.with_prototypes([])
        return prototypes @ prototypes.T


def separate_emotions(clap: Clap, emotions: tuple[str, ...], config: ClepConfig, seed: int) -> dict[str, list[float]]:
    """Separate the emotions' captions, before the training from scratch.

    Returns:
        Metrics: the mean pairwise cosine of the class prototypes, before and after.
    """

    def cosine() -> float:
        similarity = TextFeatures(clap, emotions, replace(config, train_text_encoder=True)).similarity()
        return round(float(similarity[~torch.eye(len(emotions), dtype=torch.bool)].mean()), 4)

    before = cosine()
    separate_captions(clap, [prompts.captions(emotion, config.templates) for emotion in emotions], seed)
    return {"prompt_cosine": [before, cosine()]}


def separate_captions(clap: Clap, groups: Sequence[Sequence[str]], seed: int) -> None:
    """Train a text encoder with random weights to separate groups of captions.

    Without it, all captions have nearly the same features, and the audio encoder has next to no gradient. The model
    stays in eval mode, since dropout would hide how captions differ. It depends on nothing but weights, captions and
    seed, so a resumed training repeats it.
    """
    clap.model.eval()
    trained = [*clap.model.text_model.parameters(), *clap.model.text_projection.parameters()]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimiser = torch.optim.Adam(trained, lr=SEPARATION_RATE)
    group = torch.arange(SEPARATION_PAIRS, device=clap.device) % len(groups)
    q, scale = targets(group, "emotion"), clap.logit_scale.exp().detach()
    for step in range(SEPARATION_STEPS):
        rng = np.random.default_rng([seed, step, 4])
        drawn = [str(rng.choice(groups[n])) for n in [*group.tolist(), *group.tolist()]]
        encoded = clap.encode_text(drawn)
        loss, _ = contrastive_loss(scale * encoded[:SEPARATION_PAIRS] @ encoded[SEPARATION_PAIRS:].T, q)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        for settings in optimiser.param_groups:
            settings["lr"] = SEPARATION_RATE * warmup_cosine(step, SEPARATION_STEPS, 0.1)
        optimiser.step()
