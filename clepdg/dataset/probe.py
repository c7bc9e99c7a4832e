"""Probe an audio file: decode it, measure it, find faults."""

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np

from clepdg.audio.io import Waveform, decode, to_mono, to_pcm
from clepdg.config.schema import IndexConfig
from clepdg.corpora.parsing import LFS_POINTER
from clepdg.errors import IndexingError
from clepdg.hashing import digest_file

FULL_SCALE: Final = 1 - 2**-15  # the largest sample of 16 bit
UNKNOWN_BYTES: Final = 0x7FFFF000  # writers to a pipe put 0, or at least this, for an unknown size
POINTER: Final = "a git lfs pointer, not audio: run git lfs pull in the corpus's clone"
EMPTY_END: Final = 0.4  # share of a file; recordings end in some zeros, incomplete files in more


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The properties of a readable audio file."""

    sample_rate: int  # Hz
    num_samples: int
    sha256: str
    notes: tuple[str, ...]
    rms_db: float  # of the mono that shards hold, over the whole file; full scale = 0
    sound: str  # sha256 over rate and 16-bit mono samples: equal for other encodings of the same audio


def probe_file(path: Path, sha256: str | None, config: IndexConfig) -> Probe | str:
    """Decode a file; return its properties, or why it can't be used.

    The reason does not depend on the file's location.

    Args:
        sha256: the file's, if it is known.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(LFS_POINTER))
            refused = _placeholder(head) or _truncated(file)
        return refused or _measure(*decode(path), sha256 or digest_file(path), config)
    except FileNotFoundError:
        return "its file is missing"
    except OSError as error:
        return f"not readable: {error.strerror}"
    except ValueError as error:  # a name that no file can have
        return f"not readable: {error}"
    except IndexingError as error:
        return f"not readable as audio: {str(error).rpartition(': ')[2]}"  # the text before it names the path


def _placeholder(head: bytes) -> str | None:
    if not head:
        return "the file is empty (0 bytes)"
    if head == LFS_POINTER:
        return POINTER
    return None


def _truncated(file: IO[bytes]) -> str | None:
    """Return why a WAV or AIFF is truncated, or None.

    libsndfile reads a truncated file without an error.
    """
    file.seek(0)
    kind, _, form = file.read(4), file.read(4), file.read(4)
    order, wanted = ("little", b"data") if kind == b"RIFF" else ("big", b"SSND" if kind == b"FORM" else b"data")
    if kind not in (b"RIFF", b"RIFX", b"FORM") or form not in (b"WAVE", b"AIFF", b"AIFC"):
        return None
    whole = os.fstat(file.fileno()).st_size
    while len(chunk := file.read(8)) == 8:
        size = int.from_bytes(chunk[4:], order)  # type: ignore[arg-type]
        if chunk[:4] == wanted:
            there = whole - file.tell()
            cut = there < size < UNKNOWN_BYTES
            return f"truncated: its header promises {size} bytes of audio, {there} are there" if cut else None
        file.seek(size + size % 2, os.SEEK_CUR)
    return None


def find_fault(samples: Waveform, rate: int, config: IndexConfig) -> str | None:
    """Return why decoded samples (T, C) can't be used, or None."""
    if not len(samples):
        return "holds no samples"
    if not np.isfinite(samples).all():
        return "holds samples that are not finite (NaN or infinity)"
    seconds = len(samples) / rate
    if seconds < config.min_seconds:
        return f"too short: {seconds:.3f} s, at least {config.min_seconds} s"
    if seconds > config.max_seconds:
        return f"too long: {seconds:.1f} s, at most {config.max_seconds} s"
    return f"silent: rms below {config.silence_rms}" if _rms(to_mono(samples)) < config.silence_rms else None


def _rms(mono: Waveform) -> float:
    """Return the rms of the mono mix (T,) about its mean.

    Opposite channels cancel in the mix, as in shards; a constant offset is silent.
    """
    return float(np.std(mono, dtype=np.float64))


def _measure(samples: Waveform, rate: int, sha256: str, config: IndexConfig) -> Probe | str:
    if fault := find_fault(samples, rate, config):
        return fault
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
        rms_db=round(20 * math.log10(_rms(mono)), 2),
        sound=sound,
    )
