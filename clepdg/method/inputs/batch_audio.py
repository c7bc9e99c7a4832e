"""Audio of CLEP's batches: loaded in a thread, encoded in a step.

Shapes: B batch, R ranks, U training utterances, P hidden states, A speech encoder's hidden size, D joint embedding.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clepdg.audio.corruptions import augment
from clepdg.audio.frontend import crop
from clepdg.audio.noise import RATE
from clepdg.config.rows import trains_audio
from clepdg.config.schema import ClepConfig
from clepdg.dataset.shards import waveforms_of
from clepdg.method.audio_embeddings import AudioEmbeddings, select
from clepdg.method.inputs.log_mels import LogMels
from clepdg.models.clap import Clap
from clepdg.models.dual import Dual
from clepdg.models.micro import Micro
from clepdg.training import distributed

if TYPE_CHECKING:
    import pandas as pd


class BatchAudio:
    """Loads and encodes a rank's part of each batch.

    A CLAP takes windows of waveforms; a micro backbone takes log-mels that are computed once, or windows where they
    are augmented. A dual backbone takes pooled states, or whole waveforms where its speech encoder learns or where they
    are augmented.
    """

    def __init__(
        self, clap: Clap, train: "pd.DataFrame", config: ClepConfig, seed: int, states: Sequence[AudioEmbeddings]
    ) -> None:
        self.clap, self.train, self.config, self.seed = clap, train, config, seed
        self.corpora = train.corpus.to_numpy()
        if isinstance(clap, Dual):
            self.frozen = select(states, train.utterance_id.tolist())  # (U, P, 2 A)
            self.learnt = clap.model.audio_projection.set_statistics(self.frozen, self.corpora, config)
        self.from_states = isinstance(clap, Dual) and not trains_audio(config) and not config.augment
        self.log_mels = LogMels(train, clap.front_end) if isinstance(clap, Micro) and not config.augment else None

    def load(self, step: int, batch: np.ndarray) -> Any:
        """Return this rank's pooled states, log-mels, windows or waveforms.

        Args:
            batch: positions (B,) of utterances.
        """
        mine = np.arange(len(batch))[distributed.rank_slice(len(batch))]
        if self.from_states:
            return torch.from_numpy(self.learnt[batch[mine]])
        draws = np.random.default_rng([self.seed, step, 2]).random(len(batch))
        if self.log_mels is not None:
            return torch.stack([self.log_mels.crop(n, draw) for n, draw in zip(batch[mine], draws[mine], strict=True)])
        cut = []
        for place, (waveform, rate) in zip(mine, waveforms_of(self.train.iloc[batch[mine]]), strict=True):
            if self.config.augment:
                rng = np.random.default_rng([self.seed, step, 3, place])
                waveform, rate = augment(waveform, rate, rng), RATE
            if isinstance(self.clap, Dual):
                cut.append(self.clap.encoder.crop(waveform, rate, draws[place]))
            else:
                cut.append(crop(waveform, rate, self.clap.front_end, draws[place]))
        return cut if isinstance(self.clap, Dual) else torch.from_numpy(np.stack(cut))

    def encode(self, batch: np.ndarray, inputs: Any) -> Tensor:
        """Encode what `load` returned as features (B/R, D)."""
        if self.log_mels is not None:
            return self.clap.encode_log_mel(inputs)
        if not isinstance(self.clap, Dual) or self.from_states:
            return self.clap.encode_inputs(inputs)
        pooled, head = self.clap.encoder.pool_with_gradients(inputs), self.clap.model.audio_projection
        if self.config.standardise == "source":  # by the frozen encoder's states, as where it stays frozen
            corpora = self.corpora[batch[distributed.rank_slice(len(batch))]]
            pooled = pooled.clone()
            for corpus in np.unique(corpora):
                rows = torch.from_numpy(np.flatnonzero(corpora == corpus)).to(pooled.device)
                pooled[rows] = head.shift(pooled[rows], self.frozen[self.corpora == corpus])
        return self.clap.encode_inputs(pooled)
