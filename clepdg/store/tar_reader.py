"""Read a tar of unknown origin: bounded headers, and an end mark."""

import math
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

HEADER_BYTES: Final = 1 << 20  # of one member: pax records, a GNU long name, a map of holes


class LargeHeader(tarfile.TarError):
    """The headers of one member have more than `HEADER_BYTES`."""


@dataclass(frozen=True, kw_only=True)
class TarMember:
    """A member of a tar.

    Attributes:
        headers: bytes of its headers.
        data: its contents, to be read before the next member; None: it is no file.
    """

    info: tarfile.TarInfo
    headers: int
    data: IO[bytes] | None


class _Bounded:
    """A binary file of which `left` bytes may be read.

    tarfile reads the headers of a member whole, however large they say they are.
    """

    def __init__(self, stream: Any) -> None:
        self.stream, self.left = stream, float(HEADER_BYTES)
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise LargeHeader(f"the headers of a member have more than {HEADER_BYTES} bytes")
        data: bytes = self.stream.read(size)
        return data


def is_tar(stream: Any) -> bool:
    """Return whether a binary file begins like a tar."""
    try:
        tarfile.TarFile(fileobj=_Bounded(stream)).close()  # type: ignore[arg-type]
    except LargeHeader:
        return True
    except tarfile.TarError:
        return False
    return True


def read_members(stream: Any) -> Iterator[TarMember]:
    """Yield the members of a tar, then check its end mark.

    Raises:
        LargeHeader: a member has headers that no honest writer makes.
        tarfile.TarError: it is no tar, damaged or truncated.
    """
    bounded, end = _Bounded(stream), 0
    with tarfile.TarFile(fileobj=bounded) as tar:  # type: ignore[arg-type]
        while info := tar.next():
            bounded.left = math.inf
            yield TarMember(
                info=info, headers=info.offset_data - end, data=tar.extractfile(info) if info.isreg() else None
            )
            tar.members.clear()  # type: ignore[attr-defined]  # or it keeps all of them
            bounded.left, end = HEADER_BYTES, tar.offset
    # tarfile takes a broken or cut-off header for the end: only a block of zeros is the end.
    stream.seek(tar.offset)
    if stream.read(512) != bytes(512):
        raise tarfile.ReadError(f"no end mark at byte {tar.offset}")
    while stream.read(1 << 20):  # gzip and xz verify their checksums at the end
        pass
