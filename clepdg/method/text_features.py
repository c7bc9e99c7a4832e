"""Text features of captions and class prompts for CLEP.

Shapes: B batch, D joint embedding, N emotions, J templates.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clepdg import prompts
from clepdg.config.schema import ClepConfig
from clepdg.models.clap import Clap


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
