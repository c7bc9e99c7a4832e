"""Start and stop Prefect, MLflow and a Prefect worker on 127.0.0.1.

`python -m clepdg_tasks.admin.services up` starts those that are not running, deploys prefect.yaml, and writes
prefect.toml and var/settings.toml; `down` stops only what `up` started. A run without them starts a Prefect server of
its own.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from clepdg.errors import ClepError
from clepdg.hashing import write_json
from clepdg_tasks.admin.prefect_crashes import report_crashed
from clepdg_tasks.admin.prefect_server import prefect_command
from clepdg_tasks.host.preflight import check_database
from clepdg_tasks.host.processes import (
    PATIENCE_SECONDS,
    STATE,
    Service,
    answers,
    end,
    environment,
    free_port,
    processes_of,
    read_services,
    start_service,
    written_services,
)
from clepdg_tasks.host.settings import PROJECT, Settings, load_settings
from clepdg_tasks.tracking.client import front_page

BIN: Final = Path(sys.executable).parent
POOLS: Final = ("clep-dg", "clep-dg-folds")  # whole runs, which the worker of `up` executes; parts of fanned-out runs
MADE_BY_UP: Final = "# written by `make up`, removed by `make down`\n"


def up() -> dict[str, Service]:
    """Start the services that are not running, and deploy prefect.yaml.

    Returns:
        Name -> service, for all of them.

    Raises:
        ClepError: one could not be started; those before it keep running until `down`.
    """
    settings = load_settings()
    services = read_services(settings)
    for name, service in written_services(settings).items():
        if name not in services and name != "worker":  # a run whose worker died continues to its end
            end(processes_of(service))
    started: list[tuple[str, Callable[[], Service]]] = [
        ("prefect", lambda: _start_prefect(settings)),
        ("mlflow", lambda: _start_mlflow(settings)),
        ("worker", lambda: _start_worker(settings, services["prefect"].url)),
    ]
    for name, start in started:
        if name not in services:
            services[name] = start()
            write_json(settings.home / STATE, {n: asdict(s) for n, s in services.items()})
            if name == "prefect":
                _prepare_prefect(settings, services["prefect"].url)
    report_crashed(settings, services["prefect"].url)
    return services


def _port(settings: Settings, name: str, usual: int) -> int:
    """Return a server's last port, since pages of earlier runs link to it."""
    before = written_services(settings).get(name)
    return (urlsplit(before.url).port if before else None) or usual


def _start_prefect(settings: Settings) -> Service:
    port = free_port(_port(settings, "prefect", 4200))
    extra = {"PREFECT_SERVER_API_HOST": "127.0.0.1", "PREFECT_SERVER_API_PORT": str(port)}
    if settings.prefect_database_url:
        check_database(settings.prefect_database_url, "asyncpg")
        database = settings.prefect_database_url.replace("postgresql://", "postgresql+asyncpg://", 1)
        extra["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
    url = f"http://127.0.0.1:{port}/api"
    return start_service(settings, "prefect", prefect_command(port), url, f"{url}/health", extra)


def _start_mlflow(settings: Settings) -> Service:
    port, folder = free_port(_port(settings, "mlflow", 5000)), settings.home / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    if settings.mlflow_database_url:
        check_database(settings.mlflow_database_url, "psycopg2")
    database = settings.mlflow_database_url or f"sqlite:///{folder / 'mlflow.db'}"
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
        "PREFECT_API_URL": api,
        "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
        "PREFECT_WORKER_WEBSERVER_PORT": str(port),
    }
    health = f"http://127.0.0.1:{port}/health"
    return start_service(settings, "worker", [*command, "--limit", "1"], health, health, extra)


def _prepare_prefect(settings: Settings, url: str) -> None:
    """Write prefect.toml, create missing work pools, and deploy prefect.yaml.

    Prefect reads its server's address from prefect.toml.
    """
    (PROJECT / "prefect.toml").write_text(f'{MADE_BY_UP}[api]\nurl = "{url}"\n')
    for pool in POOLS:
        if not answers(f"{url}/work_pools/{pool}"):
            _prefect(settings, url, "work-pool", "create", pool, "--type", "process")
    _prefect(settings, url, "--no-prompt", "deploy", "--all")


def _prefect(settings: Settings, url: str, *words: str) -> None:
    done = subprocess.run(
        [str(BIN / "prefect"), *words],
        cwd=PROJECT,
        env={**os.environ, **environment(settings), "PREFECT_API_URL": url},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    if done.returncode:
        raise ClepError(f"prefect {' '.join(words)} failed.", got=(done.stdout + done.stderr)[-2000:])


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
    services = written_services(settings)
    stopped: list[str] = []
    for name in ("worker", "mlflow", "prefect"):
        if name in services and (processes := processes_of(services[name])):
            end(processes)
            stopped.append(name)
    (settings.home / STATE).unlink(missing_ok=True)
    toml = PROJECT / "prefect.toml"
    if toml.exists() and toml.read_text().startswith(MADE_BY_UP):
        toml.unlink()
    if (settings.home / "settings.toml").exists():
        write_settings(settings, None)
    return stopped


def main() -> None:
    """Run `up` or `down` and print the result."""
    say: Callable[[str], Any] = lambda line: sys.stdout.write(line + "\n")  # noqa: E731
    try:
        if sys.argv[1:] == ["up"]:
            for name, service in up().items():
                shown = service.url.removesuffix("/api").removesuffix("/health")
                shown = front_page(shown) if name == "mlflow" else shown
                say(f"{name:8s} {shown}   log {service.log}")
        elif sys.argv[1:] == ["down"]:
            stopped = down()
            say(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")
        else:
            sys.exit("usage: python -m clepdg_tasks.admin.services up | down")
    except ClepError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
