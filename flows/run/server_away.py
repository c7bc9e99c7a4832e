"""End a run soon whose Prefect server is gone."""

import logging
import time
from typing import Final

from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, get_current_settings

log = logging.getLogger("clepdg")

RETURN_SECONDS: Final = 8.0  # a server that is started again answers within these


def expect_server(seconds: float = RETURN_SECONDS) -> None:
    """Wait for Prefect's server if it is away, then retry no request to it.

    Prefect's client would retry each of the last requests for a minute, and each event for seconds.
    """
    deadline = time.monotonic() + seconds
    while (url := PREFECT_API_URL.value()) and _is_away(url):
        if time.monotonic() > deadline:
            get_current_settings().client.max_retries = 0
            if client := getattr(EventsWorker.instance(), "_client", None):
                vars(client)["_reconnection_attempts"] = -1  # its events are dropped: each would take 7 seconds
            log.warning("Prefect's server (%s) went away; what was computed is in the store.", url)
            return
        time.sleep(0.5)


def _is_away(url: str) -> bool:
    """Return whether nothing listens there.

    The answer of a busy server is not waited for.
    """
    import httpx

    soon, secure = httpx.Timeout(5.0, read=0.01), url.startswith("https")  # to load certificates takes long
    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=soon, verify=secure)
    except (httpx.ConnectError, httpx.ConnectTimeout):
        return True
    except httpx.HTTPError:
        pass
    return False
