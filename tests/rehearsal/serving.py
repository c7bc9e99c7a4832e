"""Serve files and ranges of them by HTTP, and record requests."""

import contextlib
import hashlib
import json
import re
import sys
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

CHUNK = 2**20  # bytes


class Server(ThreadingHTTPServer):
    """A server on a free port of 127.0.0.1, with a thread per connection.

    Attributes:
        requests: (method, path with query) of all requests, in order.
    """

    daemon_threads = True
    request_queue_size = 128  # connections of parallel clients

    def __init__(self, handler: type["Handler"], owner: Any) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.owner = owner
        self.requests: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        """The address without a slash at its end."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that hang up; print any other error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """Answers GET, HEAD and POST by `answer`, which subclasses implement."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.server.requests.append((self.command, self.path))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer()

    do_HEAD = do_POST = do_GET  # noqa: N815

    def answer(self) -> None:
        """Answer one request; servers override it."""
        self.reply(404)

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a whole answer; underscores in names of headers become hyphens."""
        self._head(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def reply_json(self, value: Any, status: int = 200, **headers: str) -> None:
        """Send a value as JSON."""
        self.reply(status, json.dumps(value).encode(), **({"Content_Type": "application/json"} | headers))

    def redirect(self, location: str, status: int = 302, **headers: str) -> None:
        """Send a redirect to an absolute address."""
        self.reply(status, b"", Location=location, **headers)

    def send_file(self, path: Path, **headers: str) -> None:
        """Send a file, or the range that the client asks for."""
        size = path.stat().st_size
        validators = {"ETag": apache_etag(path), "Last_Modified": formatdate(path.stat().st_mtime, usegmt=True)}
        headers = {"Accept_Ranges": "bytes", "Content_Type": "application/octet-stream"} | validators | headers
        start, stop, status = 0, size, 200
        unchanged = self.headers.get("If-Range") in (None, headers["ETag"], headers["Last_Modified"])
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if asked and asked[0] != "bytes=-" and unchanged:
            first, last = asked.groups()
            start = int(first) if first else max(0, size - int(last))
            stop = min(size, int(last) + 1) if first and last else size
            if start >= stop:
                return self.reply(416, Content_Range=f"bytes */{size}")
            status, headers["Content_Range"] = 206, f"bytes {start}-{stop - 1}/{size}"
        with path.open("rb") as file:
            self._head(status, stop - start, headers)
            if self.command == "HEAD":
                return None
            file.seek(start)
            while start < stop and (chunk := file.read(min(CHUNK, stop - start))):
                self.wfile.write(chunk)
                start += len(chunk)
        return None

    def _head(self, status: int, size: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def handle(self) -> None:
        """Handle a connection; return when the client hangs up."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def apache_etag(path: Path) -> str:
    """Return the ETag that Apache makes of a file's size and time."""
    facts = path.stat()
    return f'"{facts.st_size:x}-{facts.st_mtime_ns // 1000:x}"'


def digest(path: Path, kind: str = "sha256") -> str:
    """Return a file's hash in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def files_below(folder: Path) -> list[Path]:
    """Return all files below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
