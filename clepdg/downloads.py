"""Downloads: resumed by range after a break, retried where a retry can help, held to the card's checksum.

A download lives in a folder that survives a kill; what it holds is never taken for whole before size and checksum fit.
"""

import contextlib
import email.utils
import hashlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clepdg import store
from clepdg.archives import CHUNK, Progress
from clepdg.cards import Address, Card
from clepdg.errors import SourceError

if TYPE_CHECKING:
    import httpx

HASHES: Final = ("md5", "sha256")
ATTEMPTS: Final = 5  # in a row without a new byte
LOOK_SECONDS: Final = 5.0  # patience of `look`
STALL_SECONDS = 30.0  # silence after which a download counts as broken
LONGEST_WAIT_SECONDS: Final = 60.0  # whatever Retry-After says
BUSY: Final = (429, 500, 502, 503, 504)


class _Busy(Exception):
    """An attempt to download failed in a way that may pass; holds the seconds that the server asked to wait."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class _Rejected(SourceError):
    """What came is not what was asked for: going on with it makes no sense."""


def by_hand(card: Card) -> str:
    """Return what a user can do to get a corpus and to name it."""
    how = f"{card.apply} ({card.homepage})" if card.apply else f"get it from {card.homepage}"
    return f"{how}, then give it with --source {card.name}=FOLDER_OR_ARCHIVE"


def shown(url: str) -> str:
    """Return an address without a user's name and password."""
    return re.sub(r"^(https?://)[^/?#]*@", r"\1", url, flags=re.IGNORECASE)


def _client(seconds: float) -> "httpx.Client":
    import httpx

    # "identity": sizes and ranges then count the archive's own bytes
    return httpx.Client(follow_redirects=True, timeout=seconds, headers={"Accept-Encoding": "identity"})


def look(card: Card, url: str) -> dict[str, Any]:
    """Return what a server says of an address that no checksum binds; one attempt."""
    import httpx

    try:
        with _client(LOOK_SECONDS) as client:
            response = client.head(url)
            if response.status_code in (405, 501):
                with client.stream("GET", url) as response:  # closed before the body is read
                    pass
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SourceError(
            f"The source of {card.name} can't be reached.",
            got=f"{type(error).__name__}: {error}",
            where=shown(url),
            do=f"try again later, or give it with --source {card.name}=FOLDER_OR_ARCHIVE",
        ) from error
    if response.status_code != 200:
        raise _refused(card, url, response.status_code)
    said = {"etag": response.headers.get("etag"), "last_modified": response.headers.get("last-modified")}
    size = response.headers.get("content-length")
    return {name: value for name, value in said.items() if value} | ({"bytes": int(size)} if size else {})


def _refused(card: Card, url: str, status: int) -> SourceError:
    what = "asks for a login or a licence" if status in (401, 403) else "does not give the archive"
    return SourceError(f"The server of {card.name} {what}.", got=f"HTTP {status}", where=shown(url), do=by_hand(card))


def download(card: Card, address: Address, folder: Path, progress: Progress, sleep: Callable[[float], None]) -> Path:
    """Download into folder/part, going on where an earlier attempt or run broke off, and return that file."""
    import httpx

    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "part"
    furthest, failures = _size(part), 0
    with _client(STALL_SECONDS) as client:
        while True:
            try:
                hashes = _attempt(client, card, address, part, progress)
                verify(card, address, _size(part), hashes)
                return part
            except _Rejected:
                part.unlink(missing_ok=True)
                raise
            except (_Busy, httpx.HTTPError, httpx.InvalidURL) as error:
                failures = 1 if _size(part) > furthest else failures + 1
                furthest = max(furthest, _size(part))
                if failures == ATTEMPTS or not isinstance(error, _Busy | httpx.TransportError):
                    raise SourceError(
                        f"{card.name} could not be downloaded.",
                        got=f"{type(error).__name__.strip('_')}: {error}",
                        where=shown(address.url),
                        do=f"run again, {_size(part)} bytes are kept; or {by_hand(card)}",
                    ) from error
                sleep(getattr(error, "wait", 0.0) or 2.0 ** (failures - 1))


def _attempt(
    client: "httpx.Client", card: Card, address: Address, part: Path, progress: Progress
) -> dict[str, "hashlib._Hash"]:
    """Read until the server has no more, and return the hashes of the whole file that the card wants to see."""
    done, headers = _resume(address, part)
    with client.stream("GET", address.url, headers=headers) as response:
        status, span = response.status_code, response.headers.get("content-range", "")
        if status in BUSY:
            raise _Busy(f"HTTP {status}", _retry_after(response.headers.get("retry-after", "")))
        if status == 416 and done and span == f"bytes */{done}":
            return hash_file(address, part)  # an earlier run had read it all
        if status == 416 or (status == 206 and not span.startswith(f"bytes {done}-")):
            part.unlink(missing_ok=True)
            raise _Busy(f"the server does not go on from byte {done}")
        if status not in (200, 206):
            raise _refused(card, address.url, status)
        if status == 200:
            done = 0
            part.write_bytes(b"")
            store.write_json(part.with_suffix(".json"), _identity(address, response))
        rest = response.headers.get("content-length")
        announced = done + int(rest) if rest else 0
        hashes = hash_file(address, part)
        with part.open("ab") as file:
            for chunk in response.iter_raw():
                if done == 0:
                    _require_no_page(card, address, chunk)
                done += len(chunk)
                if address.bytes is not None and max(done, announced) > address.bytes:
                    raise _unlike(card, address, f"{max(done, announced)} bytes", f"{address.bytes} bytes")
                file.write(chunk)
                for value in hashes.values():
                    value.update(chunk)
                progress(done, announced or address.bytes or 0)
    return hashes


def _identity(address: Address, response: "httpx.Response") -> dict[str, str]:
    """Return what a part file belongs to; a weak ETag does not promise equal bytes."""
    etag = response.headers.get("etag", "W/")
    validator = response.headers.get("last-modified", "") if etag.startswith("W/") else etag
    return {"url": store.digest(address.url), "validator": validator}


def _resume(address: Address, part: Path) -> tuple[int, dict[str, str]]:
    """Return how many bytes are there and the headers that ask for the rest; (0, {}) to begin anew."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        identity = json.loads(part.with_suffix(".json").read_text())
        validator, size = identity["validator"], _size(part)
        if size and identity["url"] == store.digest(address.url) and (validator or checksums(address)):
            return size, {"Range": f"bytes={size}-"} | ({"If-Range": validator} if validator else {})
    return 0, {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _retry_after(text: str) -> float:
    """Return the seconds that a Retry-After header asks for, as a number or a date; 0 where it is not readable."""
    seconds = 0.0
    with contextlib.suppress(ValueError):
        seconds = float(text) if text.isdigit() else email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS)


def checksums(address: Address) -> dict[str, str]:
    """Return the checksums that are known of an address, by name."""
    return {name: value for name in HASHES if (value := getattr(address, name))}


def hash_file(address: Address, path: Path) -> dict[str, "hashlib._Hash"]:
    """Return the hashes, fed with the file so far, that an address has sums for."""
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in checksums(address)}
    if hashes:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                for value in hashes.values():
                    value.update(chunk)
    return hashes


def _require_no_page(card: Card, address: Address, start: bytes) -> None:
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise _Rejected(
            f"The address of {card.name} gave a web page, not an archive.",
            where=shown(address.url),
            do=f"open it in a browser to see what it asks for; or {by_hand(card)}",
        )


def verify(card: Card, address: Address, size: int, hashes: dict[str, "hashlib._Hash"]) -> None:
    """Raise where size or checksums are not those of the card's own address."""
    if address.bytes is not None and size != address.bytes:
        raise _unlike(card, address, f"{size} bytes", f"{address.bytes} bytes")
    for name, expected in checksums(address).items():
        if hashes[name].hexdigest() != expected.lower():
            raise _unlike(card, address, f"{name} {hashes[name].hexdigest()}", f"{name} {expected}")


def _unlike(card: Card, address: Address, got: str, expected: str) -> _Rejected:
    return _Rejected(
        f"The archive of {card.name} is not the one that its card names.",
        got=got,
        expected=expected,
        where=shown(address.url),
        do=f"run again; if it stays so, the publisher changed it: {by_hand(card)}",
    )
