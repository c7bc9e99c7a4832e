"""Count the frames of MPEG audio (MP3, MP2) and AAC (ADTS) streams.

Their files have no length: only frames one after another, and perhaps their count in the first one.
"""

from dataclasses import dataclass
from typing import IO, Final

SEARCHED: Final = 1 << 16  # bytes in which the first frame is looked for
TAGS: Final = b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3"  # behind the frames
RATES: Final = (44100, 48000, 32000)  # Hz, of MPEG 1
STEPS: Final = {  # kbit/s by (MPEG 1, layer)
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


@dataclass(frozen=True, kw_only=True)
class Frames:
    """The frames of a stream.

    Attributes:
        frames: whole frames of audio.
        samples: of one channel, in these frames.
        promised: frames by the header in the first one; 0: it has none.
        cut: whether the last frame is not whole.
    """

    frames: int
    samples: int
    promised: int
    cut: bool


def frame_bytes(head: bytes) -> int:
    """Return the bytes of the frame with this header; 0: it is none."""
    return _frame(head)[0]


def _frame(head: bytes) -> tuple[int, int]:
    """Return the bytes and samples of a frame, by its first 6 bytes."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0, 0
    if head[1] & 0xF6 == 0xF0:  # ADTS
        return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5, 1024
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    step, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or step in (0, 15) or rate == 3:
        return 0, 0
    first = version == 3
    hertz = RATES[rate] >> (0 if first else 1 if version == 2 else 2)
    samples = 384 if layer == 1 else 576 if layer == 3 and not first else 1152
    slot = 4 if layer == 1 else 1
    length = samples // 8 // slot * STEPS[first, layer][step - 1] * 1000 // hertz
    return (length + (head[2] >> 1 & 1)) * slot, samples


def count_frames(file: IO[bytes], size: int) -> Frames | None:
    """Count a stream's frames; None where they don't follow each other.

    Args:
        file: of `size` bytes; its position changes.
    """
    place = _start(file)
    if place is None:
        return None
    file.seek(place)
    first = file.read(frame_bytes(file.read(6)) + 6)
    promised = _promised(first)
    frames, samples = -bool(promised), 0
    while place < size:
        file.seek(place)
        head = file.read(12)
        length, counted = _frame(head)
        if not length:
            partial = len(head) < 6 and head[0] == 0xFF
            if partial or head.startswith(TAGS) or not head.strip(b"\0"):
                return Frames(frames=frames, samples=samples, promised=promised, cut=partial)
            return None
        place += length
        if place > size:
            return Frames(frames=frames, samples=samples, promised=promised, cut=True)
        frames, samples = frames + 1, samples + counted
    return Frames(frames=frames, samples=samples, promised=promised, cut=False)


def skip_tags(file: IO[bytes]) -> int:
    """Move behind the ID3 tags in front of a file; return that place."""
    place = 0
    file.seek(0)
    while (head := file.read(10)).startswith(b"ID3") and len(head) == 10:
        place += 10 + sum((byte & 0x7F) << 7 * n for n, byte in enumerate(reversed(head[6:])))
        place += 10 if head[5] & 0x10 else 0
        file.seek(place)
    file.seek(place)
    return place


def _start(file: IO[bytes]) -> int | None:
    """Return where the first of two consecutive frames begins."""
    place = skip_tags(file)
    data = file.read(2 * SEARCHED)
    for offset in range(min(len(data), SEARCHED)):
        length = frame_bytes(data[offset : offset + 6])
        if length and frame_bytes(data[offset + length : offset + length + 6]):
            return place + offset
    return None


def _promised(frame: bytes) -> int:
    """Return the number of frames that a Xing or VBRI header names, or 0."""
    for tag in (b"Xing", b"Info"):
        at = frame.find(tag, 0, 64)
        if at >= 0 and int.from_bytes(frame[at + 4 : at + 8], "big") & 1:
            return int.from_bytes(frame[at + 8 : at + 12], "big")
    at = frame.find(b"VBRI", 0, 64)
    return int.from_bytes(frame[at + 14 : at + 18], "big") if at >= 0 else 0
