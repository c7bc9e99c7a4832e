"""Audio of CLEP's batches: loaded in threads, encoded in a step.

Shapes: B batch, R ranks, U training utterances, P hidden states, A speech encoder's hidden size, D joint embedding.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from clepdg.audio.corruptions import augment
from clepdg.audio.frontend import cut
from clepdg.audio.io import Waveform, resample
from clepdg.audio.noise import RATE
from clepdg.audio.pieces import pack
from clepdg.config.rows import trains_audio
from clepdg.config.schema import ClepConfig
from clepdg.dataset.kept import memory_bytes
from clepdg.dataset.shards import UtteranceReader
from clepdg.method.audio_embeddings import AudioEmbeddings, select
from clepdg.method.inputs.log_mels import LogMels
from clepdg.models.clap import Clap
from clepdg.models.dual import Dual
from clepdg.models.micro import Micro
from clepdg.training import distributed

if TYPE_CHECKING:
    import pandas as pd

MOST_BYTES: Final = 4 << 30  # of 16-bit samples kept in memory, all ranks together: 37 hours at 16 kHz


class BatchAudio:
    """Loads and encodes a rank's part of each batch.

    A CLAP takes pieces of at most a window; a micro backbone takes log-mels that are computed once, or pieces where
    they are augmented. A dual backbone takes pooled states, or whole waveforms where its speech encoder learns or where
    they are augmented.
    """

    def __init__(
        self, clap: Clap, train: "pd.DataFrame", config: ClepConfig, seed: int, states: Sequence[AudioEmbeddings]
    ) -> None:
        self.clap, self.config, self.seed = clap, config, seed
        self.corpora = train.corpus.to_numpy()
        if isinstance(clap, Dual):
            self.frozen = select(states, train.utterance_id.tolist())  # (U, P, 2 A)
            self.learnt = clap.model.audio_projection.set_statistics(self.frozen, self.corpora, config)
        self.from_states = isinstance(clap, Dual) and not trains_audio(config) and not config.augment
        self.log_mels = LogMels(train, clap.front_end) if isinstance(clap, Micro) and not config.augment else None
        self.on_gpu = clap.device.type == "cuda"
        self.reader = (
            UtteranceReader(train, sample_bytes() // distributed.world_size()) if not self.from_states else None
        )

    def load(self, step: int, batch: np.ndarray) -> Any:
        """Return this rank's pooled states, log-mels, pieces or waveforms.

        It depends on the seed, the step and the batch alone, and may be called from several threads.

        Args:
            batch: positions (B,) of utterances.
        """
        mine = np.arange(len(batch))[distributed.rank_slice(len(batch))]
        if self.reader is None:
            return torch.from_numpy(self.learnt[batch[mine]])
        draws = np.random.default_rng([self.seed, step, 2]).random(len(batch))
        if self.log_mels is not None:
            return torch.stack([self.log_mels.crop(n, draw) for n, draw in zip(batch[mine], draws[mine], strict=True)])
        if isinstance(self.clap, Dual):
            return [self.clap.encoder.crop(*self._heard(step, n, place), draws[place])
                    for n, place in zip(batch[mine], mine, strict=True)]  # fmt: skip
        pieces = pack([self._piece(step, n, place, draws[place]) for n, place in zip(batch[mine], mine, strict=True)])
        return pieces.pin() if self.on_gpu else pieces

    def _heard(self, step: int, position: int, place: int) -> tuple[Waveform, int]:
        """Return an utterance (T,), augmented where it is wanted, and its rate."""
        assert self.reader is not None
        waveform, rate = self.reader.waveform(int(position))
        if not self.config.augment:
            return waveform, rate
        return augment(waveform, rate, np.random.default_rng([self.seed, step, 3, place])), RATE

    def _piece(self, step: int, position: int, place: int, draw: float) -> tuple[np.ndarray, int]:
        """Return a piece (T,) of an utterance; the CPU's is resampled here."""
        front_end = self.clap.front_end
        if self.on_gpu and not self.config.augment and self.reader is not None:
            pcm, rate = self.reader.pcm(int(position))
            return cut(pcm, rate, front_end, draw), rate
        waveform, rate = self._heard(step, position, place)
        part = cut(waveform, rate, front_end, draw)
        return (part, rate) if self.on_gpu else (resample(part, rate, front_end.sample_rate), front_end.sample_rate)

    def encode(self, batch: np.ndarray, inputs: Any) -> Tensor:
        """Encode what `load` returned as features (B/R, D).

        With clep.chunk, a few utterances at a time without their graph. Their gradients are computed by encoding them
        once more, with the same dropout: memory is that of a chunk, gradients are those of the loss of the whole batch
        (GradCache: Gao et al., RepL4NLP 2021; here by torch's checkpoints).
        """
        mine, size = batch[distributed.rank_slice(len(batch))], self.config.chunk
        if size is None or size >= len(mine):
            return self._encode(mine, inputs)
        parts = [slice(start, start + size) for start in range(0, len(mine), size)]
        return torch.cat([checkpoint(self._encode, mine[p], inputs[p], use_reentrant=False) for p in parts])

    def _encode(self, batch: np.ndarray, inputs: Any) -> Tensor:
        """Encode inputs of utterances, at positions (b,), as features (b, D)."""
        if self.log_mels is not None:
            return self.clap.encode_log_mel(inputs)
        if self.from_states:
            return self.clap.encode_inputs(inputs)
        if not isinstance(self.clap, Dual):
            front_end = self.clap.front_end
            pieces = inputs.at(front_end.sample_rate, self.clap.device)
            return self.clap.encode_pieces([piece[: front_end.samples] for piece in pieces])
        pooled, head = self.clap.encoder.pool_with_gradients(inputs), self.clap.model.audio_projection
        if self.config.standardise == "source":  # by the frozen encoder's states, as where it stays frozen
            corpora = self.corpora[batch]
            pooled = pooled.clone()
            for corpus in np.unique(corpora):
                rows = torch.from_numpy(np.flatnonzero(corpora == corpus)).to(pooled.device)
                pooled[rows] = head.shift(pooled[rows], self.frozen[self.corpora == corpus])
        return self.clap.encode_inputs(pooled)


def sample_bytes() -> int:
    """Return the most bytes of samples to keep: an eighth of the memory."""
    return min(MOST_BYTES, memory_bytes() // 8)
