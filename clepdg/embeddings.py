"""Text embeddings (what the classifier learns from) and audio embeddings (what it is applied to).

Shapes: N labels, K contexts, J templates, D joint embedding, R rows of text embeddings, U utterances.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clepdg import prompts
from clepdg.acpt import ContextPrompts
from clepdg.audio import Waveform, log_mel_statistics
from clepdg.clap import Clap
from clepdg.config import TextConfig
from clepdg.emotions import labels
from clepdg.reading import read_names, unreadable
from clepdg.reporting import Reporting
from clepdg.store import digest
from clepdg.tensors import digest_tensors, load_tensors, save_tensors

TEXT = {"embeddings": ("float32", 2), "label_index": ("int64", 1), "context_index": ("int64", 1)}
AUDIO = {"embeddings": ("float32", 2)}


@dataclass(frozen=True, kw_only=True)
class TextEmbeddings:
    """Normalised text embeddings (R, D), and the label (R,) and context (R,) of each; context -1: none."""

    labels: tuple[str, ...]
    embeddings: Tensor
    label_index: Tensor
    context_index: Tensor

    def save(self, folder: Path) -> str:
        """Write text_embeddings.safetensors and labels.json; return the content digest."""
        tensors = {
            "embeddings": self.embeddings,
            "label_index": self.label_index,
            "context_index": self.context_index,
        }
        save_tensors(folder / "text_embeddings.safetensors", tensors)
        (folder / "labels.json").write_text(json.dumps(self.labels))
        return digest([digest_tensors(tensors), self.labels])


def load_text_embeddings(folder: Path) -> TextEmbeddings:
    """Read what TextEmbeddings.save wrote.

    Raises:
        StoreError: the folder holds none, or its parts do not fit together.
    """
    path = folder / "text_embeddings.safetensors"
    names, tensors = read_names(folder / "labels.json"), load_tensors(path, TEXT)
    rows, index = len(tensors["embeddings"]), tensors["label_index"]
    if not names or not rows or len(index) != rows or not 0 <= int(index.min()) <= int(index.max()) < len(names):
        raise unreadable(f"{rows} embeddings, {len(index)} labels of {len(names)}", path)
    return TextEmbeddings(labels=names, **tensors)


@torch.no_grad()
def build_text_embeddings(clap: Clap, config: TextConfig, contexts: Tensor | Sequence[str]) -> TextEmbeddings:
    """Embed the label set's words: content templates (N J rows), then every context with every label (K N rows).

    Args:
        contexts: context vectors (K, M, H), contexts in words, or nothing.

    Raises:
        BackboneError: a word that the backbone does not know.
    """
    clap.model.eval()
    names = labels(config.label_set)
    words = [prompts.class_word(name) for name in names]
    texts = [text for row in prompts.class_prompts(names, config.content_templates) for text in row]
    n, j, k = len(names), len(config.content_templates), len(contexts)
    parts = list(_encode_texts(clap, texts))
    if isinstance(contexts, Tensor):
        joint = ContextPrompts(
            clap, [config.joint_template.replace("{emotion}", word) for word in words], contexts.shape[1]
        )
        parts += [joint.encode(part.to(clap.device)).flatten(0, 1) for part in torch.split(contexts, 16)]
    else:
        joined = [config.joint_template.format(emotion=word, context=c) for c in contexts for word in words]
        parts += list(_encode_texts(clap, joined))
    return TextEmbeddings(
        labels=names,
        embeddings=torch.cat(parts).cpu(),
        label_index=torch.cat([torch.arange(n).repeat_interleave(j), torch.arange(n).repeat(k)]),
        context_index=torch.cat([torch.full((n * j,), -1), torch.arange(k).repeat_interleave(n)]),
    )


def _encode_texts(clap: Clap, texts: Sequence[str], size: int = 64) -> Iterator[Tensor]:
    for start in range(0, len(texts), size):
        yield clap.encode_text(texts[start : start + size])


@dataclass(frozen=True, kw_only=True)
class AudioEmbeddings:
    """Embeddings (U, D) of utterances by a model, in the shards' order."""

    utterance_ids: tuple[str, ...]
    embeddings: NDArray[np.float32]

    def save(self, folder: Path) -> str:
        """Write audio_embeddings.safetensors and utterances.json; return the content digest."""
        tensors = {"embeddings": torch.from_numpy(self.embeddings)}
        save_tensors(folder / "audio_embeddings.safetensors", tensors)
        (folder / "utterances.json").write_text(json.dumps(self.utterance_ids))
        return digest([digest_tensors(tensors), self.utterance_ids])


def load_audio_embeddings(folder: Path) -> AudioEmbeddings:
    """Read what AudioEmbeddings.save wrote.

    Raises:
        StoreError: the folder holds none, or its parts do not fit together.
    """
    path = folder / "audio_embeddings.safetensors"
    names, embeddings = read_names(folder / "utterances.json"), load_tensors(path, AUDIO)["embeddings"].numpy()
    if len(names) != len(embeddings):
        raise unreadable(f"{len(embeddings)} embeddings", path, f"{len(names)}, one an utterance")
    return AudioEmbeddings(utterance_ids=names, embeddings=embeddings)


def build_audio_embeddings(
    clap: Clap | None,
    utterances: Iterator[tuple[str, Waveform, int]],
    total: int,
    reporting: Reporting,
    batch_size: int = 32,
) -> AudioEmbeddings:
    """Embed utterances (id, waveform (T,), rate in Hz) by a CLAP, normalised; without one, by log-mel statistics."""
    names: list[str] = []
    parts: list[NDArray[np.float32]] = []
    batch: list[tuple[Waveform, int]] = []

    def flush() -> None:
        if clap is None:
            parts.append(np.stack([log_mel_statistics(*item) for item in batch]))
        elif batch:
            parts.append(clap.encode_waveforms(batch).cpu().numpy())
        batch.clear()
        reporting.progress(len(names), total)

    for utterance_id, waveform, rate in utterances:
        names.append(utterance_id)
        batch.append((waveform, rate))
        if len(batch) == batch_size:
            flush()
    if batch:
        flush()
    return AudioEmbeddings(utterance_ids=tuple(names), embeddings=np.concatenate(parts))


def select(embeddings: Sequence[AudioEmbeddings], utterance_ids: Sequence[str]) -> NDArray[np.float32]:
    """Return the embeddings (U, D) of the given utterances, in their order, from those of several corpora."""
    place: dict[str, Any] = {}
    for part in embeddings:
        place.update(zip(part.utterance_ids, part.embeddings, strict=True))
    return np.stack([place[name] for name in utterance_ids])
