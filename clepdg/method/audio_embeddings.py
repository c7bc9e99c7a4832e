"""Audio embeddings of utterances: compute, save, load, select.

Shapes: B batch, U utterances, D joint embedding, T samples. Pooled states of a dual backbone are kept alike:
(U, P, 2 A), P hidden states of its speech encoder, A wide.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clepdg.audio.io import Waveform
from clepdg.callbacks import Reporting
from clepdg.hashing import digest
from clepdg.models.clap import Clap
from clepdg.models.tensors import digest_tensors, load_tensors, save_tensors
from clepdg.store.readers import read_names, unreadable


@dataclass(frozen=True, kw_only=True)
class AudioEmbeddings:
    """A model's embeddings (U, D) or states (U, P, 2 A), in the shards' order."""

    utterance_ids: tuple[str, ...]
    embeddings: NDArray[np.float32]

    def save(self, folder: Path) -> str:
        """Write embeddings and utterance ids; return the content digest.

        The files are audio_embeddings.safetensors and utterances.json.
        """
        tensors = {"embeddings": torch.from_numpy(self.embeddings)}
        save_tensors(folder / "audio_embeddings.safetensors", tensors)
        (folder / "utterances.json").write_text(json.dumps(self.utterance_ids))
        return self.digest()

    def digest(self, utterance_ids: Sequence[str] | None = None) -> str:
        """Return the content digest of all embeddings, or of some utterances'."""
        names = self.utterance_ids if utterance_ids is None else tuple(utterance_ids)
        embeddings = self.embeddings if utterance_ids is None else select([self], names)
        return digest([digest_tensors({"embeddings": torch.from_numpy(embeddings)}), names])

    def only(self, utterance_ids: Collection[str]) -> "AudioEmbeddings":
        """Return the embeddings of those of some utterances that are there."""
        names = tuple(name for name in self.utterance_ids if name in utterance_ids)
        return AudioEmbeddings(utterance_ids=names, embeddings=select([self], names))


def load_audio_embeddings(folder: Path, dimensions: int = 2) -> AudioEmbeddings:
    """Read embeddings that `AudioEmbeddings.save` wrote.

    Args:
        dimensions: 2 of embeddings, 3 of pooled states.

    Raises:
        StoreError: the folder holds none, or its files do not fit together.
    """
    path, expected = folder / "audio_embeddings.safetensors", {"embeddings": ("float32", dimensions)}
    names, embeddings = read_names(folder / "utterances.json"), load_tensors(path, expected)["embeddings"].numpy()
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


@torch.no_grad()
def embed_states(clap: Clap, states: AudioEmbeddings) -> AudioEmbeddings:
    """Embed utterances from a dual backbone's pooled states (U, P, 2 A)."""
    x = torch.from_numpy(states.embeddings)
    parts = [clap.encode_inputs(part).cpu().numpy() for part in torch.split(x, 256)]
    return AudioEmbeddings(utterance_ids=states.utterance_ids, embeddings=np.concatenate(parts))


def select(embeddings: Sequence[AudioEmbeddings], utterance_ids: Sequence[str]) -> NDArray[np.float32]:
    """Select utterances' embeddings (U, ...), in order, from all corpora."""
    place = {name: row for row, name in enumerate(name for part in embeddings for name in part.utterance_ids)}
    every: NDArray[np.float32] = np.concatenate([part.embeddings for part in embeddings])
    return every[[place[name] for name in utterance_ids]]
