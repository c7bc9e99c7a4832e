"""A local HTTP server that serves ranges, breaks, stalls, lies and corrupts on request."""

import io
import random
import threading
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

CONTENT = {
    "Actor 01/03-01.wav": random.Random(1).randbytes(300_000),
    "Actor 01/03-02.wav": random.Random(2).randbytes(250_000),
    "readme.txt": b"no speech",
}


def packed() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in CONTENT.items():
            file.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


ARCHIVE = packed()
ETAG = '"one"'


@dataclass
class Answer:
    """How the server treats one request."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = ARCHIVE
    etag: str | None = ETAG
    ranges: bool = True
    send: int | None = None  # bytes of this answer after which the connection breaks
    stall: bool = False  # ... after which it falls silent instead
    claim: int | None = None  # Content-Length, true or not
    length: bool = True  # False: no Content-Length, as of HTTP/1.0
    wait: float = 0.0  # seconds before it answers
    drip: int | None = None  # bytes after which it sends 10 bytes a second


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = [Answer()]  # to one request after another; the last one is repeated
        self.routes: dict[str, list[Answer]] = {}  # path -> answers of its own
        self.requests: list[tuple[str, str | None]] = []  # (method, Range)
        self.paths: list[str] = []  # of GET requests
        self.under_way, self.most_at_once, self.lock = 0, 0, threading.Lock()
        self.awake = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hangs up is what some tests want

    def serve(self, files: Mapping[str, bytes]) -> None:
        """Serve files by path, and nothing else."""
        self.answers = [Answer(status=404, body=b"no such file")]
        self.routes = {f"/{quote(path)}": [Answer(body=data, etag=f'"{len(data)}"')] for path, data in files.items()}

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/corpus.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append((self.command, asked))
        with self.server.lock:
            answers = self.server.routes.get(self.path, self.server.answers)
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            self.server.paths += [self.path] if self.command == "GET" else []
            self.server.under_way += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.under_way)
        try:
            self.answer(answer, asked)
        finally:
            with self.server.lock:
                self.server.under_way -= 1

    def answer(self, answer: Answer, asked: str | None) -> None:
        time.sleep(answer.wait)
        status, body, headers = answer.status, answer.body, dict(answer.headers)
        if status == 200 and asked and answer.ranges and self.headers.get("If-Range", answer.etag) == answer.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < len(body) else 416
            span = f"{start}-{len(body) - 1}" if status == 206 else "*"
            headers["Content-Range"] = f"bytes {span}/{len(body)}"
            body = body[start:]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if answer.etag:
            self.send_header("ETag", answer.etag)
        if answer.length:
            self.send_header("Content-Length", str(len(body) if answer.claim is None else answer.claim))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: answer.drip if answer.send is None else answer.send])
            self.wfile.flush()
            for start in range(answer.drip or len(body), len(body)):
                if self.server.awake.wait(0.1):
                    break
                self.wfile.write(body[start : start + 1])
                self.wfile.flush()
        if answer.stall:
            self.server.awake.wait(10)
        self.close_connection = answer.send is not None or answer.claim is not None

    def log_message(self, *args: Any) -> None:
        pass
