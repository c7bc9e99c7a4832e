"""CLEP: fine-tune CLAP on emotional speech, contrastively.

CLEP-DG, arXiv 2507.04048. Only the paper's abstract could be read, so the loss is this project's choice, as
docs/method.md says: soft targets by emotion, plus a prototype term. Shapes: B batch, R ranks, D joint embedding,
N emotions, J templates.
"""

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clepdg import prompts
from clepdg.audio.precision import tf32
from clepdg.callbacks import DEFAULT_CHECKPOINTING, Checkpointing, Reporting
from clepdg.config.rows import trains_audio
from clepdg.config.schema import ClepConfig, ComputeConfig
from clepdg.dataset.shards import UtteranceReader
from clepdg.errors import ClepError
from clepdg.evaluation.metrics import confusion, uar
from clepdg.method import caption_attributes
from clepdg.method.audio_embeddings import AudioEmbeddings, select
from clepdg.method.contrastive import contrastive_loss, draw_batch, equal_captions, targets
from clepdg.method.inputs.batch_audio import BatchAudio
from clepdg.method.inputs.log_mels import LogMels
from clepdg.method.text_features import TextFeatures, separate_emotions
from clepdg.method.weights import add_adapters, merge_adapters, train_mode, trainable_groups
from clepdg.models.clap import Clap
from clepdg.models.dual import Dual
from clepdg.models.micro import Micro
from clepdg.models.pooling import mean_over_windows
from clepdg.models.tensors import load_tensors
from clepdg.training import distributed
from clepdg.training.batches import Prefetch, map_ahead
from clepdg.training.devices import adamw, uses_bf16
from clepdg.training.loop import (
    CHECKPOINT,
    Training,
    is_complete,
    read_checkpoint_facts,
    save_atomically,
    warmup_cosine,
)
from clepdg.training.step_log import Metrics

if TYPE_CHECKING:
    import pandas as pd

BEST = "best.resume"
UAR = "validation_uar"
Batch = tuple[np.ndarray, Any]  # positions (B,) in the training table, and what BatchAudio loads


def zero_shot_uars(
    clap: Clap,
    text: TextFeatures,
    utterances: "pd.DataFrame",
    emotion_index: np.ndarray,
    states: NDArray[np.float32] | None = None,
    log_mels: LogMels | None = None,
) -> dict[str, float]:
    """Return each corpus's zero-shot UAR; CLEP is selected by their mean.

    It uses the prompt ensemble, without centring. An emotion that a corpus lacks is left out of that corpus's UAR.

    Args:
        emotion_index: (U,) emotion of each utterance.
        states: a dual backbone's pooled states (U, P, 2 A) of the utterances.
        log_mels: of the utterances, for a micro backbone.
    """
    clap.model.eval()
    with torch.no_grad():
        _, prototypes = text.with_prototypes([])
        predicted: list[int] = []
        mine = np.arange(len(utterances))[distributed.rank_slice(len(utterances))]
        from_audio = log_mels is None and states is None
        heard = map_ahead(UtteranceReader(utterances).waveform, mine.tolist()) if from_audio else iter(())
        for start in range(0, len(mine), 64):
            part = mine[start : start + 64]
            if log_mels is not None:
                features = mean_over_windows(
                    map(log_mels.windows, part), lambda cut: clap.encode_log_mel(torch.stack(cut))
                )
            elif states is None:
                features = clap.encode_waveforms(islice(heard, len(part)))
            else:
                features = clap.encode_inputs(torch.from_numpy(states[part]))
            predicted += (features @ prototypes.T).argmax(dim=1).tolist()
    found, corpora = np.array(distributed.gather_lists(predicted)), utterances.corpus.to_numpy()
    of = {corpus: corpora == corpus for corpus in sorted(set(corpora))}
    return {name: float(uar(confusion(emotion_index[own], found[own], len(text.prompts)))) for name, own in of.items()}


def fit(
    clap: Clap,
    utterances: "pd.DataFrame",
    emotions: tuple[str, ...],
    config: ClepConfig,
    compute: ComputeConfig,
    seed: int,
    folder: Path,
    reporting: Reporting,
    checkpointing: Checkpointing = DEFAULT_CHECKPOINTING,
    states: Sequence[AudioEmbeddings] = (),
) -> dict[str, Any]:
    """Fine-tune clap in place; keep the epoch with the best zero-shot UAR.

    The mean over the corpora of their validation UAR; a corpus without a validation part is passed over.

    Args:
        utterances: of the source corpora's training and validation splits: utterance_id, corpus, emotion, split,
            folder, tar, offset, bytes.
        emotions: the source corpora's canonical emotions (N,).
        folder: where checkpoints and the training's curve are saved.
        states: a dual backbone's pooled states (U, P, 2 A) of the utterances, corpus by corpus.

    Returns:
        Metrics: the validation UAR of every epoch, mean and by corpus, the best epoch, sizes, the logit scale.

    Raises:
        ClepError: there are no training or validation utterances, or too few for the ranks, or training diverged.
    """
    utterances = utterances[utterances.emotion.isin(emotions)].sort_values("utterance_id").reset_index(drop=True)
    train = utterances[utterances.split == "train"].reset_index(drop=True)
    validation = utterances[utterances.split == "validation"].reset_index(drop=True)
    if train.empty or validation.empty:
        raise ClepError("CLEP needs training and validation utterances.", got=utterances.split.value_counts().to_dict())
    if min(config.batch_size, len(train)) % distributed.world_size():
        raise ClepError(
            "There are too few training utterances to split a batch equally among the ranks.",
            got=f"{len(train)} utterances, {distributed.world_size()} ranks",
            expected=f"{config.batch_size}, clep.batch_size",
        )
    index = {emotion: n for n, emotion in enumerate(emotions)}
    labels, validation_labels = (part.emotion.map(index).to_numpy() for part in (train, validation))
    groups = [
        [np.flatnonzero((train.corpus == corpus) & (train.emotion == emotion)) for emotion in emotions
         if ((train.corpus == corpus) & (train.emotion == emotion)).any()]
        for corpus in sorted(train.corpus.unique())
    ]  # fmt: skip
    torch.set_num_threads(compute.threads)
    audio = BatchAudio(clap, train, config, seed, states)
    dual = isinstance(clap, Dual)
    heard = select(states, validation.utterance_id.tolist()) if dual and not trains_audio(config) else None
    log_mels = LogMels(validation, clap.front_end) if isinstance(clap, Micro) else None
    adapters = add_adapters(clap, config.lora_rank, seed) if config.lora_rank else None
    cosines = separate_emotions(clap, emotions, config, seed) if config.from_scratch and not dual else {}
    optimiser = adamw(trainable_groups(clap, config), clap.device)
    text = TextFeatures(clap, emotions, config)
    choices = {emotion: prompts.captions(emotion, config.templates) for emotion in emotions}
    words = train.emotion.to_numpy()
    known = caption_attributes.measure_attributes(train) if config.target == "attribute" else None
    similarity = text.similarity() / config.soft_temperature if config.target == "soft" else None
    steps, bf16 = config.epochs * config.steps_per_epoch, uses_bf16(compute, clap.device)
    if distributed.rank() == 0 and not is_complete(folder / BEST) and is_complete(folder / CHECKPOINT):
        if read_checkpoint_facts(folder / CHECKPOINT).get("memory"):  # without the best epoch it can't be resumed
            (folder / CHECKPOINT).unlink()
    distributed.barrier()

    def draw(step: int) -> Batch:
        batch = draw_batch(groups, seed, step, config.batch_size)
        return batch, audio.load(step, batch)

    load = Prefetch(draw, steps)

    def loss(step: int) -> tuple[Tensor, Metrics]:
        train_mode(clap, config)
        batch, inputs = load(step)
        rng = np.random.default_rng([seed, step, 1])
        drawn = [str(rng.choice(choices[emotion])) for emotion in words[batch]]
        y = torch.from_numpy(labels[batch]).to(clap.device)
        true = None
        if known is not None:
            drawn, true = caption_attributes.draw_captions(drawn, [known[place] for place in batch], rng)
        with torch.autocast(clap.device.type, torch.bfloat16, enabled=bf16):
            features = distributed.gather(audio.encode(batch, inputs))
            captions, prototypes = text.with_prototypes(drawn)
        scale = clap.logit_scale.exp()
        mask = equal_captions(drawn).to(clap.device) if config.target == "instance" else None
        q = targets(y, config.target, true=true, similarity=similarity, share=config.soft_share)
        contrastive, floor = contrastive_loss(scale * features @ captions.T, q, mask)
        prototype = F.cross_entropy(scale * features @ prototypes.T, y)
        return contrastive + config.prototype_weight * prototype, {
            "contrastive_above_floor": contrastive - floor,
            "prototype_loss": prototype,
            "logit_scale": scale,
        }

    trained = {name: p for name, p in clap.model.named_parameters() if p.requires_grad}

    def validate(done: int, memory: dict[str, Any]) -> dict[str, Any]:
        each = zero_shot_uars(clap, text, validation, validation_labels, heard, log_mels)
        scores = {UAR: float(np.mean([*each.values()])), **{f"{UAR}_{name}": score for name, score in each.items()}}
        reporting.log_metrics(scores, done)
        if scores[UAR] > max(memory.get(UAR, []), default=-math.inf) and distributed.rank() == 0:
            save_atomically(folder / BEST, trained, {"done": done})
        return {name: [*memory.get(name, []), score] for name, score in scores.items()}

    training = Training(
        tensors=trained,
        optimiser=optimiser,
        loss=loss,
        steps=steps,
        seed=seed,
        folder=folder,
        checkpointing=checkpointing,
        schedule=lambda step: warmup_cosine(step, steps, config.warmup_share),
        clip_norm=config.clip_norm,
        after_step=clap.clamp_logit_scale,
        validate=validate,
        validate_every=config.steps_per_epoch,
        reporting=reporting,
    )
    with load, tf32(bf16):
        memory = training.run()
    if distributed.rank() == 0:
        training.curve.write(folder)
    distributed.barrier()  # the first rank writes the best epoch
    best = load_tensors(folder / BEST)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(best[name])
    if adapters is not None:
        merge_adapters(adapters)
    clap.model.eval()
    return {
        **{name: [round(score, 6) for score in scores] for name, scores in memory.items()},
        **cosines,
        "best_epoch": int(np.argmax(memory[UAR])) + 1,
        "train_utterances": len(train),
        "validation_utterances": len(validation),
        "logit_scale": round(clap.logit_scale.exp().item(), 4),
    }
