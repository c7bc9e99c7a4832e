"""Extract zip and tar archives safely: all members or none.

Members that escape, links, devices, encrypted and duplicate members, and bombs (in headers too) are refused. Files that
a desktop or a version control system left behind (`ignored`) are not extracted.
"""

import errno
import hashlib
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

from clepdg.callbacks import Progress
from clepdg.download.archive_members import NAME_SHOWN, READ_ERRORS, Budget, Member, open_members, safe_members, unsafe
from clepdg.download.folders import File
from clepdg.errors import SourceError
from clepdg.store.tar_reader import LargeHeader

CHUNK: Final = 2**16  # bytes


def extract(archive: Path, out: Path, *, progress: Progress, nested: bool = False) -> list[File]:
    """Extract an archive into the new folder out; return its files by path.

    All files get the time 0, so the same archive gives the same files.parquet on every day. The folder appears under
    its name only when it is complete; after a failure nothing of it is left.

    Args:
        progress: called with (bytes done, bytes in all or 0) for each archive.
        nested: extract the archives in the archive in place, one level deep, and delete them.

    Raises:
        SourceError: not an archive, corrupt, truncated, empty, or with unsafe members.
        OSError: the disk is full, or out can't be written.
    """
    partial = out.with_name(out.name + ".resume")  # the store deletes this name if the process is killed
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        budget = Budget(packed=archive.stat().st_size)
        files = _extract(archive, partial, progress, budget)
        if nested:
            files = [inner for file in files for inner in _extract_nested(file, archive, partial, progress, budget)]
        if not files:
            raise SourceError("The archive holds no files.", where=archive, do="check that it is the right one")
        os.rename(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sorted(files, key=lambda file: file.path)


def _extract_nested(file: File, outer: Path, root: Path, progress: Progress, budget: Budget) -> list[File]:
    """Return a file or, if it is an archive, its extracted members."""
    path = root / file.path
    if not file.path.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz")):
        return [file]
    above = PurePosixPath(file.path).parent
    try:
        inner = [replace(each, path=str(above / each.path)) for each in _extract(path, path.parent, progress, budget)]
    except SourceError as error:
        raise SourceError("An archive in the archive can't be extracted.", got=error, where=outer) from error
    path.unlink()
    return inner


def _extract(archive: Path, folder: Path, progress: Progress, budget: Budget) -> list[File]:
    files: list[File] = []
    name, done = "none yet", 0
    try:
        with open_members(archive) as members:
            total = sum(member.bytes for member in members) if isinstance(members, list) else 0
            safe = safe_members(members, archive, shutil.disk_usage(folder).free, budget)
            # A zip is checked as a whole before the first byte is written; a tar is read once.
            for member in list(safe) if isinstance(members, list) else safe:
                name = repr(member.name[:NAME_SHOWN])
                files.append(_write(member, folder))
                done += member.bytes
                progress(done, total)
    except LargeHeader as error:
        raise unsafe([f"after {name}: {error}"], archive) from error
    except READ_ERRORS as error:
        raise _corrupt(archive, name, error) from error
    except OSError as error:
        if error.errno is None:  # gzip and bz2 report bad data as an OSError without a number
            raise _corrupt(archive, name, error) from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
            raise unsafe([f"{name}: {error.strerror}"], archive) from error
        raise
    return files


def _write(member: Member, folder: Path) -> File:
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


def _corrupt(archive: Path, name: str, error: Exception) -> SourceError:
    return SourceError(
        "The archive is truncated or corrupt.",
        got=error,
        where=f"{archive}, at or after member {name}",
        do="download it again",
    )
