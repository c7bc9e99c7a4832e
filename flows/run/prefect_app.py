"""Prefect's server, for `make up` and for one run."""

from typing import Any

from prefect.server.api import server
from starlette.middleware.trustedhost import TrustedHostMiddleware


def create_app() -> Any:
    """Return Prefect's server, which refuses requests for another host."""
    return TrustedHostMiddleware(server.create_app(), allowed_hosts=["127.0.0.1", "localhost"])
