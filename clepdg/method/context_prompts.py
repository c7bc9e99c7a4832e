"""Prompts whose context words are replaced by context vectors.

Shapes: K contexts, P prompts, M soft tokens, H text hidden size, D joint embedding, L tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from clepdg import prompts
from clepdg.errors import BackboneError
from clepdg.models.clap import Clap


class ContextPrompts:
    """Prompts whose M placeholder tokens context vectors replace.

    Args:
        texts: P prompts with "{context}"; for example one per emotion.
        tokens: M, the number of placeholder tokens.

    Raises:
        BackboneError: the tokenizer does not turn the placeholders into exactly M tokens.
    """

    def __init__(self, clap: Clap, texts: Sequence[str], tokens: int) -> None:
        filled = [text.format(context=" ".join([prompts.PLACEHOLDER] * tokens)) for text in texts]
        encoded = clap.tokenize(filled)
        ids = encoded["input_ids"]  # (P, L)
        placeholder = _placeholder_id(clap)
        self.slots = ids == placeholder  # (P, L)
        if not bool((self.slots.sum(dim=1) == tokens).all()):
            raise BackboneError(
                "A prompt does not hold exactly its placeholders after tokenising.",
                got=self.slots.sum(dim=1).tolist(),
                expected=tokens,
                where=filled[0],
            )
        self.clap, self.mask, self.tokens = clap, encoded["attention_mask"], tokens
        self.order = (self.slots.cumsum(dim=1) - 1).clamp_min(0)  # (P, L): which of the M vectors a slot takes
        with torch.no_grad():
            self.embedded = clap.word_embeddings(ids)  # (P, L, H)

    def encode(self, vectors: Tensor) -> Tensor:
        """Encode context vectors in every prompt as features (k, P, D).

        Args:
            vectors: (k, M, H).

        Returns:
            Normalised text features.
        """
        k, (p, length) = len(vectors), self.mask.shape
        inputs = torch.where(self.slots[None, :, :, None], vectors[:, self.order], self.embedded[None])  # (k, P, L, H)
        pooled = self.clap.pool_text(
            inputs_embeds=inputs.reshape(k * p, length, -1), attention_mask=self.mask.repeat(k, 1)
        )
        return self.clap.project_text(pooled).reshape(k, p, -1)


def _placeholder_id(clap: Clap) -> int:
    ids = clap.tokenizer(f"recorded in {prompts.PLACEHOLDER}", add_special_tokens=False).input_ids
    return int(ids[-1])


@torch.no_grad()
def encode_all(encoder: ContextPrompts, vectors: Sequence[Tensor]) -> Tensor:
    """Encode all contexts in the first prompt as features (K, D)."""
    return torch.cat([encoder.encode(torch.stack(list(part)))[:, 0] for part in chunks(vectors)])


def chunks(vectors: Sequence[Tensor], size: int = 16) -> list[Sequence[Tensor]]:
    """Split context vectors (K) into lists of at most `size`."""
    return [vectors[start : start + size] for start in range(0, len(vectors), size)]


@torch.no_grad()
def encode_contexts(
    vectors: Tensor, context_prompts: ContextPrompts, joint_prompts: ContextPrompts
) -> tuple[Tensor, Tensor]:
    """Encode context vectors alone and joined with emotions.

    Args:
        vectors: V (K, M, H).

    Returns:
        Features of the contexts e (K, D) and of the joint prompts u (K, N, D).
    """
    parts = chunks(vectors.unbind())
    return encode_all(context_prompts, vectors.unbind()), torch.cat([
        joint_prompts.encode(torch.stack(list(part))) for part in parts
    ])  # fmt: skip
