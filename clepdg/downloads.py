"""Downloads of one file: resumed after a break, retried where a retry can help, held to the card's checksum.

From the web by httpx, from anything else that fsspec knows (s3://, hf://, sftp://) by that. A download lives in a
folder that survives a kill; what it holds is never taken for whole before size and checksum fit.
"""

import contextlib
import email.utils
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clepdg import objects, store
from clepdg.addresses import by_hand, checksums, is_web, shown
from clepdg.archives import CHUNK, Progress
from clepdg.cards import Address, Card
from clepdg.errors import SourceError

if TYPE_CHECKING:
    import httpx

ATTEMPTS: Final = 5  # in a row without a new byte
LOOK_SECONDS: Final = 5.0  # patience of `look`
STALL_SECONDS = 30.0  # silence after which a download counts as broken
SLOWEST: Final = 1000  # bytes a second: what is slower over a while counts as broken as well
LONGEST_WAIT_SECONDS: Final = 60.0  # whatever Retry-After says
LFS_POINTER: Final = b"version https://git-lfs"  # how a git lfs pointer begins
BUSY: Final = (429, 500, 502, 503, 504)


class _Busy(Exception):
    """An attempt to download failed in a way that may pass; holds the seconds that the server asked to wait."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class _Rejected(SourceError):
    """What came is not what was asked for: going on with it makes no sense."""


def client(seconds: float) -> "httpx.Client":
    """Return a client that gives up after so many seconds of silence."""
    import httpx

    # "identity": sizes and ranges then count the archive's own bytes
    return httpx.Client(follow_redirects=True, timeout=seconds, headers={"Accept-Encoding": "identity"})


def look(card: Card, url: str) -> dict[str, Any]:
    """Return what a server says of an address that no checksum binds; one attempt.

    Raises:
        SourceError: it does not answer, or answers with an error.
    """
    import httpx

    if not is_web(url):
        return objects.look(card, url)
    try:
        with client(LOOK_SECONDS) as web:
            response = web.head(url)
            if response.status_code in (405, 501):
                with web.stream("GET", url) as response:  # closed before the body is read
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


def read_json(card: Card, url: str) -> Any:
    """Return what an address answers as JSON; one attempt.

    Raises:
        SourceError: it does not answer, or not with JSON.
    """
    import httpx

    try:
        with client(STALL_SECONDS) as web:
            response = web.get(url)
        if response.status_code != 200:
            raise _refused(card, url, response.status_code)
        return response.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        got = f"{type(error).__name__}: {error}"
        raise SourceError(f"The listing of {card.name} can't be read.", got=got, where=shown(url)) from error


def download(
    card: Card,
    address: Address,
    folder: Path,
    progress: Progress,
    sleep: Callable[[float], None],
    web: "httpx.Client | None" = None,
) -> Path:
    """Download into folder/part, going on where an earlier attempt or run broke off, and return that file.

    Args:
        web: a client to use again; None: one of its own.

    Raises:
        SourceError: it can't be had, or is not what the card says.
    """
    import httpx

    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "part"
    furthest, failures = _size(part), 0
    with client(STALL_SECONDS) if web is None else contextlib.nullcontext(web) as web:
        while True:
            try:
                if is_web(address.url):
                    hashes = _attempt(web, card, address, part, progress)
                else:
                    hashes = _attempt_object(card, address, part, progress)
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
    web: "httpx.Client", card: Card, address: Address, part: Path, progress: Progress
) -> dict[str, "hashlib._Hash"]:
    """Read until the server has no more, and return the hashes of the whole file that the card wants to see."""
    done, headers = _resume(address, part)
    with web.stream("GET", address.url, headers=headers) as response:
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
        rest = response.headers.get("content-length", "")
        announced = done + int(rest) if rest.isdigit() else 0
        return _receive(card, address, part, response.iter_raw(), announced, progress)


def _attempt_object(card: Card, address: Address, part: Path, progress: Progress) -> dict[str, "hashlib._Hash"]:
    """Read an object to its end, going on where an earlier attempt at the same version broke off."""
    with objects.errors(card, address.url):
        fs, path = objects.file_system(address.url)
        facts = fs.info(path)
        identity = {"url": store.digest(address.url), "validator": objects.version(facts)}
        with contextlib.suppress(OSError, ValueError):
            if json.loads(part.with_suffix(".json").read_text()) != identity:
                part.unlink(missing_ok=True)
        store.write_json(part.with_suffix(".json"), identity)
        stream = fs.open(path, "rb", cache_type="readahead")
    with stream:
        stream.seek(_size(part))
        return _receive(card, address, part, _chunks(stream), int(facts.get("size") or 0), progress)


def _chunks(stream: Any) -> Iterator[bytes]:
    while True:
        try:
            chunk = stream.read(2**20)
        except Exception as error:  # every back end has its own; what was read so far is kept
            raise _Busy(f"{type(error).__name__}: {error}") from error
        if not chunk:
            return
        yield chunk


def _receive(
    card: Card, address: Address, part: Path, chunks: Iterable[bytes], announced: int, progress: Progress
) -> dict[str, "hashlib._Hash"]:
    """Append chunks to a part file; return the hashes of the whole file that the card wants to see."""
    part.touch()
    done = _size(part)
    hashes = hash_file(address, part)
    looked, then = time.monotonic(), done
    with part.open("ab") as file:
        for chunk in chunks:
            if (waited := time.monotonic() - looked) > STALL_SECONDS:
                if done - then < SLOWEST * waited:
                    raise _Busy(f"{done - then} bytes in {waited:.0f} s")
                looked, then = time.monotonic(), done
            if done == 0:
                _require_data(card, address, chunk)
            done += len(chunk)
            if address.bytes is not None and max(done, announced) > address.bytes:
                raise _unlike(card, address, f"{max(done, announced)} bytes", f"{address.bytes} bytes")
            file.write(chunk)
            for value in hashes.values():
                value.update(chunk)
            progress(done, announced or address.bytes or 0)
    if done < announced:
        raise _Busy(f"{done} of {announced} bytes")
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


def hash_file(address: Address, path: Path) -> dict[str, "hashlib._Hash"]:
    """Return the hashes, fed with the file so far, that an address has sums for."""
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in checksums(address)}
    if hashes:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                for value in hashes.values():
                    value.update(chunk)
    return hashes


def _require_data(card: Card, address: Address, start: bytes) -> None:
    """Raise where the first bytes are not what was asked for, but what servers send in its place."""
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise _Rejected(
            f"The address of {card.name} gave a web page, not its data.",
            where=shown(address.url),
            do=f"open it in a browser to see what it asks for; or {by_hand(card)}",
        )
    if start.startswith(LFS_POINTER):
        raise _Rejected(
            f"The address of {card.name} gave a git lfs pointer, not its data.",
            where=shown(address.url),
            do=f"take the address of the object itself; or {by_hand(card)}",
        )


def verify(card: Card, address: Address, size: int, hashes: dict[str, "hashlib._Hash"]) -> None:
    """Raise where size or checksums are not those that bind an address."""
    if address.bytes is not None and size != address.bytes:
        raise _unlike(card, address, f"{size} bytes", f"{address.bytes} bytes")
    for name, expected in checksums(address).items():
        if hashes[name].hexdigest() != expected.lower():
            raise _unlike(card, address, f"{name} {hashes[name].hexdigest()}", f"{name} {expected}")


def _unlike(card: Card, address: Address, got: str, expected: str) -> _Rejected:
    if address.recorded:
        return _Rejected(
            f"What {card.name}'s publisher gives is not what it was at the first download.",
            got=got,
            expected=f"{expected}, {address.recorded}",
            where=shown(address.url),
            do="run again; if it stays so, it changed: compare, and delete that record to take the new one",
        )
    return _Rejected(
        f"A file of {card.name} is not the one that its card names.",
        got=got,
        expected=expected,
        where=shown(address.url),
        do=f"run again; if it stays so, the publisher changed it: {by_hand(card)}",
    )
