"""ACPT: acoustic context prompt tuning, from text alone.

CLEP-DG, arXiv 2507.04048. K context vectors V (K, M, H) replace the words after "recorded in". A diversity loss drives
them apart; a content loss keeps the emotion in the joint prompt. The losses are those of PromptStyler (Cho et al., ICCV
2023, arXiv 2307.15199), on which its public re-implementations agree. Both encoders are frozen and in eval mode; only V
is trained.

Shapes: K contexts, k of them in a step, M soft tokens, H text hidden size, N emotions, D joint embedding, L tokens.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clepdg import prompts
from clepdg.callbacks import DEFAULT_CHECKPOINTING, Checkpointing, Reporting
from clepdg.config.schema import AcptConfig, ComputeConfig
from clepdg.hashing import write_json
from clepdg.method.context_effect import context_figures, nearest_captions
from clepdg.method.context_prompts import ContextPrompts, encode_all, encode_contexts
from clepdg.models.clap import Clap
from clepdg.models.tensors import digest_tensors, load_tensors, save_tensors
from clepdg.training.loop import Training
from clepdg.training.step_log import Metrics

PLATEAU_EPOCHS: Final = 10  # after as many, it is seen whether the losses still fall
NEAREST: Final = "nearest_captions.json"  # of each context: the nearest hand-written context, and the cosine


def diversity_loss(contexts: Tensor, others: Tensor, own: Tensor | None = None) -> Tensor:
    """Return the mean |e_k . e_j| of contexts (k, D) and others (K, D).

    The others are detached.

    Args:
        own: (k,) row of each context among the others, which is left out of the mean; None: the others hold none of
            the contexts.
    """
    cosine = (contexts @ others.detach().T).abs()
    if own is None:
        return cosine.mean() if cosine.numel() else contexts.new_zeros(())
    keep = torch.ones_like(cosine)
    keep[torch.arange(len(own)), own] = 0.0
    return (cosine * keep).sum() / keep.sum()


def content_loss(joint: Tensor, content: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of joint prompts against their emotions.

    It is -(1/N) sum_m log softmax_n(u_km . c_n / tau)[m], averaged over k.

    Args:
        joint: u (k, N, D), the features of the joint prompts.
        content: c (N, D), the features of the content prompts.
        temperature: tau.
    """
    scores = joint @ content.T / temperature  # (k, N, N)
    target = torch.arange(len(content), device=scores.device).repeat(len(scores))
    return F.cross_entropy(scores.flatten(0, 1), target)


def initial_vectors(clap: Clap, config: AcptConfig, seed: int) -> Tensor:
    """Draw the initial context vectors V (K, M, H).

    Method "faithful" draws from N(0, 0.02^2), "vocabulary" takes the embeddings of random words of the backbone's
    vocabulary, and "joint" draws with the token embeddings' mean and standard deviation per dimension.
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
    """Return the ids of whole words, except emotions and placeholder.

    Byte-level vocabularies mark the start of a word by "\u0120"; if no token has the mark, every token is a word.
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
    checkpointing: Checkpointing = DEFAULT_CHECKPOINTING,
) -> tuple[Tensor, dict[str, float]]:
    """Train context vectors V (K, M, H); return them and their metrics.

    Args:
        emotions: the source corpora's canonical emotions (N,).
        folder: where checkpoints, the training's curve and the nearest hand-written contexts are saved.

    Raises:
        BackboneError: a template holds words that the backbone does not know.
    """
    torch.set_num_threads(compute.threads)
    clap.model.requires_grad_(False)
    clap.model.eval()
    words = [prompts.class_word(emotion) for emotion in emotions]
    context_prompts = ContextPrompts(clap, [config.context_template], config.tokens)
    joint_prompts = ContextPrompts(clap, [prompts.fill(config.joint_template, word) for word in words], config.tokens)
    with torch.no_grad():
        content = clap.encode_text([prompts.fill(config.content_template, word) for word in words])
    # One parameter per context: an optimiser skips those without a gradient, so contexts outside a step do not change.
    vectors = [torch.nn.Parameter(v) for v in initial_vectors(clap, config, seed).to(clap.device).unbind()]
    if config.method in ("joint", "faithful"):
        plan = _joint_plan if config.method == "joint" else _faithful_plan
        steps, every, choose = plan(config, vectors, context_prompts, seed)
        optimiser: torch.optim.Optimizer = (
            torch.optim.Adam(vectors, lr=config.learning_rate)
            if config.method == "joint"
            else torch.optim.SGD(vectors, lr=config.learning_rate, momentum=0.9)
        )

        def loss(step: int) -> tuple[Tensor, Metrics]:
            chosen, others, own = choose(step)
            v = torch.stack([vectors[index] for index in chosen])
            diversity = diversity_loss(context_prompts.encode(v)[:, 0], others, own)
            consistency = content_loss(joint_prompts.encode(v), content, config.temperature)
            total = config.diversity_weight * diversity + config.content_weight * consistency
            return total, {"diversity_loss": diversity, "content_loss": consistency}

        def losses() -> list[float]:
            """Return both losses over all contexts."""
            e, u = encode_contexts(torch.stack([v.detach() for v in vectors]), context_prompts, joint_prompts)
            diversity = diversity_loss(e, e, torch.arange(len(e)))
            consistency = content_loss(u, content, config.temperature)
            return [config.diversity_weight * diversity.item(), config.content_weight * consistency.item()]

        waits = config.method == "joint" and config.plateau > 0
        start = losses() if waits else []

        def plateau(done: int, memory: dict[str, Any]) -> dict[str, Any]:
            now, before = losses(), memory.get("losses", start)
            fall = max(earlier - later for earlier, later in zip(before, now, strict=True))
            return {"losses": now, "ended": fall < config.plateau * sum(start)}

        training = Training(
            tensors={f"context.{index:05d}": v for index, v in enumerate(vectors)},
            optimiser=optimiser,
            loss=loss,
            steps=steps,
            seed=seed,
            folder=folder,
            checkpointing=checkpointing,
            checkpoint_multiple=every,
            validate=plateau,
            validate_every=PLATEAU_EPOCHS * every if waits else 1 << 62,
            reporting=reporting,
        )
        training.run()
        training.curve.write(folder)
    learned = torch.stack([v.detach() for v in vectors])
    e, u = encode_contexts(learned, context_prompts, joint_prompts)
    captions = clap.encode_text([prompts.CONTEXT_TEMPLATE.format(context=c) for c in prompts.HANDWRITTEN_CONTEXTS])
    write_json(folder / NEAREST, nearest_captions(e, captions))
    return learned, context_figures(e, u, captions, content)


Plan = tuple[int, int, Callable[[int], tuple[np.ndarray, Tensor, Tensor | None]]]


def _joint_plan(config: AcptConfig, vectors: list[torch.nn.Parameter], encoder: ContextPrompts, seed: int) -> Plan:
    """Plan shuffled minibatches of contexts against the features of all K.

    The features are computed when an epoch starts.
    """
    per_epoch = -(-config.contexts // config.batch_size)
    features: list[Tensor] = []

    def choose(step: int) -> tuple[np.ndarray, Tensor, Tensor | None]:
        epoch, part = divmod(step, per_epoch)
        if part == 0 or not features:  # checkpoints are saved at an epoch's end, so a resumed run comes here too
            features[:] = [encode_all(encoder, vectors)]
        order = np.random.default_rng([seed, epoch]).permutation(config.contexts)
        chosen = order[part * config.batch_size : (part + 1) * config.batch_size]
        return chosen, features[0], torch.from_numpy(chosen)

    return config.epochs * per_epoch, per_epoch, choose


def _faithful_plan(config: AcptConfig, vectors: list[torch.nn.Parameter], encoder: ContextPrompts, seed: int) -> Plan:
    """Plan the contexts one after another, each against the earlier ones."""
    features: dict[int, Tensor] = {}

    def choose(step: int) -> tuple[np.ndarray, Tensor, Tensor | None]:
        k = step // max(1, config.epochs)
        if k not in features:
            features.clear()
            none = encoder.embedded.new_zeros(0, encoder.clap.model.config.projection_dim)
            features[k] = encode_all(encoder, vectors[:k]) if k else none
        return np.array([k]), features[k], None

    return config.contexts * config.epochs, 1, choose


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
