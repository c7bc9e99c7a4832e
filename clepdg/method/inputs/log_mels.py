"""Log-mels of utterances, computed once and kept in memory.

Shapes: W windows of one utterance, F frames of one utterance.
"""

import threading
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from clepdg.audio.frontend import FrontEnd, standardise, whole_log_mel
from clepdg.dataset.shards import UtteranceReader

if TYPE_CHECKING:
    import pandas as pd

MOST_BYTES: Final = 1 << 30  # about 33,000 utterances of at most 4 s; the log-mels of others are computed each time


class LogMels:
    """Log-mels (F, mels) of utterances in dB, as float16.

    A window is a part of an utterance's frames, standardised by itself. It differs from the log-mel of the same part of
    the waveform in its first and last frames, whose neighbours are not reflected.
    """

    def __init__(self, utterances: "pd.DataFrame", front_end: FrontEnd, most_bytes: int = MOST_BYTES) -> None:
        self.reader, self.front_end = UtteranceReader(utterances), front_end
        self.kept: dict[int, Tensor] = {}
        self.bytes_left, self.lock = most_bytes, threading.Lock()

    def crop(self, position: int, draw: float) -> Tensor:
        """Return a window (1, frames, mels) of an utterance.

        Args:
            draw: in [0, 1): the position of the window.
        """
        whole = self._whole(position)
        return self._window(whole, int(draw * (len(whole) - self.front_end.frames + 1)))

    def windows(self, position: int) -> Tensor:
        """Return half-overlapping windows (W, 1, frames, mels) of an utterance.

        The last window ends where the utterance ends.
        """
        whole, size = self._whole(position), self.front_end.frames
        starts = [*range(0, len(whole) - size, size // 2), len(whole) - size]
        return torch.stack([self._window(whole, start) for start in starts])

    def _window(self, whole: Tensor, start: int) -> Tensor:
        return standardise(whole[None, start : start + self.front_end.frames].float())

    def _whole(self, position: int) -> Tensor:
        position = int(position)
        if position in self.kept:
            return self.kept[position]
        waveform, rate = self.reader.waveform(position)
        whole = whole_log_mel(waveform, rate, self.front_end).half()
        with self.lock:  # two threads may have computed the same
            if position not in self.kept and whole.nbytes <= self.bytes_left:
                self.bytes_left -= whole.nbytes
                self.kept[position] = whole
        return whole
