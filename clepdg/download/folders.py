"""List the files of a folder and hash them."""

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clepdg import errors, hashing
from clepdg.callbacks import Progress
from clepdg.errors import SourceError


@dataclass(frozen=True)
class File:
    """One file of a source.

    Attributes:
        path: relative to the root (posix).
        bytes: size.
        mtime_ns: modification time, in ns.
        sha256: in hexadecimal digits.
    """

    path: str
    bytes: int
    mtime_ns: int
    sha256: str


def ignored(parts: Sequence[str]) -> bool:
    """Return whether a relative path is hidden or AppleDouble.

    These are "._*" and .DS_Store, and everything below __MACOSX or a hidden folder.
    """
    *folders, name = parts
    hidden = any(folder == "__MACOSX" or folder.startswith(".") for folder in folders)
    return hidden or name.startswith("._") or name in (".DS_Store", "__MACOSX")


def is_unicode(name: str) -> bool:
    """Return whether a file name is valid Unicode, as tables require."""
    return name == name.encode(errors="replace").decode()


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """Return (relative path, bytes, mtime_ns) of all files, sorted.

    Links are followed.

    Raises:
        SourceError: no files, or entries that can't be used; all of them in one error.
    """
    rows: list[tuple[str, int, int]] = []
    faults: list[str] = []
    _scan(folder, (), frozenset(), rows, faults)
    if faults:
        raise _unusable(folder, faults)
    if not rows:
        raise SourceError("The folder holds no files.", where=folder, do="check that it is the corpus's folder")
    return sorted(rows)


def _scan(
    folder: Path,
    above: tuple[str, ...],
    seen: frozenset[tuple[int, int]],
    rows: list[tuple[str, int, int]],
    faults: list[str],
) -> None:
    inode = (folder.stat().st_dev, folder.stat().st_ino)
    if inode in seen:
        faults.append(f"{'/'.join(above)}: a link to a folder above itself")
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            parts = (*above, entry.name)
            if ignored(parts):
                continue
            path = "/".join(parts)
            try:
                facts = entry.stat()
                if stat.S_ISDIR(facts.st_mode):
                    if not ignored((*parts, "")):
                        _scan(folder / entry.name, parts, seen | {inode}, rows, faults)
                elif not stat.S_ISREG(facts.st_mode):
                    faults.append(f"{path}: neither a file nor a folder")
                elif not is_unicode(path):
                    faults.append(f"{path!r}: its name is not valid Unicode")
                else:
                    rows.append((path, facts.st_size, facts.st_mtime_ns))
            except OSError as error:
                faults.append(f"{path}: {'a broken link' if entry.is_symlink() else error.strerror}")


def hash_folder(folder: Path, known: Mapping[tuple[str, int, int], str], progress: Progress) -> list[File]:
    """Return the files of a folder with their sha256.

    Args:
        known: (path, bytes, mtime_ns) -> sha256 of files that need no reading.
        progress: called with (bytes done, bytes in all).

    Raises:
        SourceError: files that can't be read or that change meanwhile, all of them in one error.
    """
    rows = listing(folder)
    done, total = 0, sum(size for _, size, _ in rows)
    files: list[File] = []
    faults: list[str] = []
    for path, size, mtime_ns in rows:
        try:
            sha256 = known.get((path, size, mtime_ns)) or hashing.digest_file(folder / path)
            facts = (folder / path).stat()
            if (facts.st_size, facts.st_mtime_ns) != (size, mtime_ns):
                faults.append(f"{path}: changed while it was read")
            files.append(File(path, size, mtime_ns, sha256))
        except OSError as error:
            faults.append(f"{path}: {error.strerror}")
        done += size
        progress(done, total)
    if faults:
        raise _unusable(folder, faults)
    return files


def _unusable(folder: Path, faults: list[str]) -> SourceError:
    entries = "1 entry" if len(faults) == 1 else f"{len(faults)} entries"
    return SourceError(f"{entries} of a folder can't be used.", got=errors.some(faults), where=folder)
