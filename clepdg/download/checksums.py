"""Whether what came is what was asked for: size, checksums, and the look of its first bytes."""

import hashlib
from pathlib import Path
from typing import Final

from clepdg.corpora.cards import Address, Card
from clepdg.corpora.parsing import LFS_POINTER
from clepdg.download.urls import checksums, manual_download, redact
from clepdg.errors import SourceError

CHUNK: Final = 2**16  # bytes


class Rejected(SourceError):
    """What came is not what was asked for: going on with it makes no sense."""


def hash_file(address: Address, path: Path) -> dict[str, "hashlib._Hash"]:
    """Return the hashes, fed with the file so far, that an address has sums for."""
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in checksums(address)}
    if hashes:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                for value in hashes.values():
                    value.update(chunk)
    return hashes


def reject_substitutes(card: Card, address: Address, start: bytes) -> None:
    """Raise where the first bytes are not what was asked for, but what servers send in its place."""
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise Rejected(
            f"The address of {card.name} gave a web page, not its data.",
            where=redact(address.url),
            do=f"open it in a browser to see what it asks for; or {manual_download(card)}",
        )
    if start.startswith(LFS_POINTER):
        raise Rejected(
            f"The address of {card.name} gave a git lfs pointer, not its data.",
            where=redact(address.url),
            do=f"take the address of the object itself; or {manual_download(card)}",
        )


def verify(card: Card, address: Address, size: int, hashes: dict[str, "hashlib._Hash"]) -> None:
    """Raise where size or checksums are not those that bind an address."""
    if address.bytes is not None and size != address.bytes:
        raise mismatch(card, address, f"{size} bytes", f"{address.bytes} bytes")
    for name, expected in checksums(address).items():
        if hashes[name].hexdigest() != expected.lower():
            raise mismatch(card, address, f"{name} {hashes[name].hexdigest()}", f"{name} {expected}")


def mismatch(card: Card, address: Address, got: str, expected: str) -> Rejected:
    """Return the error that what came is not what binds an address."""
    if address.recorded:
        return Rejected(
            f"What {card.name}'s publisher gives is not what it was at the first download.",
            got=got,
            expected=f"{expected}, {address.recorded}",
            where=redact(address.url),
            do="run again; if it stays so, it changed: compare, and delete that record to take the new one",
        )
    ours = any(address.url.startswith(source.url.rstrip("/")) for source in card.sources)
    changed = f"the publisher changed it: {manual_download(card)}" if ours else "mend the list"
    return Rejected(
        f"A file of {card.name} is not the one that its {'card' if ours else 'list'} names.",
        got=got,
        expected=expected,
        where=redact(address.url),
        do=f"run again; if it stays so, {changed}",
    )
