"""Read the members of zip and tar archives and reject unsafe ones."""

import bz2
import contextlib
import errno
import gzip
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
from typing import IO, Any, Final

from clepdg.download.folders import ignored, is_unicode
from clepdg.errors import SourceError, some
from clepdg.store.tar_reader import TarMember, is_tar, read_members

_Open = Callable[[], IO[bytes] | None]

BOMB_BYTES: Final = 100 * 10**6
BOMB_RATIO: Final = 200  # extracted bytes per archive byte
NAME_SHOWN: Final = 200  # characters of a member's name in a message

READ_ERRORS: Final = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, RuntimeError),  # RuntimeError: also a long chain of headers
)
ZIP_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
UNREADABLE: Final = {  # first bytes
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard",
    b"\x1f\x9d": "compressed by compress (.Z)",
}
EXTRACT: Final = "extract it with another program, such as 7-Zip, and give the folder as the source"


@dataclass(frozen=True)
class Member:
    """One entry of an archive.

    Attributes:
        refused: why its kind can't be extracted, or None.
        open: opens its contents.
        headers: bytes of its headers in a tar, which may be compressed.
    """

    name: str
    bytes: int
    folder: bool
    refused: str | None
    open: _Open
    headers: int = 0

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
        return _is_tar(path) or zipfile.is_zipfile(path)
    except (*READ_ERRORS, OSError):
        return False


def _is_tar(path: Path) -> bool:
    with _decompressed(path) as stream:
        return is_tar(stream)


def _decompressed(path: Path) -> IO[bytes]:
    """Open a file whose compression its first bytes name, or a plain one."""
    with path.open("rb") as file:
        begin = file.read(6)
    openers: dict[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
    opened: IO[bytes] = next((opener for magic, opener in openers.items() if begin.startswith(magic)), _plain)(path)
    return opened


def _plain(path: Path) -> IO[bytes]:
    return path.open("rb")


def advice(path: Path) -> str:
    """Return what a user can do about a file that is no readable archive."""
    with path.open("rb") as file:
        begin = file.read(8)
    kind = next((name for magic, name in UNREADABLE.items() if begin.startswith(magic)), None)
    return f"it is {kind}: {EXTRACT}" if kind else "check that its download is complete"


@contextlib.contextmanager
def open_members(archive: Path) -> Iterator[Iterable[Member]]:
    """Open an archive: a list of all members of a zip, a stream for a tar.

    Raises:
        SourceError: the file is not a readable archive, or is compressed by a method that Python does not know.
    """
    if not is_archive(archive):
        raise SourceError(
            "The file is not a readable archive.",
            expected="a complete zip or tar (plain, gz, bz2, xz)",
            where=archive,
            do=advice(archive),
        )
    if _is_tar(archive):  # first: a plain tar whose last member is a zip looks like a zip, too
        with _decompressed(archive) as stream:
            yield map(_tar_member, read_members(stream))
    else:
        with zipfile.ZipFile(archive) as file:
            _check_methods(file, archive)
            yield [_zip_member(file, info) for info in file.infolist()]


def _check_methods(file: zipfile.ZipFile, archive: Path) -> None:
    odd = [info for info in file.infolist() if info.compress_type not in ZIP_METHODS]
    if odd:
        names = {9: "Deflate64", 93: "Zstandard", 95: "XZ", 98: "PPMd"}
        shown = [
            f"{info.filename[:NAME_SHOWN]}: {names.get(info.compress_type, f'method {info.compress_type}')}"
            for info in odd
        ]
        what = "The zip uses a compression that can't be read here."
        expected = "members that are stored or compressed by Deflate, bzip2 or LZMA"
        raise SourceError(what, got=some(shown), expected=expected, where=archive, do=EXTRACT)


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


def _tar_member(member: TarMember) -> Member:
    """Return a member of a tar.

    tarfile's data filter is not enough: it strips a leading "/", keeps links that stay inside, and does not know zip.
    """
    info, refused = member.info, None
    if info.issym() or info.islnk():
        refused = "is a link"
    elif not (info.isreg() or info.isdir()):
        refused = "is a device"
    name = info.name.replace("\\", "/")
    return Member(name, info.size, info.isdir(), refused, lambda: member.data, member.headers)


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
        budget.extracted += member.bytes + member.headers
        if budget.extracted > max(BOMB_BYTES, BOMB_RATIO * budget.packed):
            raise unsafe(
                [f"{member.name[:NAME_SHOWN]!r}: the archive grows more than {BOMB_RATIO}-fold, a bomb"], archive
            )
        if total > free:
            needed = max(total, sum(each.bytes for each in members) if isinstance(members, list) else 0)
            at_least = "" if isinstance(members, list) else "at least "
            raise OSError(errno.ENOSPC, f"{at_least}{needed} bytes are needed, {free} bytes free", str(archive))
        reason = _fault(member, seen)
        if reason is not None:
            faults.append(f"{member.name[:NAME_SHOWN]!r} {reason}")
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
