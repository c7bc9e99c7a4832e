"""Start, list and find the servers of this machine.

var/services.json lists them by pid and a token in their environment, so that a pid which now belongs to another program
is never taken for one of them. A server is listed before it starts: whatever kills `make up`, the next one finds it.
"""

import contextlib
import json
import os
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

from clepdg.hashing import write_json
from clepdg_tasks.host.children import end, wait_for
from clepdg_tasks.host.settings import PROJECT, Settings
from clepdg_tasks.host.sqlite import sqlite_url

if TYPE_CHECKING:
    from psutil import Process

STATE: Final = "services.json"
TOKEN: Final = "CLEPDG_SERVICE"  # in the environment of what `up` starts


@dataclass(frozen=True, kw_only=True)
class Service:
    """Server: its process, its address and its log file.

    Attributes:
        pid: number of its process; 0: not known yet.
        token: in its environment; with the pid it identifies one process.
        ready: whether `up` finished with it.
    """

    pid: int
    token: str
    url: str
    log: str
    ready: bool = False


def environment(settings: Settings) -> dict[str, str]:
    """Return environment variables that keep servers' state below var/.

    They also turn telemetry off.
    """
    return {
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": sqlite_url(settings.home / "prefect" / "prefect.db", "+aiosqlite"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "clepdg",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # what a registry names is never trusted
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
    silent = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL", "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL"}
    for name, value in {**environment(settings), **silent}.items():
        os.environ.setdefault(name, value)


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
    log = settings.home / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    since = log.stat().st_size if log.exists() else 0
    service = Service(pid=0, token=uuid.uuid4().hex, url=url, log=str(log))
    write_service(settings, name, service)
    try:
        with log.open("ab") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=PROJECT,
                env={**os.environ, **environment(settings), **extra, TOKEN: service.token},
                start_new_session=True,
            )
        service = replace(service, pid=process.pid)
        write_service(settings, name, service)
        wait_for(name, health, process, log, since)
    except BaseException:
        end_service(service)
        raise
    return service


def read_services(settings: Settings) -> dict[str, Service]:
    """Return the services that `up` started and that still run."""
    return {name: service for name, service in written_services(settings).items() if is_running(service)}


def written_services(settings: Settings) -> dict[str, Service]:
    """Return the services that `up` listed, whether they run or not."""
    try:
        written = json.loads((settings.home / STATE).read_text())
        return {name: Service(**facts) for name, facts in written.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # missing, damaged, or another version's
        return {}


def write_service(settings: Settings, name: str, service: Service) -> None:
    """List a service beside the others."""
    listed = {**written_services(settings), name: service}
    write_json(settings.home / STATE, {name: asdict(each) for name, each in listed.items()})


def running_url(settings: Settings, name: str) -> str | None:
    """Return the address of a service that `up` started, if it still runs."""
    service = read_services(settings).get(name)
    return service.url if service else None


def is_running(service: Service) -> bool:
    """Return whether a service's process runs."""
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


def end_service(service: Service) -> bool:
    """End a service's processes; return whether there were any."""
    found = False
    for _ in range(3):  # it may start another process meanwhile
        processes = processes_of(service)
        found |= bool(processes)
        end(processes)
    return found
