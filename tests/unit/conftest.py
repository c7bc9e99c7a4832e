"""Fixtures that several unit tests share."""

import threading
from collections.abc import Iterator

import pytest

from tests.unit.servers import Server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.awake.set()
    server.shutdown()
    server.server_close()
