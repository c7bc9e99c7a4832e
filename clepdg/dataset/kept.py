"""Corrupted utterances and their noises, kept in memory for the stages that hear them next.

A run embeds a condition by one model after another, and the SNRs of a noise one after another. An utterance is
corrupted for the first model, its noise is made for the first SNR, and the others take what was kept. Shapes: T
samples.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from clepdg.audio.corruptions import corrupt
from clepdg.audio.io import Waveform
from clepdg.audio.noise import RATE
from clepdg.config.conditions import Condition
from clepdg.dataset.shards import UtteranceReader

MOST_BYTES: Final = 2 << 30  # of corrupted utterances, and of noises: 9 hours each
MEMORY_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")  # of a container


def memory_bytes() -> int:
    """Return the memory of this machine, or of this container."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(whole, int(MEMORY_LIMIT.read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return whole


class Latest:
    """Waveforms of one group, kept until one of another group is wanted.

    They are kept as they come, while there is room; those without room are made each time. Threads may share it.

    Args:
        most_bytes: of all waveforms together.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.bytes_left, self._lock = most_bytes, most_bytes, threading.Lock()
        self._group: Hashable = None
        self._kept: dict[Hashable, Waveform] = {}

    def get(self, group: Hashable, name: Hashable, make: Callable[[], Waveform]) -> Waveform:
        """Return a group's waveform (T,) of a name, made if it is not kept.

        It is shared: callers must not change it.
        """
        with self._lock:
            if group != self._group:
                self._group, self._kept, self.bytes_left = group, {}, self.most_bytes
            kept = self._kept
        if name in kept:
            return kept[name]
        made = make()
        with self._lock:
            if kept is self._kept and name not in kept and made.nbytes <= self.bytes_left:
                self.bytes_left -= made.nbytes
                kept[name] = made if made.base is None else made.copy()  # a view would keep all of its base
        return made


_room = min(MOST_BYTES, memory_bytes() // 8 // (os.cpu_count() or 1))  # a run may have a process for each core
CORRUPTED, NOISES = Latest(_room), Latest(_room)


def clear() -> None:
    """Drop all waveforms that are kept."""
    for latest in (CORRUPTED, NOISES):
        latest.get(None, None, lambda: np.empty(0, np.float32))


def corrupted_reader(
    reader: UtteranceReader,
    utterance_ids: Sequence[str],
    condition: Condition,
    recordings: Sequence[Waveform],
    corpus: str,
) -> Callable[[int], tuple[Waveform, int]]:
    """Return a function that reads an utterance, by position, in a condition.

    It returns a waveform (T,), which must not be changed, and its rate in Hz; threads may share it.

    Args:
        recordings: as in `corrupt`.
        corpus: digest of the corpus's audio.
    """
    sounds = hashlib.sha256()
    for recording in recordings:
        sounds.update(len(recording).to_bytes(8) + recording.tobytes())
    heard = condition.curve, sounds.hexdigest()

    def read(position: int) -> tuple[Waveform, int]:
        utterance_id = utterance_ids[position]

        def noise(make: Callable[[], Waveform]) -> Waveform:
            return NOISES.get(heard, (corpus, utterance_id), make)

        def make() -> Waveform:
            return corrupt(*reader.waveform(position), utterance_id, condition, recordings, noise)

        return CORRUPTED.get((condition.name, *heard), (corpus, utterance_id), make), RATE

    return read
