"""Pretrain micro-context, the positive control that knows contexts.

CLAP was pretrained on captioned sounds, so phrases such as "a reverberant hall" lie near such audio. The micro backbone
was not, so it is pretrained on source-training utterances in simulated environments, with captions that name the
environment and no emotion. Some environments are left out, to measure the transfer to words without audio in
pretraining. This tests the mechanism of acoustic contexts, not the claim that text alone is enough.

Shapes: B batch, D joint embedding, E environments.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clepdg import prompts
from clepdg.audio import corruptions, rooms
from clepdg.audio import noise as noises
from clepdg.audio.frontend import crop, log_mel
from clepdg.audio.io import Waveform, resample
from clepdg.callbacks import DEFAULT_CHECKPOINTING, Checkpointing, Reporting
from clepdg.config.conditions import CHANNELS, CLEAN
from clepdg.config.schema import ComputeConfig, PretrainConfig
from clepdg.dataset.shards import read_waveform
from clepdg.emotions import EMOTIONS
from clepdg.errors import ClepError
from clepdg.hashing import generator
from clepdg.method.clep import Batch
from clepdg.method.contrastive import contrastive_loss, draw_batch, targets
from clepdg.method.text_features import separate_captions
from clepdg.method.weights import decay_groups
from clepdg.models.clap import Clap
from clepdg.training.batches import Prefetch
from clepdg.training.devices import adamw
from clepdg.training.loop import Training, warmup_cosine
from clepdg.training.step_log import Metrics

if TYPE_CHECKING:
    import pandas as pd

ROOM: Final = "room-"
SNR: Final = (0.0, 20.0)  # dB
WARMUP_SHARE: Final = 0.3
WEIGHT_DECAY: Final = 0.01
VALIDATION_UTTERANCES: Final = 128  # each in every environment


def in_environment(
    waveform: Waveform, rate: int, environment: str, talk: Sequence[Waveform], rng: np.random.Generator
) -> Waveform:
    """Resample an utterance (T,) to 16 kHz and put it into an environment.

    The kinds of noise are the evaluation's; the rooms are not.

    Args:
        environment: a key of prompts.CONTEXT_OF.
        talk: speech for babble, at 16 kHz.
    """
    waveform = resample(waveform, rate, noises.RATE)
    if environment == CLEAN:
        return waveform
    if environment.startswith(ROOM):
        number = int(rng.integers(rooms.ROOMS_PER_BAND))
        changed = corruptions.in_room(waveform, "training", environment.removeprefix(ROOM), number)
    elif environment in CHANNELS:
        changed = corruptions.telephone(waveform) if environment == "telephone" else corruptions.clip(waveform)
    else:
        noise = noises.make_noise(environment, len(waveform), talk, rng)
        changed = corruptions.add_noise(waveform, noise, float(rng.uniform(*SNR)))
    return corruptions.match_rms(waveform, changed)


def pretrain(
    clap: Clap,
    utterances: "pd.DataFrame",
    talk: Sequence[Waveform],
    config: PretrainConfig,
    compute: ComputeConfig,
    folder: Path,
    reporting: Reporting,
    checkpointing: Checkpointing = DEFAULT_CHECKPOINTING,
) -> dict[str, Any]:
    """Train clap, in place, to match environments with context words.

    Both encoders are trained.

    Args:
        utterances: of the source corpora's training and validation splits: corpus, split, folder, tar, offset, bytes.
        talk: source-training utterances at 16 kHz, for babble.
        folder: where checkpoints are saved.

    Returns:
        Metrics: zero-shot accuracy of the environment on source validation, for environments used in training
        ("heard") and for those left out.

    Raises:
        ClepError: there are no training or validation utterances, or training diverged.
    """
    train, validation = (utterances[utterances.split == s].reset_index(drop=True) for s in ("train", "validation"))
    if train.empty or validation.empty:
        raise ClepError("Pretraining needs training and validation utterances.", got=len(utterances))
    environments = [name for name in prompts.CONTEXT_OF if name not in config.left_out]
    groups = [[np.flatnonzero(train.corpus == corpus)] for corpus in sorted(train.corpus.unique())]
    torch.set_num_threads(compute.threads)
    clap.model.requires_grad_(True)
    contexts = [prompts.CONTEXT_OF[name] for name in environments]
    texts = [[template.format(context=c) for template in prompts.ENVIRONMENT_TEMPLATES] for c in contexts]
    texts += [prompts.captions(emotion, prompts.CAPTION_TEMPLATES) for emotion in EMOTIONS]
    separate_captions(clap, texts, config.seed)
    trained = {name: p for name, p in clap.model.named_parameters() if p.requires_grad}

    def draw(step: int) -> Batch:
        batch = draw_batch(groups, config.seed, step, config.batch_size)
        rng = generator("environment", config.seed, step)
        drawn = rng.integers(len(environments), size=len(batch))
        cut = [
            crop(
                in_environment(*_waveform(train, n), environments[e], talk, rng),
                noises.RATE,
                clap.front_end,
                rng.random(),
            )
            for n, e in zip(batch, drawn, strict=True)
        ]
        return drawn, torch.from_numpy(np.stack(cut))

    load = Prefetch(draw, config.steps)

    def loss(step: int) -> tuple[Tensor, Metrics]:
        clap.model.train()
        drawn, waveforms = load(step)
        rng = generator("caption", config.seed, step)
        captions = [
            str(rng.choice(prompts.ENVIRONMENT_TEMPLATES)).format(context=prompts.CONTEXT_OF[environments[e]])
            for e in drawn
        ]
        audio = clap.encode_log_mel(log_mel(waveforms.to(clap.device), clap.front_end))
        logits = clap.logit_scale.exp() * audio @ clap.encode_text(captions).T
        contrastive, floor = contrastive_loss(logits, targets(torch.from_numpy(drawn).to(clap.device), "emotion"))
        return contrastive, {"contrastive_above_floor": contrastive - floor}

    training = pretraining(clap, trained, loss, config, folder, reporting, checkpointing)
    with load:
        training.run()
    clap.model.eval()
    accuracy = environment_accuracy(clap, validation, talk, config.seed)
    return accuracy_figures(accuracy, environments, config.left_out)


def pretraining(
    clap: Clap,
    trained: dict[str, torch.nn.Parameter],
    loss: Callable[[int], tuple[Tensor, Metrics]],
    config: PretrainConfig,
    folder: Path,
    reporting: Reporting,
    checkpointing: Checkpointing,
) -> Training:
    """Return the training on environments of some tensors by a loss."""
    return Training(
        tensors=trained,
        optimiser=adamw(decay_groups(trained.values(), config.learning_rate, WEIGHT_DECAY), clap.device),
        loss=loss,
        steps=config.steps,
        seed=config.seed,
        folder=folder,
        checkpointing=checkpointing,
        schedule=lambda step: warmup_cosine(step, config.steps, WARMUP_SHARE),
        clip_norm=1.0,
        after_step=clap.clamp_logit_scale,
        reporting=reporting,
    )


def accuracy_figures(accuracy: Mapping[str, float], heard: Sequence[str], left_out: Sequence[str]) -> dict[str, float]:
    """Return the mean accuracies of environments heard and left out."""
    return {
        f"environment_accuracy_{part}": round(float(np.mean([accuracy[name] for name in names])), 4)
        for part, names in {"heard": heard, "left_out": left_out}.items()
        if names
    } | {"environments": len(accuracy)}


@torch.no_grad()
def environment_accuracy(
    clap: Clap, utterances: "pd.DataFrame", talk: Sequence[Waveform], seed: int
) -> dict[str, float]:
    """Return the zero-shot accuracy of each environment.

    An utterance is classified by the nearest of all E contexts.
    """
    texts = [[t.format(context=c) for t in prompts.ENVIRONMENT_TEMPLATES] for c in prompts.CONTEXT_OF.values()]
    classes = F.normalize(torch.stack([clap.encode_text(row).mean(dim=0) for row in texts]), dim=1)  # (E, D)
    chosen = np.linspace(0, len(utterances) - 1, min(VALIDATION_UTTERANCES, len(utterances))).astype(int)
    found = {}
    for number, environment in enumerate(prompts.CONTEXT_OF):
        rng = generator("validation", seed, environment)
        placed = [(in_environment(*_waveform(utterances, n), environment, talk, rng), noises.RATE) for n in chosen]
        nearest = (clap.encode_waveforms(placed) @ classes.T).argmax(dim=1)
        found[environment] = float((nearest == number).float().mean())
    return found


def _waveform(utterances: "pd.DataFrame", position: int) -> tuple[Waveform, int]:
    row: Any = utterances.iloc[int(position)]
    return read_waveform(Path(row.folder), row.tar, row.offset, row.bytes)
