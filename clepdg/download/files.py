from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """One file of a source: path relative to the root (posix), size in bytes, time in ns, sha256 (hex)."""

    path: str
    bytes: int
    mtime_ns: int
    sha256: str


def ignored(parts: Sequence[str]) -> bool:
    """Tell whether a relative path is AppleDouble, .DS_Store, or below __MACOSX or a hidden folder."""
    *folders, name = parts
    hidden = any(folder == "__MACOSX" or folder.startswith(".") for folder in folders)
    return hidden or name.startswith("._") or name in (".DS_Store", "__MACOSX")


def is_unicode(name: str) -> bool:
    """Tell whether a file's name is valid text; one that is not can't be stored in a table."""
    return name == name.encode(errors="replace").decode()
