"""Decode, resample and encode audio.

Shapes: T samples, C channels.
"""

import io
import stat
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from clepdg.audio.decoding import Bytes, decode_av, decode_libsndfile
from clepdg.audio.faults import MOST_BYTES
from clepdg.audio.formats import LFS_POINTER, POINTER
from clepdg.audio.mpeg import skip_tags
from clepdg.audio.truncation import find_truncation, is_container
from clepdg.errors import IndexingError

Waveform = NDArray[np.float32]


def decode(source: Path | bytes, max_seconds: float = 3600.0) -> tuple[Waveform, int]:
    """Decode an audio file or its bytes.

    Returns:
        Samples (T, C), float32 in [-1, 1] (float files may exceed that or hold NaN), and the rate in Hz.

    Raises:
        IndexingError: the file is missing, truncated, longer than max_seconds or no audio. Its sentence is a reason
            without the file's name.
    """
    with _open(source) as file:
        try:
            return _decode(file, max_seconds)
        except IndexingError:
            raise
        except MemoryError as error:
            raise IndexingError("not readable as audio: it needs more memory than there is") from error
        except Exception as error:  # decoders fail on bad bytes in whatever way they like
            said = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
            raise IndexingError(f"not readable as audio: {' '.join(str(said).split())}") from error


def _open(source: Path | bytes) -> IO[bytes]:
    if isinstance(source, bytes):
        return Bytes(source)
    try:
        if not stat.S_ISREG(source.stat().st_mode):  # a pipe would wait for a writer
            raise IndexingError("not readable: it is not a file")
        return source.open("rb", buffering=0)
    except FileNotFoundError as error:
        raise IndexingError("there is no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise IndexingError(f"not readable: {getattr(error, 'strerror', None) or error}") from error


def _decode(file: IO[bytes], max_seconds: float) -> tuple[Waveform, int]:
    head = file.read(len(LFS_POINTER))
    if not head:
        raise IndexingError("the file is empty (0 bytes)")
    if head == LFS_POINTER:
        raise IndexingError(POINTER)
    file = _behind_tags(file)
    if cut := find_truncation(file):
        raise IndexingError(cut)
    return decode_libsndfile(file, max_seconds) or decode_av(file, max_seconds)


def _behind_tags(file: IO[bytes]) -> IO[bytes]:
    """Return the WAV, FLAC or the like behind ID3 tags, or the file.

    Decoders skip the tags of MP3 and AAC, and lose samples of the others.
    """
    place = skip_tags(file)
    if not place or not is_container(file.read(12)):
        return file
    file.seek(place)
    data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise IndexingError(f"too large: more than {MOST_BYTES} bytes behind an ID3 tag")
    return Bytes(data)


def to_mono(samples: Waveform) -> Waveform:
    """Average the channels of samples (T, C) to a waveform (T,)."""
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)


def resample(waveform: Waveform, rate: int, target_rate: int) -> Waveform:
    """Resample a waveform (T,) with soxr's high quality."""
    if rate == target_rate:
        return waveform
    import soxr

    resampled: Waveform = soxr.resample(waveform, rate, target_rate, quality="HQ")
    return resampled


def to_pcm(waveform: Waveform) -> NDArray[np.int16]:
    """Quantise a waveform (T,) to 16 bits; values outside [-1, 1] are clipped."""
    return np.clip(np.round(waveform * 32768.0), -32768, 32767).astype(np.int16)


def encode_flac(pcm: NDArray[np.int16], rate: int) -> bytes:
    """Encode 16-bit samples (T,) as FLAC."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()
