"""Decode open files of any format, up to a length.

libsndfile decodes what it knows, PyAV (ffmpeg) the rest. The content decides, and a name is never an address.
"""

import io
from collections.abc import Iterator
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from clepdg.audio.faults import find_size_fault
from clepdg.audio.mpeg import count_frames
from clepdg.errors import IndexingError

UNKNOWN_FRAMES: Final = 2**63 - 1  # of a FLAC that was written to a pipe
CONTAINERS: Final = "mov,matroska,aac,mp3,ogg,flac,wav"  # for PyAV: no playlists, no streams of a network
FRAME: Final = 1152  # samples of an MP3's frame
ESTIMATED: Final = "aac", "mp3"  # containers whose length PyAV takes for that of the first frames' bit rate
SLACK: Final = 1.0  # seconds that are decoded above the longest, where the length is not known

Samples = NDArray[np.float32]  # (T, C)


class Bytes(io.BytesIO):
    """Bytes as a file, for libsndfile: seeking before its start fails as in C."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to an offset; stay where there is none such."""
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


def decode_libsndfile(file: IO[bytes], max_seconds: float) -> tuple[Samples, int] | None:
    """Decode an open file with libsndfile; None: it can't, or not to its end.

    Args:
        file: is not buffered: libsndfile reads its descriptor.

    Raises:
        IndexingError: the file is too long, or its samples are not all there.
    """
    import soundfile

    file.seek(0)
    try:
        opened = soundfile.SoundFile(file if isinstance(file, Bytes) else file.fileno(), closefd=False)
    except soundfile.LibsndfileError:
        return None
    with opened:
        frames, rate = opened.frames, int(opened.samplerate)
        if frames == UNKNOWN_FRAMES:
            return None
        _refuse(find_size_fault(frames, opened.channels, rate, max_seconds))
        try:
            if opened.seekable():
                opened.seek(0)  # as soundfile.read does: the first samples of MP3 and Opus depend on it
            samples: Samples = opened.read(frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise IndexingError(
                f"truncated or damaged: not all of its {frames} samples can be decoded ({error.error_string})"
            ) from error
    if opened.format == "MP3":
        return None if _is_cut_short(file, len(samples)) else (samples, rate)
    if opened.format == "FLAC" and len(samples) < frames:  # others have checks of their own, or only estimates
        raise IndexingError(f"truncated: its header promises {frames} samples, {len(samples)} are there")
    return samples, rate


def _is_cut_short(file: IO[bytes], decoded: int) -> bool:
    """Return whether an MP3 without a header holds more than was decoded.

    libsndfile takes its length for that of its first frame's bit rate.
    """
    counted = count_frames(file, file.seek(0, 2))
    return counted is not None and not counted.promised and counted.samples > decoded + FRAME


def decode_av(file: IO[bytes], max_seconds: float) -> tuple[Samples, int]:
    """Decode the first audio stream of an open file with PyAV.

    Raises:
        IndexingError: there is none, it is too long, or it ends in half a packet.
    """
    import av

    file.seek(0)
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": ""}
    try:
        container: Any = av.open(file, options=options, metadata_errors="ignore")
    except av.FFmpegError as error:
        raise IndexingError("not readable as audio: its format is not recognised") from error
    with container:
        if not container.streams.audio:
            raise IndexingError("not readable as audio: there is no audio stream")
        stream = container.streams.audio[0]
        if stream.duration and container.format.name not in ESTIMATED:
            seconds = float(stream.duration * stream.time_base)
            if seconds > max_seconds + SLACK:
                _refuse(find_size_fault(int(seconds * stream.rate), 1, stream.rate, max_seconds))
        parts: list[Samples] = []
        decoded = rate = 0
        for frame in _frames(container, stream):
            parts.append(np.asarray(frame.to_ndarray(), np.float32))
            decoded, rate = decoded + frame.samples, frame.sample_rate
            if decoded > (max_seconds + SLACK) * rate:
                raise IndexingError(f"too long: more than {decoded / rate:.1f} s, at most {max_seconds} s")
            _refuse(find_size_fault(decoded, frame.layout.nb_channels, rate, max_seconds + SLACK))
    if not parts:
        raise IndexingError("not readable as audio: the audio stream holds nothing")
    samples: Samples = np.ascontiguousarray(np.concatenate(parts, axis=1).T)
    _refuse(find_size_fault(decoded, samples.shape[1], rate, max_seconds))
    return samples, rate


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the decoded frames of a stream, as planes of float32."""
    import av

    converter = av.AudioResampler(format="fltp")
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise IndexingError("truncated: its last packet is not whole")
        for frame in packet.decode():
            yield from converter.resample(frame)
    yield from converter.resample(None)


def _refuse(reason: str | None) -> None:
    if reason:
        raise IndexingError(reason)
