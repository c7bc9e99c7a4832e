"""Pretrain dual-context, the positive control whose words mean something.

As micro-context it matches source-training audio in simulated environments with captions that name the environment and
no emotion; some environments are left out. The encoders stay frozen and the heads learn, from pooled states that are
computed once for a sample of utterances, each in every environment.

Shapes: U utterances in environments, P hidden states, A and H the encoders' hidden sizes, E environments, J templates,
B batch, D joint embedding.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clepdg import prompts
from clepdg.audio.io import Waveform
from clepdg.audio.noise import RATE
from clepdg.callbacks import DEFAULT_CHECKPOINTING, Checkpointing, Reporting
from clepdg.config.conditions import CLEAN
from clepdg.config.schema import ClepConfig, ComputeConfig, PretrainConfig
from clepdg.dataset.shards import waveforms_of
from clepdg.errors import ClepError
from clepdg.hashing import generator
from clepdg.method.audio_embeddings import AudioEmbeddings
from clepdg.method.contrastive import contrastive_loss, draw_batch, targets
from clepdg.method.micro_context import accuracy_figures, in_environment, pretraining
from clepdg.models.dual import Dual
from clepdg.training.step_log import Metrics

if TYPE_CHECKING:
    import pandas as pd

VALIDATION_SHARE: Final = 4  # one validation utterance for as many training utterances


def sample(utterances: "pd.DataFrame", count: int, seed: int) -> "pd.DataFrame":
    """Draw a corpus's utterances that are put into every environment.

    Args:
        utterances: of its training and validation parts: utterance_id, split, and where their audio lies.
        count: of the training part; a quarter as many are of the validation part.
    """
    import pandas as pd

    drawn = []
    for split, most in (("train", count), ("validation", -(-count // VALIDATION_SHARE))):
        part = utterances[utterances.split == split].sort_values("utterance_id")
        chosen = generator("environments", seed, split).permutation(len(part))[:most]
        drawn.append(part.iloc[np.sort(chosen)])
    return pd.concat(drawn, ignore_index=True)


def in_environments(
    utterances: "pd.DataFrame", talk: Sequence[Waveform], seed: int
) -> Iterator[tuple[str, Waveform, int]]:
    """Yield "split/environment/utterance", a waveform (T,) and its rate in Hz.

    Args:
        talk: speech of the corpus's training part at 16 kHz, for babble.
    """
    heard = zip(utterances.itertuples(index=False), waveforms_of(utterances), strict=True)
    row: Any
    for row, (waveform, rate) in heard:
        for environment in prompts.CONTEXT_OF:
            rng = generator("environments", seed, row.utterance_id, environment)
            placed = in_environment(waveform, rate, environment, talk, rng)
            yield f"{row.split}/{environment}/{row.utterance_id}", placed, RATE


def pretrain(
    dual: Dual,
    states: Sequence[AudioEmbeddings],
    config: PretrainConfig,
    compute: ComputeConfig,
    folder: Path,
    reporting: Reporting,
    checkpointing: Checkpointing = DEFAULT_CHECKPOINTING,
) -> dict[str, Any]:
    """Train the heads, in place, to match environments with context words.

    Args:
        states: pooled states (U, P, 2 A) of what `in_environments` yields, corpus by corpus.
        folder: where checkpoints are saved.

    Returns:
        Metrics: zero-shot accuracy of the environment on source validation, for environments used in training
        ("heard") and for those left out.

    Raises:
        ClepError: there are no training or validation utterances, or training diverged.
    """
    x = np.concatenate([part.embeddings for part in states])
    corpora = np.repeat(np.arange(len(states)), [len(part.embeddings) for part in states])
    names = np.array([name.split("/", 2)[:2] for part in states for name in part.utterance_ids])
    train, validation = names[:, 0] == "train", names[:, 0] == "validation"
    if not train.any() or not validation.any():
        raise ClepError("Pretraining needs training and validation utterances.", got=len(names))
    environments = [name for name in prompts.CONTEXT_OF if name not in config.left_out]
    groups = [
        [np.flatnonzero(train & (corpora == corpus) & (names[:, 1] == name)) for name in environments]
        for corpus in sorted(set(corpora[train]))
    ]
    place = {name: number for number, name in enumerate(environments)}
    torch.set_num_threads(compute.threads)
    model, clean = dual.model, train & (names[:, 1] == CLEAN)
    model.audio_projection.set_statistics(x[clean], corpora[clean], ClepConfig())
    model.requires_grad_(False)
    for head in (model.audio_projection, model.text_projection):
        head.requires_grad_(True)
    dual.logit_scale.requires_grad_(True)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    texts = _pooled_captions(dual, environments)  # (E, J, H)

    def loss(step: int) -> tuple[Tensor, Metrics]:
        model.eval()
        model.audio_projection.train()
        model.text_projection.train()
        batch = draw_batch(groups, config.seed, step, config.batch_size)
        drawn = torch.tensor([place[name] for name in names[batch, 1]], device=dual.device)
        templates = generator("caption", config.seed, step).integers(texts.shape[1], size=len(batch))
        captions = dual.project_text(texts[drawn, torch.from_numpy(templates).to(dual.device)])
        logits = dual.logit_scale.exp() * dual.encode_inputs(torch.from_numpy(x[batch])) @ captions.T
        contrastive, floor = contrastive_loss(logits, targets(drawn, "emotion"))
        return contrastive, {"contrastive_above_floor": contrastive - floor}

    pretraining(dual, trained, loss, config, folder, reporting, checkpointing).run()
    model.eval()
    accuracy = environment_accuracy(dual, x[validation], names[validation, 1])
    return accuracy_figures(accuracy, environments, config.left_out)


@torch.no_grad()
def environment_accuracy(dual: Dual, states: NDArray[np.float32], environments: NDArray[Any]) -> dict[str, float]:
    """Return the zero-shot accuracy of each environment.

    An utterance is classified by the nearest of all E contexts.

    Args:
        states: (U, P, 2 A).
        environments: (U,) of the utterances.
    """
    texts = dual.project_text(_pooled_captions(dual, list(prompts.CONTEXT_OF)))  # (E, J, D)
    classes = F.normalize(texts.mean(dim=1), dim=-1)
    found = (dual.encode_inputs(torch.from_numpy(states)) @ classes.T).argmax(dim=1).cpu().numpy()
    return {
        name: float((found[environments == name] == number).mean()) for number, name in enumerate(prompts.CONTEXT_OF)
    }


@torch.no_grad()
def _pooled_captions(dual: Dual, environments: Sequence[str]) -> Tensor:
    """Return the pooled captions (E, J, H) of environments in every template."""
    contexts = [prompts.CONTEXT_OF[name] for name in environments]
    texts = [[template.format(context=c) for template in prompts.ENVIRONMENT_TEMPLATES] for c in contexts]
    return torch.stack([dual.pool_text(**dual.tokenize(row)) for row in texts])
