"""Decode, resample and encode audio.

Shapes: T samples, C channels.
"""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clepdg.audio.formats import VIDEO_SUFFIXES
from clepdg.errors import IndexingError

Waveform = NDArray[np.float32]


def decode(source: Path | bytes) -> tuple[Waveform, int]:
    """Decode an audio file or its bytes.

    Returns:
        Samples (T, C), float32 in [-1, 1] (float files may exceed that or hold NaN), and the rate in Hz.

    Raises:
        IndexingError: the file can't be decoded as audio.
    """
    import soundfile

    if isinstance(source, Path) and source.suffix.lower() in VIDEO_SUFFIXES:
        return _decode_av(source)
    try:
        samples, rate = soundfile.read(
            io.BytesIO(source) if isinstance(source, bytes) else source, dtype="float32", always_2d=True
        )
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise IndexingError(f"not readable as audio: {error}") from error
    return samples, int(rate)


def _decode_av(path: Path) -> tuple[Waveform, int]:
    """Decode the first audio stream of a container that libsndfile can't read."""
    import av

    try:
        with av.open(path) as container:
            if not container.streams.audio:
                raise IndexingError("not readable as audio: there is no audio stream")
            stream = container.streams.audio[0]
            converter = av.AudioResampler(format="fltp")
            frames = [part for frame in container.decode(stream) for part in converter.resample(frame)]
            frames += converter.resample(None)
            if not frames:
                raise IndexingError("not readable as audio: the audio stream holds nothing")
            samples = np.concatenate([frame.to_ndarray() for frame in frames], axis=1).T  # (T, C)
            return np.ascontiguousarray(samples, dtype=np.float32), int(stream.rate)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise IndexingError(f"not readable as audio: {getattr(error, 'strerror', None) or error}") from error


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
