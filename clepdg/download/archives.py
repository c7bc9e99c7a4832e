"""Safe extraction of zip and tar archives: nothing leaves the folder, nothing is half there, every fault is named.

Members that escape, links, devices, encrypted and duplicate members, and bombs are refused. Files that only a desktop
or a version control system left behind (`ignored`) are not extracted.
"""

import contextlib
import errno
import hashlib
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Final

from clepdg.callbacks import Progress
from clepdg.download.files import File, ignored, is_unicode
from clepdg.errors import SourceError, some

_Open = Callable[[], IO[bytes] | None]

CHUNK: Final = 2**16  # bytes
BOMB_BYTES: Final = 100 * 10**6
BOMB_RATIO: Final = 200  # extracted bytes per archive byte

_BROKEN: Final = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, RuntimeError),  # RuntimeError: also compression methods that zipfile does not know
)


@dataclass(frozen=True)
class _Member:
    """One entry of an archive; `refused` says why its kind can't be extracted."""

    name: str
    bytes: int
    folder: bool
    refused: str | None
    open: _Open

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(part for part in self.name.split("/") if part not in ("", "."))


@dataclass
class _Budget:
    """Bytes of an archive, and what came out of it so far; archives in it are on the same account."""

    packed: int
    extracted: int = 0


def is_archive(path: Path) -> bool:
    """Tell whether a file is a zip or a tar (plain, gz, bz2, xz) whose beginning (tar) or end (zip) can be read."""
    try:
        return tarfile.is_tarfile(path) or zipfile.is_zipfile(path)
    except (*_BROKEN, OSError):
        return False


def extract(archive: Path, out: Path, *, progress: Progress, nested: bool = False) -> list[File]:
    """Extract an archive into the new folder out and return its files, sorted by path.

    All files get the time 0, so that the same archive gives the same facts on every day. The folder appears under its
    name only when it is whole; after any failure nothing of it is left.

    Args:
        progress: called with (bytes done, bytes in all or 0) of each archive.
        nested: archives in the archive are extracted where they lie, one level deep, and not kept.

    Raises:
        SourceError: not an archive, corrupt, truncated, without files, or with members that may not be extracted.
        OSError: the disk is full, or out can't be written.
    """
    aside = out.with_name(out.name + ".resume")  # the store drops this name, should the process be killed
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        budget = _Budget(packed=archive.stat().st_size)
        files = _extract(archive, aside, progress, budget)
        if nested:
            files = [found for file in files for found in _unpacked(file, archive, aside, progress, budget)]
        if not files:
            raise SourceError("The archive holds no files.", where=archive, do="look whether it is the right one")
        os.rename(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return sorted(files, key=lambda file: file.path)


def _unpacked(file: File, outer: Path, aside: Path, progress: Progress, budget: _Budget) -> list[File]:
    """Return a file of an archive or, if it is an archive itself, what that holds, extracted into its folder."""
    path = aside / file.path
    if not file.path.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz")):
        return [file]
    above = PurePosixPath(file.path).parent
    try:
        found = [
            replace(inner, path=str(above / inner.path)) for inner in _extract(path, path.parent, progress, budget)
        ]
    except SourceError as error:
        raise SourceError("An archive in the archive can't be extracted.", got=error, where=outer) from error
    path.unlink()
    return found


def _extract(archive: Path, folder: Path, progress: Progress, budget: _Budget) -> list[File]:
    files: list[File] = []
    name, done = "none yet", 0
    try:
        with _members(archive) as members:
            total = sum(member.bytes for member in members) if isinstance(members, list) else 0
            safe = _checked(members, archive, shutil.disk_usage(folder).free, budget)
            # Of a zip everything is known, and refused, before the first byte is written; a tar is read once.
            for member in list(safe) if isinstance(members, list) else safe:
                name = member.name
                files.append(_write(member, folder))
                done += member.bytes
                progress(done, total)
    except _BROKEN as error:
        raise _corrupt(archive, name, error) from error
    except OSError as error:
        if error.errno is None:  # gzip and bz2 report bad data as an OSError without a number
            raise _corrupt(archive, name, error) from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
            raise _refusal([f"{name}: {error.strerror}"], archive) from error
        raise
    return files


@contextlib.contextmanager
def _members(archive: Path) -> Iterator[Iterable[_Member]]:
    """Open an archive: of a zip a list of all its members, of a tar a stream that ends by checking the end."""
    if not is_archive(archive):
        raise SourceError(
            "The file is not a readable archive.",
            expected="a whole zip or tar (plain, gz, bz2, xz)",
            where=archive,
            do="look whether the download is complete",
        )
    if tarfile.is_tarfile(archive):  # asked first: a plain tar whose last member is a zip looks like a zip, too
        with tarfile.open(archive) as tar:
            yield _tar_members(tar)
    else:
        with zipfile.ZipFile(archive) as file:
            yield [_zip_member(file, info) for info in file.infolist()]


def _zip_member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    name = info.filename.replace("\\", "/")  # some Windows tools write backslashes
    kind = stat.S_IFMT(info.external_attr >> 16)
    refused = None
    if info.flag_bits & 0x41:
        refused = "is encrypted"
    elif kind == stat.S_IFLNK:
        refused = "is a link"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        refused = "is a device"
    return _Member(name, info.file_size, name.endswith("/"), refused, lambda: file.open(info))


def _tar_members(tar: tarfile.TarFile) -> Iterator[_Member]:
    for info in tar:
        refused = None
        if info.issym() or info.islnk():
            refused = "is a link"
        elif not (info.isreg() or info.isdir()):
            refused = "is a device"
        name = info.name.replace("\\", "/")
        yield _Member(name, info.size, info.isdir(), refused, lambda info=info: tar.extractfile(info))  # type: ignore[misc]
    # tarfile takes a broken or cut-off header for the end: only a block of zeros is the end.
    stream = tar.fileobj
    assert stream is not None
    stream.seek(tar.offset)
    if stream.read(512) != bytes(512):
        raise tarfile.ReadError(f"no end mark at byte {tar.offset}")
    while stream.read(2**20):  # gzip and xz check their sums at the end
        pass


def _checked(members: Iterable[_Member], archive: Path, free: int, budget: _Budget) -> Iterator[_Member]:
    """Yield the members to write; after a first fault yield no more, and raise them all at the end.

    Bombs are refused at once: reading on is what they want.
    """
    total = 0
    seen: set[tuple[str, ...]] = set()
    faults: list[str] = []
    for member in members:
        total += member.bytes
        budget.extracted += member.bytes
        if budget.extracted > max(BOMB_BYTES, BOMB_RATIO * budget.packed):
            raise _refusal([f"{member.name}: the archive grows more than {BOMB_RATIO}-fold, a bomb"], archive)
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
        raise _refusal(faults, archive)


def _fault(member: _Member, seen: set[tuple[str, ...]]) -> str | None:
    """Return why a member may not be extracted; ignored ones and folders only have to stay inside."""
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


def _write(member: _Member, folder: Path) -> File:
    path = folder.joinpath(*member.parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    total, size = hashlib.sha256(), 0
    stream = member.open()
    assert stream is not None
    with stream, path.open("xb") as file:
        while chunk := stream.read(CHUNK):
            file.write(chunk)
            total.update(chunk)
            size += len(chunk)
    if size != member.bytes:
        raise tarfile.ReadError(f"{size} of {member.bytes} bytes")
    os.utime(path, ns=(0, 0))
    return File("/".join(member.parts), size, 0, total.hexdigest())


def _refusal(faults: list[str], archive: Path) -> SourceError:
    return SourceError(
        "The archive can't be extracted safely.",
        got=some(faults),
        where=archive,
        do="extract it yourself where you trust it, and give the folder as the source",
    )


def _corrupt(archive: Path, name: str, error: Exception) -> SourceError:
    return SourceError(
        "The archive is truncated or corrupt.",
        got=error,
        where=f"{archive}, at or after member {name}",
        do="get it again",
    )
