"""End a run soon whose Prefect server is gone."""

import time
from typing import Final
from urllib.parse import urlsplit

from prefect.settings import PREFECT_API_URL, get_current_settings

from clepdg_tasks.host.preflight import unreachable

RETURN_SECONDS: Final = 8.0  # a server that is started again answers within these


def expect_server(seconds: float = RETURN_SECONDS) -> None:
    """Wait for Prefect's server if it is away, then retry no request to it.

    Prefect's client would retry each of the last requests for a minute.
    """
    parts = urlsplit(PREFECT_API_URL.value() or "")
    port = parts.port or (80 if parts.scheme == "http" else 443)
    deadline = time.monotonic() + seconds
    while parts.hostname and unreachable(parts.hostname, port):
        if time.monotonic() > deadline:
            get_current_settings().client.max_retries = 0
            return
        time.sleep(0.5)
