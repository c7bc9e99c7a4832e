"""Batches of pieces of audio, moved and resampled where the model is.

Shapes: B pieces, T samples. A CPU resamples by soxr while it loads. A GPU is given the 16-bit samples of the shards, a
sixth of the bytes of float32 at 48 kHz, in one copy that does not block. It resamples by a kernel made once: speech at
16 kHz gets the log-mels of soxr within 0.15 dB in bands that end below 7.2 kHz, and within 0.1 dB on average in all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clepdg.audio.frontend import FrontEnd, log_mel
from clepdg.audio.precision import float32_only

CACHED: Final = 1 << 19  # samples of windows that a CPU fills at once
KAISER_BEST = {  # of librosa's resampy filters, as torchaudio documents them
    "resampling_method": "sinc_interp_kaiser",
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "beta": 14.769656459379492,
}


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """Pieces of audio of different lengths.

    Attributes:
        samples: (B, T) int16, or float32 in [-1, 1]; zeros behind each piece.
        lengths: of the pieces, in samples.
        rates: of the pieces, in Hz.
    """

    samples: Tensor
    lengths: tuple[int, ...]
    rates: tuple[int, ...]

    def __len__(self) -> int:
        """Return the number of pieces."""
        return len(self.lengths)

    def __getitem__(self, rows: slice) -> "Pieces":
        """Return some of the pieces."""
        return Pieces(samples=self.samples[rows], lengths=self.lengths[rows], rates=self.rates[rows])

    def pin(self) -> "Pieces":
        """Pin the pieces in memory, so that a GPU copies without blocking."""
        return replace(self, samples=self.samples.pin_memory())

    def at(self, rate: int, device: torch.device) -> list[Tensor]:
        """Move the pieces to a device and resample them: (B x (T,)) float32."""
        x = self.samples.to(device, non_blocking=True)
        x = x.float() / 32768.0 if x.dtype == torch.int16 else x
        found: dict[int, Tensor] = {}
        for own in sorted(set(self.rates)):
            rows = [row for row, each in enumerate(self.rates) if each == own]
            part = x if len(rows) == len(x) else x[rows]
            resampled = part if own == rate else resample_here(part, own, rate)
            for row, piece in zip(rows, resampled, strict=True):
                found[row] = piece[: resampled_length(self.lengths[row], own, rate)]
        return [found[row] for row in range(len(x))]


def pack(pieces: Sequence[tuple[NDArray[Any], int]]) -> Pieces:
    """Join pieces (T,), all int16 or all float32, with their rates in Hz."""
    lengths = tuple(len(piece) for piece, _ in pieces)
    samples = np.zeros((len(pieces), max(lengths)), pieces[0][0].dtype)
    for row, (piece, _) in zip(samples, pieces, strict=True):
        row[: len(piece)] = piece
    return Pieces(samples=torch.from_numpy(samples), lengths=lengths, rates=tuple(rate for _, rate in pieces))


def resampled_length(length: int, rate: int, target_rate: int) -> int:
    """Return the number of samples after resampling, as soxr rounds it."""
    return max(1, (2 * length * target_rate + rate) // (2 * rate))


def resample_here(waveforms: Tensor, rate: int, target_rate: int) -> Tensor:
    """Resample waveforms (B, T) on their device, in float32."""
    with float32_only(waveforms.device.type):
        resampled: Tensor = _resampler(rate, target_rate, waveforms.device)(waveforms)
    return resampled


@cache
def _resampler(rate: int, target_rate: int, device: torch.device) -> torch.nn.Module:
    from torchaudio.transforms import Resample

    resampler: torch.nn.Module = Resample(rate, target_rate, **KAISER_BEST).to(device)
    return resampler


def fill_windows(pieces: Sequence[Tensor], front_end: FrontEnd) -> Tensor:
    """Pad pieces (B x (T,)) to windows (B, samples), on their device.

    As `pad` does.
    """
    filled = pieces[0].new_zeros(len(pieces), front_end.samples)
    for window, piece in zip(filled, pieces, strict=True):
        whole = len(window) // len(piece) * len(piece)
        window[:whole].view(-1, len(piece)).copy_(piece)
        if front_end.fill == "repeat":
            window[whole:] = piece[: len(window) - whole]
    return filled


def log_mel_of(pieces: Sequence[Tensor], front_end: FrontEnd) -> Tensor:
    """Return the log-mels (B, 1, frames, mels) of pieces, padded.

    A GPU transforms all at once; a CPU a few, so that their windows stay in its cache.
    """
    few = max(1, CACHED // front_end.samples) if pieces[0].device.type == "cpu" else len(pieces)
    groups = [pieces[start : start + few] for start in range(0, len(pieces), few)]
    return torch.cat([log_mel(fill_windows(own, front_end), front_end, [*map(len, own)]) for own in groups])
