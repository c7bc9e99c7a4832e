"""Start, find and end server processes of this machine.

var/services.json lists them by pid and a token in their environment, so that a pid which now belongs to another program
is never taken for one of them.
"""

import contextlib
import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from clepdg.errors import ClepError
from clepdg_tasks.host.settings import PROJECT, Settings

if TYPE_CHECKING:
    from psutil import Process

STATE: Final = "services.json"
PATIENCE_SECONDS: Final = 180.0  # a cold MLflow server takes half a minute, on a busy machine more
TOKEN: Final = "CLEPDG_SERVICE"  # in the environment of what `up` starts


@dataclass(frozen=True, kw_only=True)
class Service:
    """Running server: its process, its address and its log file."""

    pid: int
    token: str  # in its environment; with the pid it identifies one process
    url: str
    log: str


def environment(settings: Settings) -> dict[str, str]:
    """Return environment variables that keep servers' state below var/.

    They also turn telemetry off.
    """
    return {
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "clepdg",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the next run registers what is missing: no long waits
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "TOKENIZERS_PARALLELISM": "false",
    }


def set_environment(settings: Settings) -> None:
    """Set servers' environment variables that the user did not set.

    Prefect then logs no more to the terminal, which the command line uses itself.
    """
    for name, value in {**environment(settings), "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}.items():
        os.environ.setdefault(name, value)


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
    import httpx

    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, timeout=2.0, trust_env=False).status_code == 200
    return False


def start_service(
    settings: Settings, name: str, command: list[str], url: str, health: str, extra: Mapping[str, str]
) -> Service:
    """Start a server that outlives this process, and wait until it answers.

    Args:
        url: address for its clients.
        health: address that answers once it is up.
        extra: additional environment variables.

    Raises:
        ClepError: it ended, or did not answer in time; all its processes are ended.
    """
    log, token = settings.home / "logs" / f"{name}.log", uuid.uuid4().hex
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=PROJECT,
            env={**os.environ, **environment(settings), **extra, TOKEN: token},
            start_new_session=True,
        )
    service = Service(pid=process.pid, token=token, url=url, log=str(log))
    try:
        wait_for(name, health, process, log)
    except BaseException:
        end(processes_of(service))  # no file lists it yet
        raise
    return service


def wait_for(name: str, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a process answers at a URL.

    An answer of another process that took the port first does not count.

    Raises:
        ClepError: it ended, or did not answer in time; the error shows the end of its log.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (answers(url) and _listens(process.pid, urlsplit(url).port)):
        if process.poll() is not None or time.monotonic() > deadline:
            ended = f"it ended with code {process.returncode}" if process.poll() is not None else "no answer"
            tail = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-8:])
            do = "run the same command again; the log says more"  # it then chooses another port if this one was taken
            raise ClepError(f"{name} could not be started.", got=f"{ended}\n{tail}", where=log, do=do)
        time.sleep(0.2)


def _listens(pid: int, port: int | None) -> bool:
    """Return whether a process or one of its children listens on a port."""
    import psutil

    for process in family(pid):
        with contextlib.suppress(psutil.Error):
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return True
    return False


def read_services(settings: Settings) -> dict[str, Service]:
    """Return the services that `up` started and that still run."""
    return {name: service for name, service in written_services(settings).items() if _is_running(service)}


def written_services(settings: Settings) -> dict[str, Service]:
    """Return the services that `up` started, whether they run or not."""
    try:
        written = json.loads((settings.home / STATE).read_text())
    except (OSError, ValueError):
        return {}
    known = Service.__annotations__.keys()  # another version may have written other fields
    return {name: Service(**facts) for name, facts in written.items() if facts.keys() == known}


def running_url(settings: Settings, name: str) -> str | None:
    """Return the address of a service that `up` started, if it still runs."""
    service = read_services(settings).get(name)
    return service.url if service else None


def _is_running(service: Service) -> bool:
    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(service.pid)
        alive = process.status() != psutil.STATUS_ZOMBIE
        return bool(alive and process.environ().get(TOKEN) == service.token)
    return False


def processes_of(service: Service) -> "list[Process]":
    """Return a service's processes, found by its token.

    Children that outlived the service carry it too.
    """
    import psutil

    found: list[Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(TOKEN) == service.token and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


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
