"""CLEP: CLAP fine-tuned on emotional speech by a supervised contrastive loss (CLEP-DG, arXiv 2507.04048).

Shapes: B batch, D joint embedding, N emotions, J templates. The paper's body is not public; the loss is this
project's choice (its README says so): soft targets by emotion, plus a prototype term.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clepdg import attributes, prompts
from clepdg.audio import crop, log_mel
from clepdg.clap import MAX_LOGIT_SCALE, Clap
from clepdg.config import ClepConfig, ComputeConfig
from clepdg.contrastive import contrastive_loss, draw_batch, equal_captions, targets
from clepdg.corruptions import RATE, augment
from clepdg.errors import ClepError
from clepdg.lora import add_adapters, merge_adapters
from clepdg.metrics import confusion, uar
from clepdg.reporting import Reporting
from clepdg.shards import read_waveform
from clepdg.tensors import load_tensors
from clepdg.training import Training, save_atomically, warmup_cosine

if TYPE_CHECKING:
    import pandas as pd

BEST = "best.resume"
Batch = tuple[np.ndarray, Tensor]  # positions (B,) in the training table, waveforms (B, samples)


def trainable_groups(clap: Clap, config: ClepConfig) -> list[dict[str, Any]]:
    """Choose what is trained and return the optimiser's groups; the rest is frozen: no gradient, no group.

    Both projections and one logit scale are trained, the encoders as the configuration says; adapters of the audio
    encoder stand in for its weights and learn at the projections' rate.
    The audio BatchNorm stays as it is, statistics and affine. No decay on biases, norms and the scale.
    """
    model = clap.model
    model.requires_grad_(False)
    whole_audio = config.train_audio_encoder and not config.lora_rank
    encoders = [
        *([model.audio_model] if whole_audio else []),
        *([model.text_model] if config.train_text_encoder else []),
    ]
    projections = [model.audio_projection, *([model.text_projection] if config.train_text_projection else [])]
    adapted = [model.audio_model] if config.lora_rank else []
    groups: list[dict[str, Any]] = []
    for modules, part, rate in (
        (encoders, "", config.learning_rate),
        (projections, "", config.projection_learning_rate),
        (adapted, "lora_", config.projection_learning_rate),
    ):
        kept = [
            parameter
            for module in modules
            for name, parameter in module.named_parameters()
            if "batch_norm" not in name and part in name
        ]
        for parameters, decay in (
            ([p for p in kept if p.ndim >= 2], config.weight_decay),
            ([p for p in kept if p.ndim < 2], 0.0),
        ):
            if parameters:
                groups.append({"params": parameters, "lr": rate, "weight_decay": decay})
    groups.append({"params": [clap.logit_scale], "lr": config.logit_scale_learning_rate, "weight_decay": 0.0})
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    return groups


def train_mode(clap: Clap, config: ClepConfig) -> None:
    """Put what is trained into training mode; frozen encoders and the audio BatchNorm stay in eval."""
    clap.model.train()
    if not config.train_audio_encoder:
        clap.model.audio_model.eval()
    if not config.train_text_encoder:
        clap.model.text_model.eval()
    clap.model.audio_model.audio_encoder.batch_norm.eval()


class TextSide:
    """Text features of captions and class prompts; a frozen text encoder's pooled output is computed once."""

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

    def features(self, texts: Sequence[str]) -> Tensor:
        """Return text features (B, D); every distinct text is encoded once."""
        distinct = list(dict.fromkeys(texts))
        if self.cache is None:
            encoded = self.clap.encode_text(distinct)
        else:
            for text in distinct:
                if text not in self.cache:  # alone: beside others it would be padded, and differ in the last bit
                    with torch.no_grad():
                        self.cache[text] = self.clap.pool_text(**self.clap.tokenize([text]))[0]
            encoded = self.clap.project_text(torch.stack([self.cache[text] for text in distinct]))
        place = {text: index for index, text in enumerate(distinct)}
        return encoded[[place[text] for text in texts]]

    def with_prototypes(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return caption features (B, D) and class prototypes (N, D) = n(mean_j n(t_nj))."""
        shape = len(self.prompts), len(self.prompts[0])
        both = self.features([*captions, *(text for row in self.prompts for text in row)])
        prototypes = both[len(captions) :].reshape(*shape, -1).mean(dim=1)
        return both[: len(captions)], F.normalize(prototypes, dim=-1)

    @torch.no_grad()
    def similarity(self) -> Tensor:
        """Return the cosines (N, N) of the class prototypes as they are now."""
        self.clap.model.eval()
        _, prototypes = self.with_prototypes([])
        return prototypes @ prototypes.T


def zero_shot_uar(clap: Clap, text: TextSide, utterances: "pd.DataFrame", emotion_index: np.ndarray) -> float:
    """Return CLEP's selection score: zero-shot UAR by prompt ensemble, no centring, over all given utterances."""
    clap.model.eval()
    with torch.no_grad():
        _, prototypes = text.with_prototypes([])
        predicted: list[int] = []
        for start in range(0, len(utterances), 64):
            features = clap.encode_waveforms([_waveform(row) for row in _rows(utterances[start : start + 64])])
            predicted += (features @ prototypes.T).argmax(dim=1).tolist()
    return float(uar(confusion(emotion_index, np.array(predicted), len(text.prompts))))


def fit(
    clap: Clap,
    utterances: "pd.DataFrame",
    emotions: tuple[str, ...],
    config: ClepConfig,
    compute: ComputeConfig,
    seed: int,
    folder: Path,
    reporting: Reporting,
) -> dict[str, Any]:
    """Fine-tune clap in place and leave it at its best checkpoint by zero-shot UAR on source validation.

    Args:
        utterances: source train and validation: utterance_id, corpus, emotion, split, folder, tar, offset, bytes.
        emotions: the sources' canonical emotions (N,).
        folder: where checkpoints go.

    Returns:
        Figures: the validation UAR of every epoch, the chosen epoch, utterances.

    Raises:
        ClepError: no training or validation utterances, or training diverged.
    """
    utterances = utterances[utterances.emotion.isin(emotions)].sort_values("utterance_id").reset_index(drop=True)
    train = utterances[utterances.split == "train"].reset_index(drop=True)
    validation = utterances[utterances.split == "validation"].reset_index(drop=True)
    if train.empty or validation.empty:
        raise ClepError("CLEP needs training and validation utterances.", got=utterances.split.value_counts().to_dict())
    index = {emotion: n for n, emotion in enumerate(emotions)}
    labels, validation_labels = (part.emotion.map(index).to_numpy() for part in (train, validation))
    groups = [
        [np.flatnonzero((train.corpus == corpus) & (train.emotion == emotion)) for emotion in emotions
         if ((train.corpus == corpus) & (train.emotion == emotion)).any()]
        for corpus in sorted(train.corpus.unique())
    ]  # fmt: skip
    torch.set_num_threads(compute.threads)
    if config.from_scratch:
        set_batch_norm(clap, train)
    adapters = add_adapters(clap, config.lora_rank, seed) if config.lora_rank else None
    optimiser = torch.optim.AdamW(trainable_groups(clap, config))
    text = TextSide(clap, emotions, config)
    choices = {emotion: prompts.captions(emotion, config.templates) for emotion in emotions}
    known = attributes.describe(train) if config.target == "attribute" else None
    similarity = text.similarity() / config.soft_temperature if config.target == "soft" else None
    steps = config.epochs * config.steps_per_epoch
    pool = ThreadPoolExecutor(1)

    def draw(step: int) -> Batch:
        return _load(train, draw_batch(groups, seed, step, config.batch_size), clap, seed, step, config.augment)

    load = prefetch(pool, draw, steps)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        train_mode(clap, config)
        batch, waveforms = load(step)
        rng = np.random.default_rng([seed, step, 1])
        drawn = [str(rng.choice(choices[emotion])) for emotion in train.emotion.iloc[batch]]
        y = torch.from_numpy(labels[batch]).to(clap.device)
        true = None
        if known is not None:
            drawn, true = attributes.draw_captions(drawn, [known[place] for place in batch], rng)
        with torch.autocast(clap.device.type, torch.bfloat16, enabled=compute.precision == "bf16"):
            audio = clap.encode_log_mel(log_mel(waveforms.to(clap.device), clap.front_end))
            captions, prototypes = text.with_prototypes(drawn)
        scale = clap.logit_scale.exp()
        mask = equal_captions(drawn).to(clap.device) if config.target == "instance" else None
        q = targets(y, config.target, true=true, similarity=similarity, share=config.soft_share)
        contrastive, floor = contrastive_loss(scale * audio @ captions.T, q, mask)
        prototype = F.cross_entropy(scale * audio @ prototypes.T, y)
        return contrastive + config.prototype_weight * prototype, {
            "contrastive_above_floor": (contrastive - floor).item(),
            "prototype_loss": prototype.item(),
            "logit_scale": scale.item(),
        }

    def clamp() -> None:
        with torch.no_grad():  # in place: a clamp inside forward has zero gradient beyond the limit, and sticks
            clap.logit_scale.clamp_(0.0, MAX_LOGIT_SCALE)

    trained = {name: p for name, p in clap.model.named_parameters() if p.requires_grad}

    def select(done: int, memory: dict[str, Any]) -> dict[str, Any]:
        score = zero_shot_uar(clap, text, validation, validation_labels)
        reporting.log_metrics({"validation_uar": score}, done)
        scores = [*memory.get("validation_uar", []), score]
        if score > max(scores[:-1], default=-math.inf):
            save_atomically(folder / BEST, trained, {"done": done})
        return {"validation_uar": scores}

    training = Training(
        tensors=trained,
        optimiser=optimiser,
        loss=loss,
        steps=steps,
        seed=seed,
        folder=folder,
        checkpoint_steps=config.checkpoint_steps,
        schedule=lambda step: warmup_cosine(step, steps, config.warmup_share),
        clip_norm=config.clip_norm,
        after_step=clamp,
        at=select,
        every=config.steps_per_epoch,
        reporting=reporting,
    )
    with pool:
        memory = training.run()
    best = load_tensors(folder / BEST)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(best[name])
    if adapters is not None:
        merge_adapters(adapters)
    clap.model.eval()
    scores = memory["validation_uar"]
    return {
        "validation_uar": [round(score, 6) for score in scores],
        "best_epoch": int(np.argmax(scores)) + 1,
        "train_utterances": len(train),
        "validation_utterances": len(validation),
        "logit_scale": round(clap.logit_scale.exp().item(), 4),
    }


def set_batch_norm(clap: Clap, train: "pd.DataFrame", most: int = 256) -> None:
    """Set the audio BatchNorm's statistics once from source-training audio (for a model from scratch)."""
    chosen = train.iloc[np.linspace(0, len(train) - 1, min(most, len(train))).astype(int)]
    cut = np.stack([crop(*_waveform(row), clap.front_end, 0.5) for row in _rows(chosen)])
    mels = log_mel(torch.from_numpy(cut).to(clap.device), clap.front_end)  # (B, 1, frames, mels)
    norm = clap.model.audio_model.audio_encoder.batch_norm
    norm.running_mean.copy_(mels.mean(dim=(0, 1, 2)))
    norm.running_var.copy_(mels.var(dim=(0, 1, 2)))


def prefetch(pool: Executor, load: Callable[[int], Batch], steps: int) -> Callable[[int], Batch]:
    """Return a function like load that also loads the next step's batch in the pool; the batches are the same."""
    waiting: dict[int, Future[Batch]] = {}

    def ready(step: int) -> Batch:
        batch = waiting.pop(step, None) or pool.submit(load, step)
        if step + 1 < steps:
            waiting[step + 1] = pool.submit(load, step + 1)
        return batch.result()

    return ready


def _load(train: "pd.DataFrame", batch: np.ndarray, clap: Clap, seed: int, step: int, augmented: bool) -> Batch:
    draws = np.random.default_rng([seed, step, 2]).random(len(batch))
    cut = []
    for place, (row, draw) in enumerate(zip(_rows(train.iloc[batch]), draws, strict=True)):
        waveform, rate = _waveform(row)
        if augmented:
            waveform, rate = augment(waveform, rate, np.random.default_rng([seed, step, 3, place])), RATE
        cut.append(crop(waveform, rate, clap.front_end, draw))
    return batch, torch.from_numpy(np.stack(cut))


def _rows(table: "pd.DataFrame") -> list[Any]:
    return list(table.itertuples(index=False))


def _waveform(row: Any) -> tuple[Any, int]:
    return read_waveform(Path(row.folder), row.tar, row.offset, row.bytes)
