"""Download one file: resume, retry, verify.

http and https use httpx; other addresses (s3://, hf://, sftp://) use fsspec. The partial file lies in a folder that a
killed run leaves behind; it counts as complete only after size and checksum are verified.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clepdg import hashing
from clepdg.callbacks import Progress
from clepdg.corpora.cards import Address, Card
from clepdg.download import http_client, object_store
from clepdg.download.checksums import Rejected, hash_file, mismatch, reject_substitutes, verify
from clepdg.download.urls import checksums, expand, manual_download, mirror_of, redact_with_mirror
from clepdg.errors import SourceError
from clepdg.redaction import is_web

if TYPE_CHECKING:
    import httpx

ATTEMPTS: Final = 5  # in a row that receive less than PROGRESS together
PROGRESS: Final = 100_000  # bytes
SLOWEST: Final = 1000  # bytes a second; a slower download counts as failed


class TemporaryError(Exception):
    """A failure worth a retry.

    Attributes:
        wait: seconds that the server asked to wait.
    """

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


def download(
    card: Card,
    address: Address,
    folder: Path,
    progress: Progress,
    sleep: Callable[[float], None],
    client: "httpx.Client | None" = None,
) -> Path:
    """Download into folder/part, resuming earlier attempts; return that file.

    Args:
        client: an open client; None creates one.

    Raises:
        SourceError: the file is not available or fails verification.
    """
    import httpx

    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "part"
    furthest, failures = _size(part), 0
    with http_client.client(http_client.STALL_SECONDS) if client is None else contextlib.nullcontext(client) as client:
        while True:
            try:
                if is_web(address.url):
                    hashes = _attempt(client, card, address, part, progress)
                else:
                    hashes = _attempt_object(card, address, part, progress)
                verify(card, address, _size(part), hashes)
                return part
            except Rejected as error:
                part.unlink(missing_ok=True)
                if mirror_of(address.url):
                    raise Rejected(f"{error}\n  downloaded from: {redact_with_mirror(address.url)}") from error
                raise
            except (TemporaryError, httpx.HTTPError, httpx.InvalidURL) as error:
                moved = _size(part) >= furthest + PROGRESS
                failures, furthest = (1, _size(part)) if moved else (failures + 1, furthest)
                if failures == ATTEMPTS or not isinstance(error, TemporaryError | httpx.TransportError):
                    raise SourceError(
                        f"{card.name} could not be downloaded.",
                        got=f"{type(error).__name__}: {error}",
                        where=redact_with_mirror(address.url),
                        do=f"run again later, {_size(part)} bytes are kept; or {manual_download(card)}",
                        away=isinstance(error, TemporaryError | httpx.TransportError),
                    ) from error
                sleep(getattr(error, "wait", 0.0) or 2.0 ** (failures - 1))


def saved_metadata(part: Path) -> dict[str, Any]:
    """Return the server's metadata at the start of a download, or {}."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        facts: dict[str, Any] = json.loads(part.with_suffix(".json").read_text())["said"]
        return facts
    return {}


def _attempt(
    client: "httpx.Client", card: Card, address: Address, part: Path, progress: Progress
) -> dict[str, "hashlib._Hash"]:
    """Download to the end; return the hashes for the card's checksums."""
    done, headers = _resume_request(address, part)
    with client.stream("GET", expand(address.url), headers=headers) as response:
        status, span = response.status_code, response.headers.get("content-range", "")
        if status in http_client.BUSY:
            raise TemporaryError(http_client.busy_status(response), http_client.retry_after(response))
        if status == 416 and done and span == f"bytes */{done}":
            return hash_file(address, part)  # an earlier run downloaded all of it
        if status == 416 or (status == 206 and not span.startswith(f"bytes {done}-")):
            part.unlink(missing_ok=True)
            raise TemporaryError(f"the server does not resume from byte {done}")
        if status not in (200, 206):
            raise http_client.http_error(card, address.url, response)
        if status == 200:
            done = 0
            part.write_bytes(b"")
            hashing.write_json(
                part.with_suffix(".json"),
                _identity(address, response) | {"said": http_client.response_metadata(response)},
            )
        rest = response.headers.get("content-length", "")
        announced = done + int(rest) if rest.isdigit() else 0
        return _receive(card, address, part, response.iter_raw(), announced, progress)


def _attempt_object(card: Card, address: Address, part: Path, progress: Progress) -> dict[str, "hashlib._Hash"]:
    """Download an object; resume an earlier attempt at the same version."""
    with object_store.translate_errors(card, address.url):
        fs, path = object_store.file_system(address.url)
        facts = fs.info(path)
        version = object_store.version(facts)
        metadata = {"version": version, "bytes": facts.get("size")}
        identity = {"url": _location_digest(address), "validator": version, "said": metadata}
        with contextlib.suppress(OSError, ValueError):
            if json.loads(part.with_suffix(".json").read_text()) != identity:
                part.unlink(missing_ok=True)
        hashing.write_json(part.with_suffix(".json"), identity)
        stream = fs.open(path, "rb", cache_type="readahead")
    with stream:
        stream.seek(_size(part))
        return _receive(card, address, part, _chunks(stream), int(facts.get("size") or 0), progress)


def _chunks(stream: Any) -> Iterator[bytes]:
    while True:
        try:
            chunk = stream.read(2**20)
        except Exception as error:  # every back end has its own; the bytes read so far are kept
            raise TemporaryError(f"{type(error).__name__}: {error}") from error
        if not chunk:
            return
        yield chunk


def _receive(
    card: Card, address: Address, part: Path, chunks: Iterable[bytes], announced: int, progress: Progress
) -> dict[str, "hashlib._Hash"]:
    """Append chunks to a part file; return hashes of the complete file."""
    part.touch()
    done = _size(part)
    hashes = hash_file(address, part)
    start, start_bytes = time.monotonic(), done
    with part.open("ab") as file:
        for chunk in chunks:
            if (waited := time.monotonic() - start) > http_client.STALL_SECONDS:
                if done - start_bytes < SLOWEST * waited:
                    raise TemporaryError(f"{done - start_bytes} bytes in {waited:.0f} s")
                start, start_bytes = time.monotonic(), done
            if done == 0:
                reject_substitutes(card, address, chunk)
            done += len(chunk)
            if address.bytes is not None and max(done, announced) > address.bytes:
                raise mismatch(card, address, f"{max(done, announced)} bytes", f"{address.bytes} bytes")
            file.write(chunk)
            for value in hashes.values():
                value.update(chunk)
            progress(done, announced or address.bytes or 0)
    expected = max(announced, address.bytes or 0)
    if done < expected:  # a connection may end early without an error, or a server report too small a size
        changed = "; the server has no more: its publisher may have changed it" if done == announced else ""
        raise TemporaryError(f"{done} of {expected} bytes{changed}")
    return hashes


def _identity(address: Address, response: "httpx.Response") -> dict[str, str]:
    """Return URL and validator of a part file.

    A weak ETag is no validator: it does not promise equal bytes.
    """
    etag = response.headers.get("etag", "W/")
    validator = response.headers.get("last-modified", "") if etag.startswith("W/") else etag
    return {"url": _location_digest(address), "validator": validator}


def _location_digest(address: Address) -> str:
    """Return a digest of the URL in use: the mirror's, if there is one.

    So a mirror's bytes are not appended to the original's.
    """
    return hashing.digest(mirror_of(address.url) or address.url)


def _resume_request(address: Address, part: Path) -> tuple[int, dict[str, str]]:
    """Return the bytes present and the headers that request the rest.

    (0, {}) starts from the beginning.
    """
    with contextlib.suppress(OSError, ValueError, KeyError):
        identity = json.loads(part.with_suffix(".json").read_text())
        validator, size = identity["validator"], _size(part)
        if size and identity["url"] == _location_digest(address) and (validator or checksums(address)):
            return size, {"Range": f"bytes={size}-"} | ({"If-Range": validator} if validator else {})
    return 0, {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
