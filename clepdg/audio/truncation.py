"""Find truncated audio files by what their containers promise.

Decoders read truncated files without an error. A check reads headers only, and finds nothing where a container promises
nothing.
"""

from collections.abc import Callable
from typing import IO, Final, Literal

from clepdg.audio.mpeg import count_frames, frame_bytes

UNKNOWN_BYTES: Final = 0x7FFFF000  # writers to a pipe put 0, or at least this, for an unknown size
LONGEST: Final = 1 << 62  # bytes of a chunk; writers to a pipe put more for an unknown size
W64: Final = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb"  # how a W64 begins
WHOLE_BOXES: Final = b"moov", b"moof", b"mdat", b"mfra"  # of an MP4: its audio and what finds it

Order = Literal["little", "big"]
Check = Callable[[IO[bytes], int], str | None]  # file and its bytes -> why it is truncated


def find_truncation(file: IO[bytes]) -> str | None:
    """Return why a file is truncated or not read to its end, or None.

    Args:
        file: an open file; its position changes.
    """
    size = file.seek(0, 2)
    file.seek(0)
    check = _find_check(file.read(12))
    return check(file, size) if check else None


def is_container(head: bytes) -> bool:
    """Return whether a file with these first 12 bytes is no bare stream."""
    return head[:4] == b"fLaC" or _find_check(head) not in (None, _frames)


def _find_check(head: bytes) -> Check | None:
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM") and head[8:] in (b"WAVE", b"AIFF", b"AIFC"):
        return _chunks
    if head == W64:
        return _long_chunks
    if head[4:8] in (b"ftyp", b"styp", b"free", b"skip", b"wide", *WHOLE_BOXES):
        return _boxes
    checks: dict[bytes, Check] = {b"OggS": _ogg, b".snd": _au, b"\x1aE\xdf\xa3": _matroska, b"caff": _long_chunks}
    return checks.get(head[:4], _frames if head[:3] == b"ID3" or frame_bytes(head) else None)


def _missing(promised: int, there: int, what: str = "bytes of audio") -> str | None:
    return f"truncated: its header promises {promised} {what}, {there} are there" if there < promised else None


def _chunks(file: IO[bytes], size: int) -> str | None:
    """Check the chunk of samples of a WAV or AIFF."""
    file.seek(0)
    kind, _, _ = file.read(4), file.read(4), file.read(4)
    order: Order = "big" if kind in (b"RIFX", b"FORM") else "little"
    samples, long = b"SSND" if kind == b"FORM" else b"data", 0
    while len(chunk := file.read(8)) == 8:
        length = int.from_bytes(chunk[4:], order)
        if chunk[:4] == samples and long and length == 0xFFFFFFFF:
            return _missing(long, size - file.tell())
        if chunk[:4] == samples:
            return None if length >= UNKNOWN_BYTES else _missing(length, size - file.tell())
        place = file.tell()
        if chunk[:4] == b"ds64":  # of a WAV above 4 GB
            long = int.from_bytes(file.read(16)[8:], order)
        file.seek(place + length + length % 2)
    return None


def _long_chunks(file: IO[bytes], size: int) -> str | None:
    """Check the chunk of samples of a W64 or CAF: sizes of 8 bytes."""
    file.seek(0)
    w64 = file.read(12) == W64
    order: Order = "little" if w64 else "big"
    place, name, align = (40, 16, 8) if w64 else (8, 4, 1)
    while True:
        file.seek(place)
        head = file.read(name + 8)
        length = int.from_bytes(head[name:], order) - (24 if w64 else 0)  # a W64 counts the chunk's header
        if len(head) < name + 8 or not 0 <= length < LONGEST:
            return None
        place += len(head)
        if head[:4] == b"data":
            return _missing(length, size - place)
        place += length + -length % align


def _au(file: IO[bytes], size: int) -> str | None:
    file.seek(4)
    start, length = (int.from_bytes(file.read(4), "big") for _ in range(2))
    return None if length >= UNKNOWN_BYTES else _missing(length, size - start)


def _boxes(file: IO[bytes], size: int) -> str | None:
    """Check that the boxes of an MP4 are there and whole."""
    found, place = set(), 0
    while place + 8 <= size:
        file.seek(place)
        head = file.read(16)
        kind, length = head[4:8], int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        found.add(kind)
        if kind in WHOLE_BOXES and place + length > size:
            return _missing(length, size - place, f"bytes of {kind.decode()}")
        if length < 8:  # 0: up to the end of the file
            break
        place += length
    return None if {b"moov", b"moof"} & found else "truncated: it has no moov, the index that is written last"


def _matroska(file: IO[bytes], size: int) -> str | None:
    """Check that the segment of a Matroska or WebM is whole."""
    place = 0
    for _ in range(2):  # its header, then its segment
        file.seek(place)
        head = file.read(12)
        width = 9 - head[4].bit_length() if len(head) == 12 and head[4] else 0
        unknown = (1 << 7 * width) - 1
        length = int.from_bytes(head[4 : 4 + width], "big") & unknown
        place += 4 + width + length
        if length == unknown:
            return None
    return _missing(length, size - place + length, "bytes")


def _ogg(file: IO[bytes], size: int) -> str | None:
    """Check the last page of each stream of an Ogg, all begun together."""
    streams: set[bytes] = set()  # those whose last page was not met
    place, begun = 0, False
    while place < size:
        file.seek(place)
        head = file.read(27)
        if not b"OggS".startswith(head[:4]):  # bytes behind the audio
            break
        table = file.read(head[26]) if len(head) == 27 else b""
        place += 27 + len(table) + sum(table)
        if len(head) < 27 or len(table) < head[26] or place > size:
            return "truncated: its last Ogg page is not whole"
        if head[5] & 2 and begun:  # decoders read the first and drop the rest
            return "holds several streams one after the other"
        begun = not head[5] & 2
        (streams.discard if head[5] & 4 else streams.add)(head[14:18])
    return "truncated: its last Ogg page is missing" if streams else None


def _frames(file: IO[bytes], size: int) -> str | None:
    """Check the frames of an MP3 or AAC stream."""
    counted = count_frames(file, size)
    if counted is None:
        return None
    if counted.cut:
        return "truncated: its last frame is not whole"
    return _missing(counted.promised - 1, counted.frames, "frames")  # some encoders count the header's own frame
