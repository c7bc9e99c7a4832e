"""The web: one client for all, and what a server says of an address before anything is downloaded."""

from typing import TYPE_CHECKING, Any, Final

from clepdg import objects
from clepdg.addresses import by_hand, is_web, naming, shown
from clepdg.cards import Card
from clepdg.errors import SourceError

if TYPE_CHECKING:
    import httpx

LOOK_SECONDS: Final = 5.0  # patience of `look`
STALL_SECONDS = 30.0  # silence after which a download counts as broken


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
            do=f"try again later, or {naming(card)}",
        ) from error
    if response.status_code != 200:
        raise refused(card, url, response.status_code)
    said = {"etag": response.headers.get("etag"), "last_modified": response.headers.get("last-modified")}
    size = response.headers.get("content-length")
    return {name: value for name, value in said.items() if value} | ({"bytes": int(size)} if size else {})


def refused(card: Card, url: str, status: int) -> SourceError:
    """Return the error of a server that says no."""
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
            raise refused(card, url, response.status_code)
        return response.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        got = f"{type(error).__name__}: {error}"
        raise SourceError(f"The listing of {card.name} can't be read.", got=got, where=shown(url)) from error
