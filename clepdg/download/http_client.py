"""Send HTTP requests: metadata of URLs, JSON, retries and errors."""

import contextlib
import email.utils
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from clepdg.corpora.cards import Card
from clepdg.download import object_store
from clepdg.download.urls import expand, manual_download, redact_with_mirror, source_option
from clepdg.errors import SourceError
from clepdg.redaction import is_web

if TYPE_CHECKING:
    import httpx

BUSY: Final = (429, 500, 502, 503, 504)
INSPECT_SECONDS: Final = 5.0  # timeout of one request of `inspect`
BUSY_SECONDS: Final = 60.0  # retries of a busy server, in all
LONGEST_WAIT_SECONDS: Final = 60.0  # also where Retry-After is longer
STALL_SECONDS = 30.0  # without data, after which a download has failed


def client(seconds: float) -> "httpx.Client":
    """Return a client that times out after `seconds` without data."""
    import httpx

    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log URLs with their secrets
    # "identity": sizes and ranges count the bytes of the file itself
    return httpx.Client(follow_redirects=True, timeout=seconds, headers={"Accept-Encoding": "identity"})


def inspect(
    card: Card, url: str, patience: float = BUSY_SECONDS, sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """Return a URL's metadata: etag, last_modified, version, bytes.

    Args:
        patience: seconds to wait in all for a busy server; with 0 a busy server counts as reachable, with no metadata.
        sleep: waits between attempts, in seconds.

    Raises:
        SourceError: the server does not answer, or answers with an error.
    """
    import httpx

    if not is_web(url):
        return object_store.inspect(card, url)
    try:
        with client(INSPECT_SECONDS) as web:
            response = retry_while_busy(lambda: request_headers(web, expand(url)), patience, sleep)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SourceError(
            f"The source of {card.name} can't be reached.",
            got=f"{type(error).__name__}: {error}",
            where=redact_with_mirror(url),
            do=f"try again later, or {source_option(card)}",
            away=isinstance(error, httpx.TransportError),
        ) from error
    if response.status_code in BUSY and not patience:
        return {}
    if response.status_code != 200:
        raise http_error(card, url, response)
    return response_metadata(response)


def response_metadata(response: "httpx.Response") -> dict[str, Any]:
    """Return etag, last_modified and bytes of a response's headers."""
    known = {"etag": response.headers.get("etag"), "last_modified": response.headers.get("last-modified")}
    size = response.headers.get("content-length")
    return {name: value for name, value in known.items() if value} | ({"bytes": int(size)} if size else {})


def request_headers(web: "httpx.Client", url: str) -> "httpx.Response":
    """Request the headers of a URL.

    Many signed URLs refuse HEAD but not GET.
    """
    response = web.head(url)
    if response.status_code == 501 or (
        400 <= response.status_code < 500 and response.status_code not in (404, 410, 429)
    ):
        with web.stream("GET", url) as response:  # closed before the body is read
            pass
    return response


def retry_while_busy(
    ask: "Callable[[], httpx.Response]", patience: float, sleep: Callable[[float], None]
) -> "httpx.Response":
    """Repeat a request while the server is busy.

    Args:
        patience: seconds to wait in all.
    """
    wait = 1.0
    while True:
        response = ask()
        asked = retry_after(response) or wait
        if response.status_code not in BUSY or asked > patience:
            return response
        sleep(asked)
        patience, wait = patience - asked, 2 * wait


def retry_after(response: "httpx.Response") -> float:
    """Return the seconds of a Retry-After header (number or date), or 0."""
    text, seconds = response.headers.get("retry-after", ""), 0.0
    with contextlib.suppress(ValueError):
        seconds = float(text) if text.isdigit() else email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS)


def busy_status(response: "httpx.Response") -> str:
    """Return the status of a busy server and its Retry-After, for messages."""
    text = response.headers.get("retry-after", "")
    how_long = f", asks to wait {text} s" if text.isdigit() else f", asks to wait until {text}" if text else ""
    return f"HTTP {response.status_code}{how_long}"


def http_error(card: Card, url: str, response: "httpx.Response") -> SourceError:
    """Return the error for a response that is not 200."""
    status = response.status_code
    if status in BUSY:
        later = f"run the same command again later; or {source_option(card)}"
        got = busy_status(response)
        where = redact_with_mirror(url)
        return SourceError(f"The server of {card.name} is busy.", got=got, where=where, do=later, away=True)
    what = "requires a login or a licence" if status in (401, 403) else "does not provide the archive"
    return SourceError(
        f"The server of {card.name} {what}.",
        got=f"HTTP {status}",
        where=redact_with_mirror(url),
        do=manual_download(card),
        away=status >= 500,
    )


def read_json(
    card: Card,
    url: str,
    sleep: Callable[[float], None] = time.sleep,
    *,
    seconds: float = STALL_SECONDS,
    patience: float = BUSY_SECONDS,
) -> Any:
    """Return the JSON at a URL.

    Args:
        sleep: waits between attempts, in seconds.
        seconds: timeout without data.
        patience: as in `inspect`.

    Raises:
        SourceError: it does not answer, or the answer is not JSON.
    """
    import httpx

    try:
        with client(seconds) as web:
            response = retry_while_busy(lambda: web.get(expand(url)), patience, sleep)
        if response.status_code != 200:
            raise http_error(card, url, response)
        return response.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
        got = f"{type(error).__name__}: {error}"
        raise SourceError(
            f"The listing of {card.name} can't be read.",
            got=got,
            where=redact_with_mirror(url),
            away=isinstance(error, httpx.TransportError),
        ) from error
