"""End a run soon whose Prefect server is gone."""

import time
from typing import Final

from prefect.settings import PREFECT_API_URL, get_current_settings

RETURN_SECONDS: Final = 8.0  # a server that is started again answers within these


def expect_server(seconds: float = RETURN_SECONDS) -> None:
    """Wait for Prefect's server if it is away, then retry no request to it.

    Prefect's client would retry each of the last requests for a minute.
    """
    deadline = time.monotonic() + seconds
    while (url := PREFECT_API_URL.value()) and _is_away(url):
        if time.monotonic() > deadline:
            get_current_settings().client.max_retries = 0
            return
        time.sleep(0.5)


def _is_away(url: str) -> bool:
    """Return whether nothing listens there; a busy server is not away."""
    import httpx

    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=5.0)
    except (httpx.ConnectError, httpx.ConnectTimeout):
        return True
    except httpx.HTTPError:
        pass
    return False
