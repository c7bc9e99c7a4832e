"""Read the members of zip and tar archives and reject unsafe ones."""

import contextlib
import errno
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from clepdg.download.folders import ignored, is_unicode
from clepdg.errors import SourceError, some

_Open = Callable[[], IO[bytes] | None]

BOMB_BYTES: Final = 100 * 10**6
BOMB_RATIO: Final = 200  # extracted bytes per archive byte

READ_ERRORS: Final = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, RuntimeError),  # RuntimeError: also compression methods that zipfile does not know
)


@dataclass(frozen=True)
class Member:
    """One entry of an archive.

    Attributes:
        refused: why its kind can't be extracted, or None.
        open: opens its contents.
    """

    name: str
    bytes: int
    folder: bool
    refused: str | None
    open: _Open

    @property
    def parts(self) -> tuple[str, ...]:
        """The name's parts without "." and empty ones."""
        return tuple(part for part in self.name.split("/") if part not in ("", "."))


@dataclass
class Budget:
    """Bytes of an archive, and bytes extracted so far.

    Nested archives share the budget of the outer one.
    """

    packed: int
    extracted: int = 0


def is_archive(path: Path) -> bool:
    """Return whether a file is a readable zip or tar (plain, gz, bz2, xz).

    Only the beginning (tar) or the end (zip) is read.
    """
    try:
        return tarfile.is_tarfile(path) or zipfile.is_zipfile(path)
    except (*READ_ERRORS, OSError):
        return False


@contextlib.contextmanager
def open_members(archive: Path) -> Iterator[Iterable[Member]]:
    """Open an archive: a list of all members of a zip, a stream for a tar.

    Raises:
        SourceError: the file is not a readable archive.
    """
    if not is_archive(archive):
        raise SourceError(
            "The file is not a readable archive.",
            expected="a complete zip or tar (plain, gz, bz2, xz)",
            where=archive,
            do="check that the download is complete",
        )
    if tarfile.is_tarfile(archive):  # first: a plain tar whose last member is a zip looks like a zip, too
        with tarfile.open(archive) as tar:
            yield _tar_members(tar)
    else:
        with zipfile.ZipFile(archive) as file:
            yield [_zip_member(file, info) for info in file.infolist()]


def _zip_member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    name = info.filename.replace("\\", "/")  # some Windows tools write backslashes
    kind = stat.S_IFMT(info.external_attr >> 16)
    refused = None
    if info.flag_bits & 0x41:
        refused = "is encrypted"
    elif kind == stat.S_IFLNK:
        refused = "is a link"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        refused = "is a device"
    return Member(name, info.file_size, name.endswith("/"), refused, lambda: file.open(info))


def _tar_members(tar: tarfile.TarFile) -> Iterator[Member]:
    """Yield the members of a tar, then check its end mark.

    tarfile's data filter is not enough here: it strips a leading "/" and keeps links that stay inside.
    """
    for info in tar:
        refused = None
        if info.issym() or info.islnk():
            refused = "is a link"
        elif not (info.isreg() or info.isdir()):
            refused = "is a device"
        name = info.name.replace("\\", "/")
        yield Member(name, info.size, info.isdir(), refused, lambda info=info: tar.extractfile(info))  # type: ignore[misc]
    # tarfile takes a broken or cut-off header for the end: only a block of zeros is the end.
    stream = tar.fileobj
    assert stream is not None
    stream.seek(tar.offset)
    if stream.read(512) != bytes(512):
        raise tarfile.ReadError(f"no end mark at byte {tar.offset}")
    while stream.read(2**20):  # gzip and xz verify their checksums at the end
        pass


def safe_members(members: Iterable[Member], archive: Path, free: int, budget: Budget) -> Iterator[Member]:
    """Yield the members to write; raise one error for all unsafe ones.

    After the first unsafe member nothing more is yielded. A bomb is refused at once, since reading on is its damage.

    Args:
        free: bytes free on the disk.

    Raises:
        SourceError: unsafe members, or a bomb.
        OSError: the disk is too small.
    """
    total = 0
    seen: set[tuple[str, ...]] = set()
    faults: list[str] = []
    for member in members:
        total += member.bytes
        budget.extracted += member.bytes
        if budget.extracted > max(BOMB_BYTES, BOMB_RATIO * budget.packed):
            raise unsafe([f"{member.name}: the archive grows more than {BOMB_RATIO}-fold, a bomb"], archive)
        if total > free:
            needed = max(total, sum(each.bytes for each in members) if isinstance(members, list) else 0)
            at_least = "" if isinstance(members, list) else "at least "
            raise OSError(errno.ENOSPC, f"{at_least}{needed} bytes are needed, {free} bytes free", str(archive))
        reason = _fault(member, seen)
        if reason is not None:
            faults.append(f"{member.name!r} {reason}")
        elif not (member.folder or ignored(member.parts) or faults):
            yield member
    if faults:
        raise unsafe(faults, archive)


def _fault(member: Member, seen: set[tuple[str, ...]]) -> str | None:
    """Return why a member is unsafe, or None.

    Folders and ignored files only have to stay inside.
    """
    name, parts = member.name, member.parts
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "is an absolute path"
    if ".." in parts:
        return "leads out of the archive"
    if not is_unicode(name):
        return "has a name that is not valid Unicode"
    if member.folder or (parts and ignored(parts)):
        return None
    if not parts:
        return "has no name"
    if member.refused is not None:
        return member.refused
    if parts in seen:
        return "is there twice"
    seen.add(parts)
    return None


def unsafe(faults: list[str], archive: Path) -> SourceError:
    """Return the error for members that can't be extracted safely."""
    return SourceError(
        "The archive can't be extracted safely.",
        got=some(faults),
        where=archive,
        do="if you trust it, extract it yourself and give the folder as the source",
    )
