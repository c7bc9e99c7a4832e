"""Read audio and refuse what can't be used, in the same words everywhere."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from clepdg.audio.faults import find_fault
from clepdg.audio.io import Waveform, decode, to_mono
from clepdg.config.schema import IndexConfig
from clepdg.errors import IndexingError

Item = TypeVar("Item")


def read_audio(source: Path | bytes, config: IndexConfig | None = None) -> tuple[Waveform, int]:
    """Decode a file or its bytes; return samples (T, C) and the rate in Hz.

    Args:
        config: limits; None: the default ones.

    Raises:
        IndexingError: it can't be used; the sentence is the reason.
    """
    config = config or IndexConfig()
    samples, rate = decode(source, config.max_seconds)
    if fault := find_fault(samples, rate, config):
        raise IndexingError(fault)
    return samples, rate


def read_samples(values: Any, rate: Any, config: IndexConfig | None = None) -> tuple[Waveform, int]:
    """Return given samples (T,) as samples (T, 1), and their rate in Hz.

    Raises:
        IndexingError: they can't be used, or exceed full scale (1).
    """
    try:
        with np.errstate(over="ignore"):  # what is too large for float32 is not finite
            samples, hertz = np.asarray(values, np.float32), int(rate)
    except (TypeError, ValueError, OverflowError) as error:
        raise IndexingError(f"not readable as audio: {' '.join(str(error).split())}") from error
    if samples.ndim != 1:
        raise IndexingError(f"not readable as audio: samples of {samples.ndim} dimensions, not of 1")
    if fault := find_fault(samples[:, None], hertz, config or IndexConfig(), max_peak=1.0):
        raise IndexingError(fault)
    return samples[:, None], hertz


def read_usable(
    items: Iterable[tuple[str, Item]], read: Callable[[Item], tuple[Waveform, int]]
) -> Iterator[tuple[Waveform, int]]:
    """Yield waveforms (T,) and rates in Hz, one at a time.

    After the first fault the rest is checked and nothing more yielded.

    Args:
        items: what `read` takes, with names for the error.

    Raises:
        IndexingError: some can't be used; a child names each one and its reason.
    """
    faults: list[str] = []
    for name, item in items:
        try:
            samples, rate = read(item)
        except IndexingError as error:
            faults.append(f"{name}: {error.what}")
            continue
        if not faults:
            yield to_mono(samples), rate
    if faults:
        raise IndexingError("Some audio can't be used.", children=faults)
