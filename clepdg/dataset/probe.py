"""Probe an audio file: decode it, measure it, find faults."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from clepdg.audio.faults import rms
from clepdg.audio.inspection import read_audio
from clepdg.audio.io import Waveform, to_mono, to_pcm
from clepdg.config.schema import IndexConfig
from clepdg.dataset.outliers import Measures, measure
from clepdg.errors import IndexingError
from clepdg.hashing import digest_file

FULL_SCALE: Final = 1 - 2**-15  # the largest sample of 16 bit
EMPTY_END: Final = 0.4  # share of a file; recordings end in some zeros, incomplete files in more


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The properties of a readable audio file."""

    sample_rate: int  # Hz
    num_samples: int
    sha256: str
    notes: tuple[str, ...]
    rms_db: float  # of the mono that shards hold, over the whole file; full scale = 0
    measures: Measures
    sound: str  # sha256 over rate and 16-bit mono samples: equal for other encodings of the same audio


def probe_file(path: Path, sha256: str | None, config: IndexConfig) -> Probe | str:
    """Decode a file; return its properties, or why it can't be used.

    The reason does not depend on the file's location.

    Args:
        sha256: the file's, if it is known.
    """
    try:
        return _measure(*read_audio(path, config), sha256 or digest_file(path), config)
    except IndexingError as error:
        return error.what
    except OSError as error:
        return f"not readable: {error.strerror}"


def _measure(samples: Waveform, rate: int, sha256: str, config: IndexConfig) -> Probe:
    mono = to_mono(samples)
    notes = ["stereo"] if samples.shape[1] > 1 else []
    if np.mean(np.abs(samples) >= FULL_SCALE) > config.clipped_share:
        notes.append("clipped")
    if len(mono) - 1 - np.flatnonzero(mono)[-1] > EMPTY_END * len(mono):
        notes.append("nothing but zeros at its end")
    sound = hashlib.sha256(f"{rate} ".encode() + to_pcm(mono).astype("<i2").tobytes()).hexdigest()
    return Probe(
        sample_rate=rate,
        num_samples=len(samples),
        sha256=sha256,
        notes=tuple(notes),
        rms_db=round(20 * math.log10(rms(samples)), 2),
        measures=measure(samples, rate),
        sound=sound,
    )
