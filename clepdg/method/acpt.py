"""ACPT: acoustic-context prompt tuning, from text alone (CLEP-DG, arXiv 2507.04048).

K context vectors V (K, M, H) stand for the words after "recorded in"; a diversity loss drives them apart, a content
loss keeps the emotion in the joint prompt. The losses are those of PromptStyler (Cho et al., ICCV 2023, arXiv
2307.15199), on which its public re-implementations agree. Both encoders are frozen and in eval; only V learns.

Shapes: K contexts, k of them in a step, M soft tokens, H text hidden size, N emotions, D joint embedding, L tokens.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clepdg import prompts
from clepdg.callbacks import USUAL, Pace, Reporting
from clepdg.config.schema import AcptConfig, ComputeConfig
from clepdg.errors import BackboneError
from clepdg.models.clap import Clap
from clepdg.models.tensors import digest_tensors, load_tensors, save_tensors
from clepdg.training.loop import Training


class ContextPrompts:
    """Prompts with a slot of M placeholder tokens whose input embeddings are replaced by context vectors.

    Args:
        texts: P prompts with "{context}"; for example one per emotion.
        tokens: M.

    Raises:
        BackboneError: the placeholders do not come out as exactly M tokens.
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
        self.order = (self.slots.cumsum(dim=1) - 1).clamp_min(0)  # (P, L): which of the M vectors stands in a slot
        with torch.no_grad():
            self.embedded = clap.word_embeddings(ids)  # (P, L, H)

    def encode(self, vectors: Tensor) -> Tensor:
        """Return normalised text features (k, P, D) of context vectors (k, M, H) in every prompt."""
        k, (p, length) = len(vectors), self.mask.shape
        inputs = torch.where(self.slots[None, :, :, None], vectors[:, self.order], self.embedded[None])  # (k, P, L, H)
        pooled = self.clap.pool_text(
            inputs_embeds=inputs.reshape(k * p, length, -1), attention_mask=self.mask.repeat(k, 1)
        )
        return self.clap.project_text(pooled).reshape(k, p, -1)


def _placeholder_id(clap: Clap) -> int:
    ids = clap.tokenizer(f"recorded in {prompts.PLACEHOLDER}", add_special_tokens=False).input_ids
    return int(ids[-1])


def diversity_loss(contexts: Tensor, others: Tensor, own: Tensor | None = None) -> Tensor:
    """Return the mean |e_k . e_j| of contexts (k, D) against others (K, D), which are detached.

    Args:
        own: (k,) position of each context among the others, which does not count; None: it is not among them.
    """
    cosine = (contexts @ others.detach().T).abs()
    if own is None:
        return cosine.mean() if cosine.numel() else contexts.new_zeros(())
    keep = torch.ones_like(cosine)
    keep[torch.arange(len(own)), own] = 0.0
    return (cosine * keep).sum() / keep.sum()


def content_loss(joint: Tensor, content: Tensor, temperature: float) -> Tensor:
    """Return -(1/N) sum_m log softmax_n(u_km . c_n / tau)[m], averaged over k, of u (k, N, D) and c (N, D)."""
    scores = joint @ content.T / temperature  # (k, N, N)
    target = torch.arange(len(content), device=scores.device).repeat(len(scores))
    return F.cross_entropy(scores.flatten(0, 1), target)


def initial_vectors(clap: Clap, config: AcptConfig, seed: int) -> Tensor:
    """Draw V (K, M, H): N(0, 0.02^2) in faithful; else with the token embeddings' mean and std per dimension.

    In vocabulary, they are the embeddings of words drawn from the backbone's vocabulary.
    """
    table = clap.word_embeddings.weight.detach().cpu()
    if config.method == "vocabulary":
        drawn = np.random.default_rng(seed).choice(word_ids(clap), size=(config.contexts, config.tokens))
        return table[torch.from_numpy(drawn)].clone()
    noise = torch.randn(config.contexts, config.tokens, table.shape[1], generator=torch.Generator().manual_seed(seed))
    if config.method == "faithful":
        return 0.02 * noise
    return table.mean(dim=0) + table.std(dim=0) * noise


def word_ids(clap: Clap) -> list[int]:
    """Return the tokens that are whole words, but for words of emotions and the placeholder.

    Byte-level vocabularies mark the start of a word by "\u0120"; where no token has the mark, every token is a word.
    """
    vocabulary: dict[str, int] = clap.tokenizer.get_vocab()
    mark = "\u0120" if any(token.startswith("\u0120") for token in vocabulary) else ""
    words = {token.removeprefix(mark): number for token, number in vocabulary.items() if token.startswith(mark)}
    excluded = {prompts.PLACEHOLDER, *(word for group in prompts.EMOTION_WORDS.values() for word in group)}
    return sorted(
        number
        for word, number in words.items()
        if word.isascii() and word.isalpha() and word.islower() and len(word) > 2 and word not in excluded
    )


def fit(
    clap: Clap,
    emotions: tuple[str, ...],
    config: AcptConfig,
    compute: ComputeConfig,
    seed: int,
    folder: Path,
    reporting: Reporting,
    pace: Pace = USUAL,
) -> tuple[Tensor, dict[str, float]]:
    """Learn context vectors V (K, M, H) from text alone; return them and what is known about them.

    Args:
        emotions: the source corpora's canonical emotions (N,).
        folder: where checkpoints go.

    Raises:
        BackboneError: the templates do not fit the backbone's words.
    """
    torch.set_num_threads(compute.threads)
    clap.model.requires_grad_(False)
    clap.model.eval()
    words = [prompts.class_word(emotion) for emotion in emotions]
    context_prompts = ContextPrompts(clap, [config.context_template], config.tokens)
    joint_prompts = ContextPrompts(clap, [prompts.fill(config.joint_template, word) for word in words], config.tokens)
    with torch.no_grad():
        content = clap.encode_text([prompts.fill(config.content_template, word) for word in words])
    # One parameter a context: an optimiser skips what has no gradient, so contexts outside a step do not move.
    vectors = [torch.nn.Parameter(v) for v in initial_vectors(clap, config, seed).to(clap.device).unbind()]
    if config.method in ("joint", "faithful"):
        plan = _joint_plan if config.method == "joint" else _faithful_plan
        steps, every, choose = plan(config, vectors, context_prompts, seed)
        optimiser: torch.optim.Optimizer = (
            torch.optim.Adam(vectors, lr=config.learning_rate)
            if config.method == "joint"
            else torch.optim.SGD(vectors, lr=config.learning_rate, momentum=0.9)
        )

        def loss(step: int) -> tuple[Tensor, dict[str, float]]:
            chosen, others, own = choose(step)
            v = torch.stack([vectors[index] for index in chosen])
            diversity = diversity_loss(context_prompts.encode(v)[:, 0], others, own)
            consistency = content_loss(joint_prompts.encode(v), content, config.temperature)
            total = config.diversity_weight * diversity + config.content_weight * consistency
            return total, {"diversity_loss": diversity.item(), "content_loss": consistency.item()}

        Training(
            tensors={f"context.{index:05d}": v for index, v in enumerate(vectors)},
            optimiser=optimiser,
            loss=loss,
            steps=steps,
            seed=seed,
            folder=folder,
            pace=pace,
            stops_at=every,
            reporting=reporting,
        ).run()
    learned = torch.stack([v.detach() for v in vectors])
    return learned, describe(clap, learned, context_prompts, joint_prompts, content)


Plan = tuple[int, int, Callable[[int], tuple[np.ndarray, Tensor, Tensor | None]]]


def _joint_plan(config: AcptConfig, vectors: list[torch.nn.Parameter], encoder: ContextPrompts, seed: int) -> Plan:
    """Shuffled minibatches of contexts against all K, whose features are refreshed when an epoch starts."""
    per_epoch = -(-config.contexts // config.batch_size)
    features: list[Tensor] = []

    def choose(step: int) -> tuple[np.ndarray, Tensor, Tensor | None]:
        epoch, part = divmod(step, per_epoch)
        if part == 0 or not features:  # a checkpoint falls on an epoch's end, so a resumed run refreshes here too
            features[:] = [_encode_all(encoder, vectors)]
        order = np.random.default_rng([seed, epoch]).permutation(config.contexts)
        chosen = order[part * config.batch_size : (part + 1) * config.batch_size]
        return chosen, features[0], torch.from_numpy(chosen)

    return config.epochs * per_epoch, per_epoch, choose


def _faithful_plan(config: AcptConfig, vectors: list[torch.nn.Parameter], encoder: ContextPrompts, seed: int) -> Plan:
    """One context after another against the earlier ones."""
    features: dict[int, Tensor] = {}

    def choose(step: int) -> tuple[np.ndarray, Tensor, Tensor | None]:
        k = step // max(1, config.epochs)
        if k not in features:
            features.clear()
            none = encoder.embedded.new_zeros(0, encoder.clap.model.config.projection_dim)
            features[k] = _encode_all(encoder, vectors[:k]) if k else none
        return np.array([k]), features[k], None

    return config.contexts * config.epochs, 1, choose


@torch.no_grad()
def _encode_all(encoder: ContextPrompts, vectors: Sequence[Tensor]) -> Tensor:
    """Return the features (K, D) of all contexts in the one context prompt."""
    return torch.cat([encoder.encode(torch.stack(list(part)))[:, 0] for part in _chunks(vectors)])


def _chunks(vectors: Sequence[Tensor], size: int = 16) -> list[Sequence[Tensor]]:
    return [vectors[start : start + size] for start in range(0, len(vectors), size)]


@torch.no_grad()
def describe(
    clap: Clap, vectors: Tensor, context_prompts: ContextPrompts, joint_prompts: ContextPrompts, content: Tensor
) -> dict[str, float]:
    """Return what tells good contexts from bad: spread, agreement with the emotion, and distance from real words."""
    e = _encode_all(context_prompts, vectors.unbind())
    u = torch.cat([joint_prompts.encode(torch.stack(list(part))) for part in _chunks(vectors.unbind())])  # (K, N, D)
    shift = (u - content).flatten(0, 1)  # (K N, D)
    top1 = (u @ content.T).argmax(dim=2) == torch.arange(len(content), device=u.device)
    real = clap.encode_text([prompts.CONTEXT_TEMPLATE.format(context=c) for c in prompts.HANDWRITTEN_CONTEXTS])
    nearest = (e @ real.T).max(dim=1).values
    among = (real @ real.T - 2 * torch.eye(len(real), device=real.device)).max(dim=1).values  # to another one
    return {
        "context_mean_abs_cosine": _mean_off_diagonal((e @ e.T).abs()),
        "shift_mean_abs_cosine": _mean_off_diagonal((F.normalize(shift, dim=1) @ F.normalize(shift, dim=1).T).abs()),
        "joint_mean_cosine": _mean_off_diagonal(u.flatten(0, 1) @ u.flatten(0, 1).T),
        "content_top1": top1.float().mean().item(),
        "shift_effective_rank": effective_rank(shift),
        "nearest_caption_cosine": nearest.mean().item(),
        "nearest_caption_cosine_lowest": nearest.min().item(),
        "nearest_caption_cosine_of_captions": among.mean().item(),  # what is on the manifold
    }


def effective_rank(matrix: Tensor) -> float:
    """Return exp(entropy of the normalised singular values) of a matrix (R, D)."""
    singular = torch.linalg.svdvals(matrix.double())
    share = singular / singular.sum().clamp_min(1e-12)
    return float(torch.exp(-torch.xlogy(share, share).sum()))


def _mean_off_diagonal(matrix: Tensor) -> float:
    n = len(matrix)
    return float((matrix.sum() - matrix.diagonal().sum()) / max(1, n * (n - 1)))


def save(folder: Path, vectors: Tensor, config: AcptConfig, emotions: tuple[str, ...]) -> str:
    """Write contexts.safetensors and acpt.json; return the content digest."""
    save_tensors(folder / "contexts.safetensors", {"context_vectors": vectors})
    facts = {"config": asdict(config), "emotions": emotions}
    (folder / "acpt.json").write_text(json.dumps(facts, indent=1, sort_keys=True))
    return digest_tensors({"context_vectors": vectors})


def load(folder: Path) -> Tensor:
    """Read context vectors V (K, M, H).

    Raises:
        StoreError: the folder holds no context vectors.
    """
    return load_tensors(folder / "contexts.safetensors", {"context_vectors": ("float32", 3)})["context_vectors"]
