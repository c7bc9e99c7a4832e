"""Audio embeddings of utterances: compute, save, load, select.

Shapes: B batch, U utterances, D joint embedding, T samples.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clepdg.audio.io import Waveform
from clepdg.callbacks import Reporting
from clepdg.hashing import digest
from clepdg.models.tensors import digest_tensors, load_tensors, save_tensors
from clepdg.store.readers import read_names, unreadable

AUDIO = {"embeddings": ("float32", 2)}


@dataclass(frozen=True, kw_only=True)
class AudioEmbeddings:
    """A model's embeddings (U, D) of utterances, in the shards' order."""

    utterance_ids: tuple[str, ...]
    embeddings: NDArray[np.float32]

    def save(self, folder: Path) -> str:
        """Write embeddings and utterance ids; return the content digest.

        The files are audio_embeddings.safetensors and utterances.json.
        """
        tensors = {"embeddings": torch.from_numpy(self.embeddings)}
        save_tensors(folder / "audio_embeddings.safetensors", tensors)
        (folder / "utterances.json").write_text(json.dumps(self.utterance_ids))
        return digest([digest_tensors(tensors), self.utterance_ids])


def load_audio_embeddings(folder: Path) -> AudioEmbeddings:
    """Read embeddings that `AudioEmbeddings.save` wrote.

    Raises:
        StoreError: the folder holds none, or its files do not fit together.
    """
    path = folder / "audio_embeddings.safetensors"
    names, embeddings = read_names(folder / "utterances.json"), load_tensors(path, AUDIO)["embeddings"].numpy()
    if len(names) != len(embeddings):
        raise unreadable(f"{len(embeddings)} embeddings", path, f"{len(names)}, one per utterance")
    return AudioEmbeddings(utterance_ids=names, embeddings=embeddings)


Embed = Callable[[Sequence[tuple[Waveform, int]]], NDArray[np.float32]]  # waveforms (B x (T,)) and rates -> (B, D)


def batched(function: Callable[[Waveform, int], NDArray[np.float32]]) -> Embed:
    """Turn a function of one waveform into a function of a batch."""
    return lambda batch: np.stack([function(waveform, rate) for waveform, rate in batch])


def build_audio_embeddings(
    embed: Embed,
    utterances: Iterator[tuple[str, Waveform, int]],
    total: int,
    reporting: Reporting,
    batch_size: int = 32,
) -> AudioEmbeddings:
    """Embed utterances batch by batch.

    Args:
        utterances: ids, waveforms (T,) and rates in Hz.
        total: number of utterances, for progress.
    """
    names: list[str] = []
    parts: list[NDArray[np.float32]] = []
    batch: list[tuple[Waveform, int]] = []

    def flush() -> None:
        parts.append(embed(batch))
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
    """Select utterances' embeddings (U, D), in order, from all corpora."""
    place = {name: row for row, name in enumerate(name for part in embeddings for name in part.utterance_ids)}
    every: NDArray[np.float32] = np.concatenate([part.embeddings for part in embeddings])
    return every[[place[name] for name in utterance_ids]]
