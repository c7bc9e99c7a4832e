"""An S3 server (moto's) that counts requests and fails as it is told: 500, 503, a reset, half an answer, silence."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

ERROR = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>told to</Message></Error>"


class S3:
    """moto's server in a thread.

    Attributes:
        conditional: whether it knows If-None-Match; False: it ignores it, as some servers do; None: it refuses it.
        fault: called with (method, path) of each request; returns None, "500", "503", "reset", "lost" (it is done, but
            the answer is a reset), "half" (of the answer's body) or "slow".
        requests: (method, path with query) of all so far.
    """

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.app = DomainDispatcherApplication(create_backend_app)
        self.fault: Callable[[str, str], str | None] = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        self.conditional: bool | None = True
        self.lock = threading.Lock()
        self.server = make_server("127.0.0.1", 0, self, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join(10)
        self.server.server_close()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        query = f"?{environ['QUERY_STRING']}" if environ["QUERY_STRING"] else ""
        with self.lock:
            self.requests.append((method, path + query))
            fault = self.fault(method, path)
        if not self.conditional and environ.pop("HTTP_IF_NONE_MATCH", None) and self.conditional is None:
            fault = "501"
        if fault in ("500", "501", "503"):
            code = {"500": "InternalError", "501": "NotImplemented", "503": "SlowDown"}[fault]
            start_response(f"{fault} {code}", [("Content-Type", "application/xml"), ("Connection", "close")])
            return [ERROR % code.encode()]
        if fault == "reset":
            return self._reset(environ)
        if fault == "slow":
            time.sleep(2)
        body = b"".join(self.app(environ, start_response))
        if fault == "lost":
            return self._reset(environ)
        if fault == "half":
            return self._half(environ, body)
        return [body]

    def _half(self, environ: dict[str, Any], body: bytes) -> Iterable[bytes]:
        yield body[: len(body) // 2]
        self._reset(environ)
        raise ConnectionAbortedError

    @staticmethod
    def _reset(environ: dict[str, Any]) -> Iterable[bytes]:
        connection: socket.socket = environ["werkzeug.socket"]
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
        return [b""]

    def client(self) -> Any:
        """Return a plain client, for what is not to be done by the store itself."""
        import botocore.session

        return botocore.session.get_session().create_client("s3", endpoint_url=self.url)

    def objects(self, bucket: str) -> dict[str, int]:
        """Return {name: bytes} of all objects of a bucket."""
        found: dict[str, int] = {}
        for page in self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket):
            found |= {item["Key"]: item["Size"] for item in page.get("Contents", [])}
        return found


def environment(url: str) -> dict[str, str]:
    """Return the environment in which everybody finds the server."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }
