"""Fit the head of one row: by counting labels, from audio, from text.

Shapes: U utterances, D joint embedding, N labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from clepdg.callbacks import DEFAULT_CHECKPOINTING, Checkpointing, Reporting
from clepdg.config.schema import ClassifierConfig
from clepdg.method import classifier, heads
from clepdg.method.audio_embeddings import AudioEmbeddings, select
from clepdg.method.heads import Head
from clepdg.method.text_embeddings import TextEmbeddings

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class LabelledAudio:
    """Audio embeddings x (U, D) with label indices y (U,), corpora (U,)."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    corpora: tuple[str, ...]


def labelled_audio(
    utterances: "pd.DataFrame", embeddings: Sequence[AudioEmbeddings], without: str | None = None
) -> LabelledAudio:
    """Select the audio embeddings of labelled utterances.

    Args:
        utterances: with columns utterance_id, corpus, label and label_index.
        embeddings: of several corpora.
        without: a label whose utterances are left out.
    """
    utterances = utterances[utterances.label != without]
    return LabelledAudio(
        x=select(embeddings, utterances.utterance_id.tolist()),
        y=utterances.label_index.to_numpy(),
        corpora=tuple(utterances.corpus),
    )


def fit_head(
    kind: str,
    names: tuple[str, ...],
    train: LabelledAudio,
    validation: LabelledAudio,
    *,
    text: TextEmbeddings | None = None,
    config: ClassifierConfig | None = None,
    seed: int = 0,
    folder: Path = Path(),
    reporting: Reporting | None = None,
    checkpointing: Checkpointing = DEFAULT_CHECKPOINTING,
    new_label: str | None = None,
    redraws: int | None = None,
) -> tuple[Head, dict[str, float]]:
    """Fit the head of one row on the sources of a fold.

    A head from text gets its temperature too.

    Args:
        kind: "majority", "logistic", or what learns from text ("text", "prompts").
        names: the label set (N,).
        train: the sources' training part; a head from text takes only its mean from it.
        validation: the sources' validation part, for the temperature.
        text: the text embeddings, config: the classifier's settings; both for a head from text alone.
        folder: for checkpoints of the training.
        new_label: the label that is added by its word alone; `train` and `validation` hold none of it.
        redraws: how many sets of contexts the text embeddings hold, each pass over one; None: all at once.

    Returns:
        The head, and figures of it.

    Raises:
        ClepError: a logistic regression has fewer than two labels to learn, or training diverged.
    """
    figures: dict[str, float] = {}
    if kind == "majority":
        head = heads.majority(train.y, names, train.x.shape[1])
    elif kind == "logistic":
        head = classifier.fit_audio(train.x, train.y, names)
    else:
        if text is None or config is None:
            raise ValueError("A head that is learnt from text needs text embeddings and settings.")
        weight, figures = classifier.fit_text(
            text.embeddings,
            text.label_index,
            len(text.labels),
            config,
            seed,
            folder,
            reporting or Reporting(),
            checkpointing,
            new=text.labels.index(new_label) if new_label else None,
            sets=_sets(text, redraws) if redraws else None,
        )
        head = _with_mean(text.labels, weight, config, train)
        figures["log_temperature"] = _temperature(head, names, validation, new_label)
        head = replace(head, log_temperature=figures["log_temperature"])
    predicted = head.logits(validation.x).argmax(axis=1)
    return head, {**figures, "validation_accuracy": float((predicted == validation.y).mean())}


def _with_mean(labels: tuple[str, ...], weight: torch.Tensor, config: ClassifierConfig, train: LabelledAudio) -> Head:
    """Return a cosine head with the mean of the sources' audio, or with none."""
    mean = torch.zeros(weight.shape[1])
    if config.centring != "none":  # `target` replaces it in the evaluation; the temperature is fitted with this one
        mean = torch.from_numpy(classifier.source_mean(train.x, train.y, train.corpora))
    return Head(labels=labels, cosine=True, weight=weight, bias=torch.zeros(len(weight)), mean=mean)


def _temperature(head: Head, names: tuple[str, ...], validation: LabelledAudio, new_label: str | None) -> float:
    """Fit the log temperature on validation audio.

    Over the labels that the sources have.
    """
    known = heads.drop_label(head, new_label) if new_label else head
    y = np.array([known.labels.index(names[label]) for label in validation.y], dtype=np.int64)
    return classifier.fit_temperature(known, validation.x, y, validation.corpora)


def _sets(text: TextEmbeddings, redraws: int) -> torch.Tensor:
    """Return the set of contexts that each row of text belongs to (R,).

    -1: every set.
    """
    per_set = (int(text.context_index.max()) + 1) // redraws
    return torch.div(text.context_index, per_set, rounding_mode="floor")  # -1 stays -1
