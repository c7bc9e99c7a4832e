"""Wait until child processes that serve a port answer, and end them."""

import contextlib
import http.client
import re
import resource
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from clepdg.errors import ClepError

if TYPE_CHECKING:
    from psutil import Process

PATIENCE_SECONDS: Final = 180.0  # a cold MLflow server takes half a minute, on a busy machine more
LARGE_BYTES: Final = 2**30  # no server writes a larger file soon after its start


def free_port(wanted: int = 0) -> int:
    """Return the wanted port of 127.0.0.1, or any free one if it is taken."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise ClepError("There is no free port on 127.0.0.1.")


def answers(url: str) -> bool:
    """Return whether a GET request to a URL is answered with status 200."""
    parts = urlsplit(url)  # no httpx: asked five times a second, it would read all certificates each time
    with contextlib.closing(http.client.HTTPConnection(parts.netloc, timeout=2.0)) as connection:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", parts.path)
            return connection.getresponse().status == 200
    return False


def wait_for(name: str, url: str, process: subprocess.Popen[bytes], log: Path, since: int = 0) -> None:
    """Wait until a process answers at a URL.

    An answer of another process that took the port first does not count.

    Args:
        since: size of its log when it started.

    Raises:
        ClepError: it ended, or did not answer in time; the error shows the reason in its log.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (answers(url) and _listens(process.pid, urlsplit(url).port)):
        if process.poll() is not None or time.monotonic() > deadline:
            ended = f"it ended with code {process.returncode}" if process.poll() is not None else "no answer"
            do = "run the same command again; the log says more"  # it then chooses another port if this one was taken
            most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
            if 0 <= most < LARGE_BYTES:  # -1: no limit
                do = f"let files have more than {most} bytes: ulimit -f unlimited"
            raise ClepError(f"{name} could not be started.", got=f"{ended}: {_reason(log, since)}", where=log, do=do)
        time.sleep(0.2)


def _reason(log: Path, since: int) -> str:
    """Return the last error in a log, or else its last line."""
    with log.open("rb") as file:
        file.seek(since)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return (errors or lines or ["it wrote no reason"])[-1][:500]


def _listens(pid: int, port: int | None) -> bool:
    """Return whether a process or one of its children listens on a port."""
    import psutil

    for process in family(pid):
        with contextlib.suppress(psutil.Error):
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return True
    return False


def family(pid: int) -> "list[Process]":
    """Return a process and its children."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def end(processes: "list[Process]") -> None:
    """End processes: SIGTERM, wait, then SIGKILL."""
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(processes, timeout=10)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
