"""Protects the client of Prefect's API: a server that closes kept connections loses no request."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clepdg_tasks.admin.prefect_access import api_client


class ClosesKept(BaseHTTPRequestHandler):
    """Answers the first request of a connection and promises more, then closes it with the second one unread."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.answered = 0

    def handle_one_request(self) -> None:
        if self.answered:
            self.rfile.peek(1)  # the request is there
            self.close_connection = True
            return
        super().handle_one_request()
        self.answered += 1

    def do_GET(self) -> None:
        found = self.path.startswith("/api/deployments")
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", "2" if found else "0")
        self.end_headers()
        self.wfile.write(b"{}" if found else b"")

    def log_message(self, *_: object) -> None:
        """Write nothing to the terminal."""


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), ClosesKept)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    server.server_close()


def test_a_kept_connection_that_the_server_closes_loses_no_request(url: str) -> None:
    with api_client(url, None) as client:
        for _ in range(3):
            assert client.get("/deployments/name/clep-dg/full").json() == {}
