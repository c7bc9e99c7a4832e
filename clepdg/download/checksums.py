"""Verify downloads: size, checksums and first bytes."""

import hashlib
from pathlib import Path
from typing import Final

from clepdg.audio.formats import LFS_POINTER
from clepdg.corpora.cards import Address, Card
from clepdg.download.urls import checksums, manual_download, redact
from clepdg.errors import SourceError

CHUNK: Final = 2**16  # bytes


class Rejected(SourceError):
    """The server sent other data: resuming the download is pointless."""


def hash_file(address: Address, path: Path) -> dict[str, "hashlib._Hash"]:
    """Return hashes of a file, one for each checksum of its address."""
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in checksums(address)}
    if hashes:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                for value in hashes.values():
                    value.update(chunk)
    return hashes


def reject_substitutes(card: Card, address: Address, start: bytes) -> None:
    """Reject HTML pages and Git LFS pointers.

    Raises:
        Rejected: the first bytes are one of these.
    """
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise Rejected(
            f"The address of {card.name} returned a web page, not data.",
            where=redact(address.url),
            do=f"open it in a browser to see what it requires; or {manual_download(card)}",
        )
    if start.startswith(LFS_POINTER):
        raise Rejected(
            f"The address of {card.name} returned a git lfs pointer, not data.",
            where=redact(address.url),
            do=f"use the address of the object itself; or {manual_download(card)}",
        )


def verify(card: Card, address: Address, size: int, hashes: dict[str, "hashlib._Hash"]) -> None:
    """Verify size and checksums of a download.

    Raises:
        Rejected: they are not those of the address.
    """
    if address.bytes is not None and size != address.bytes:
        raise mismatch(card, address, f"{size} bytes", f"{address.bytes} bytes")
    for name, expected in checksums(address).items():
        if hashes[name].hexdigest() != expected.lower():
            raise mismatch(card, address, f"{name} {hashes[name].hexdigest()}", f"{name} {expected}")


def mismatch(card: Card, address: Address, got: str, expected: str) -> Rejected:
    """Return the error for a size or checksum that differs."""
    if address.recorded:
        return Rejected(
            f"The data of {card.name}'s publisher has changed since the first download.",
            got=got,
            expected=f"{expected}, {address.recorded}",
            where=redact(address.url),
            do="run again; if the error stays, compare both, and delete that record to accept the new data",
        )
    ours = any(address.url.startswith(source.url.rstrip("/")) for source in card.sources)
    changed = f"the publisher changed it: {manual_download(card)}" if ours else "correct the list"
    return Rejected(
        f"A file of {card.name} is not the one that its {'card' if ours else 'list'} names.",
        got=got,
        expected=expected,
        where=redact(address.url),
        do=f"run again; if the error stays, {changed}",
    )
