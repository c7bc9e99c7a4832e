"""Start and stop Prefect, MLflow and a Prefect worker on 127.0.0.1.

`python -m clepdg_tasks.admin.services up` starts those that are not running, deploys what is missing or changed in
prefect.yaml, and writes prefect.toml and var/settings.toml; `down` stops only what `up` started. Either ends what an
interrupted `up` left. A run without them starts a Prefect server of its own.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from clepdg.errors import ClepError
from clepdg_tasks.admin.prefect_access import (
    client_environment,
    keep_secret,
    read_secret,
    secret_file,
    server_environment,
)
from clepdg_tasks.admin.prefect_crashes import report_crashed
from clepdg_tasks.admin.prefect_database import prepared_database
from clepdg_tasks.admin.prefect_deployments import (
    BIN,
    MADE_BY_UP,
    POOLS,
    deploy_to,
    remove_prefect_toml,
    write_prefect_toml,
)
from clepdg_tasks.admin.prefect_server import prefect_command
from clepdg_tasks.host.children import PATIENCE_SECONDS, free_port
from clepdg_tasks.host.preflight import check_database
from clepdg_tasks.host.processes import (
    STATE,
    Service,
    end_service,
    environment,
    is_running,
    start_service,
    write_service,
    written_services,
)
from clepdg_tasks.host.settings import Settings, load_settings
from clepdg_tasks.host.sqlite import check_mlflow_database, mlflow_database, sqlite_url
from clepdg_tasks.tracking.client import front_page


def up(say: Callable[[str], object] = lambda line: None) -> dict[str, Service]:
    """Start services that are not running; deploy what prefect.yaml changed.

    Args:
        say: shows a line to the user.

    Returns:
        Name -> service, for all of them.

    Raises:
        ClepError: one could not be started; those before it keep running until `down`.
    """
    settings = load_settings()
    with _alone(settings):
        services: dict[str, Service] = {}
        for name, service in written_services(settings).items():
            if service.ready and is_running(service):
                services[name] = service
            elif name != "worker" or not service.ready:  # a run whose worker died continues to its end
                end_service(service)
        started: list[tuple[str, Callable[[], Service]]] = [
            ("prefect", lambda: _start_prefect(settings, say)),
            ("mlflow", lambda: _start_mlflow(settings)),
            ("worker", lambda: _start_worker(settings, services["prefect"].url)),
        ]
        for name, start in started:
            if name not in services:
                services[name] = replace(start(), ready=True)
                write_service(settings, name, services[name])
            elif name == "prefect":
                _deploy(services[name].url, read_secret(settings), say)
        report_crashed(settings, services["prefect"].url, read_secret(settings))
        return services


@contextlib.contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Hold the lock of `up` and `down`.

    Raises:
        ClepError: another one holds it, or the folder of all state can't be written.
    """
    lock = FileLock(settings.home / "services.lock")
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=2 * PATIENCE_SECONDS)
    except Timeout as error:
        raise ClepError("Another start or stop of the servers is at work.", where=settings.home) from error
    except OSError as error:
        do = "name a folder of yours: CLEPDG_HOME=FOLDER"
        raise ClepError("The folder of all state can't be written.", got=error, where=settings.home, do=do) from error
    with lock:
        lock.release()
        yield


def _port(settings: Settings, name: str, usual: int) -> int:
    """Return a server's last port, since pages of earlier runs link to it."""
    before = written_services(settings).get(name)
    return (urlsplit(before.url).port if before else None) or usual


def _start_prefect(settings: Settings, say: Callable[[str], object]) -> Service:
    port, secret = free_port(_port(settings, "prefect", 4200)), keep_secret(settings)
    extra, database = server_environment(port, secret), contextlib.nullcontext[str | None]()
    if settings.prefect_database_url:
        check_database(settings.prefect_database_url, "asyncpg")
        address = settings.prefect_database_url.replace("postgresql://", "postgresql+asyncpg://", 1)
        extra["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = address
    url = f"http://127.0.0.1:{port}/api"
    with database if settings.prefect_database_url else prepared_database(settings) as note:
        if note:
            say(note)
        service = start_service(settings, "prefect", prefect_command(port), url, f"{url}/health", extra)
    try:
        write_prefect_toml(settings, url, secret, say)
        _deploy(url, secret, say)
    except BaseException:
        end_service(service)
        raise
    return service


def _deploy(url: str, secret: str | None, say: Callable[[str], object]) -> None:
    for line in deploy_to(url, secret, ours=True):
        say(line)


def _start_mlflow(settings: Settings) -> Service:
    port, folder = free_port(_port(settings, "mlflow", 5000)), settings.home / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    if settings.mlflow_database_url:
        check_database(settings.mlflow_database_url, "psycopg2")
    else:
        check_mlflow_database(mlflow_database(settings))
    database = settings.mlflow_database_url or sqlite_url(mlflow_database(settings))
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--default-artifact-root", (folder / "artifacts").as_uri(), "--no-serve-artifacts"),
    ]
    url = f"http://127.0.0.1:{port}"
    extra = {
        "MLFLOW_BACKEND_STORE_URI": database,  # not on the command line, which other users can read
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # serves evaluations of language models: six processes, 1.5 GB
    }
    service = start_service(settings, "mlflow", command, url, f"{url}/health", extra)
    write_settings(settings, url)
    return service


def _start_worker(settings: Settings, api: str) -> Service:
    port = free_port(8080)
    command = [str(BIN / "prefect"), "worker", "start", "--pool", POOLS[0], "--name", "local", "--with-healthcheck"]
    extra = {
        **client_environment(api, read_secret(settings) or ""),
        "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
        "PREFECT_WORKER_WEBSERVER_PORT": str(port),
    }
    health = f"http://127.0.0.1:{port}/health"
    return start_service(settings, "worker", [*command, "--limit", "1"], health, health, extra)


def write_settings(settings: Settings, tracking_url: str | None) -> None:
    """Set tracking_url in var/settings.toml, or remove it if it is None.

    Other lines stay unchanged.
    """
    path = settings.home / "settings.toml"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    if tracking_url and any(line.startswith("tracking_url") and MADE_BY_UP.strip() not in line for line in lines):
        return  # the user's own server stays in use
    lines = [line for line in lines if MADE_BY_UP.strip() not in line]
    if tracking_url:
        lines.insert(0, f'tracking_url = "{tracking_url}"  {MADE_BY_UP}')
    path.write_text("".join(lines))


def down() -> list[str]:
    """Stop the services that `up` started, and remove the files that it wrote.

    Returns:
        Names of the services that were still running.
    """
    settings = load_settings()
    with _alone(settings):
        services = written_services(settings)
        order: tuple[str, ...] = ("worker", "mlflow", "prefect")
        stopped = [name for name in order if name in services and end_service(services[name])]
        (settings.home / STATE).unlink(missing_ok=True)
        remove_prefect_toml(settings)
        if (settings.home / "settings.toml").exists():
            write_settings(settings, None)
    return stopped


def _stop(number: int, frame: object) -> None:
    sys.exit(128 + number)


def main() -> None:
    """Run `up` or `down` and print the result.

    Interrupted, it ends the server that it was starting.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, _stop)
    say: Callable[[str], Any] = lambda line: sys.stdout.write(line + "\n")  # noqa: E731
    try:
        for variable, value in environment(load_settings()).items():
            os.environ.setdefault(variable, value)  # before Prefect is imported, which reads them once
        if sys.argv[1:] == ["up"]:
            for name, service in up(say).items():
                shown = service.url.removesuffix("/api").removesuffix("/health")
                shown = front_page(shown) if name == "mlflow" else shown
                say(f"{name:8s} {shown}   log {service.log}")
            say(f"Prefect's page asks for a secret, once: the line in {secret_file(load_settings())}")
        elif sys.argv[1:] == ["down"]:
            stopped = down()
            say(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")
        else:
            sys.exit("usage: python -m clepdg_tasks.admin.services up | down")
    except ClepError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
