"""Servers on this machine, all on 127.0.0.1: Prefect, MLflow and one worker; or a Prefect server for one run alone.

`python -m tasks.services up` starts what is not running, deploys prefect.yaml and writes prefect.toml and
var/settings.toml; `down` stops what up started, and only that. What runs is written in var/services.json by pid and a
token of its own, so that a pid that now belongs to another program is left alone.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clepdg.errors import ClepError
from clepdg.store import write_json
from tasks.crashes import tell_crashed
from tasks.parents import die_with_parent
from tasks.preflight import check_database
from tasks.settings import PROJECT, Settings, load_settings
from tasks.tracking import front_page

if TYPE_CHECKING:
    from psutil import Process

BIN: Final = Path(sys.executable).parent
STATE: Final = "services.json"
POOLS: Final = ("clep-dg", "clep-dg-folds")  # whole runs, for which `up` starts a worker; parts of runs that fan out
PATIENCE_SECONDS: Final = 180.0  # a cold MLflow server takes half a minute, on a busy machine more
TOKEN: Final = "CLEPDG_SERVICE"  # in the environment of what `up` starts
MADE_BY_UP: Final = "# written by `make up`, removed by `make down`\n"


@dataclass(frozen=True, kw_only=True)
class Service:
    """A server that was started: its process, where it answers, and where it logs."""

    pid: int
    token: str  # in its environment: pid and this name one process, whatever the clock does
    url: str
    log: str


def environment(settings: Settings) -> dict[str, str]:
    """Return what Prefect and MLflow need to keep their state below var/ and to send nothing home."""
    return {
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "clepdg",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # what a server misses is made up by the next run: no long waits
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "TOKENIZERS_PARALLELISM": "false",
    }


def free_port(wanted: int = 0) -> int:
    """Return the wanted port of 127.0.0.1 if it is free, otherwise any that is."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise ClepError("There is no free port on 127.0.0.1.")


def _prefect_command(port: int) -> list[str]:
    factory = "prefect.server.api.server:create_app"
    options = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--lifespan", "on"]
    return [sys.executable, "-m", "uvicorn", "--factory", factory, *options]


def answers(url: str) -> bool:
    """Tell whether a server answers at an address with 200."""
    import httpx

    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, timeout=2.0, trust_env=False).status_code == 200
    return False


def _wait(name: str, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            ended = f"it ended with code {process.returncode}" if process.poll() is not None else "no answer"
            tail = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-8:])
            raise ClepError(f"{name} could not be started.", got=f"{ended}\n{tail}", where=log)
        time.sleep(0.2)


@contextlib.contextmanager
def prefect_for_one_run(settings: Settings) -> Iterator[str]:
    """Give the address of a Prefect server: the running one, or one that lives as long as this process.

    A server of our own dies with its parent even by kill -9, which Prefect's built-in ephemeral one does not.
    """
    running = os.environ.get("PREFECT_API_URL") or running_url(settings, "prefect")
    if running:
        check_prefect(running)
        yield running
        return
    log = settings.home / "logs" / "prefect-one-run.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with log.open("wb") as out:
        process = subprocess.Popen(
            _prefect_command(port),
            stdout=out,
            stderr=out,
            env={**os.environ, **environment(settings), "PREFECT_UI_ENABLED": "0"},
            preexec_fn=die_with_parent,
            start_new_session=True,  # Ctrl-C is for the run alone: without its server it could not end well
        )
    try:
        _wait("Prefect's server", f"http://127.0.0.1:{port}/api/health", process, log)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        _end(_family(process.pid))


def check_prefect(url: str) -> None:
    """Raise where nothing answers at the address of Prefect's server."""
    import httpx

    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=5.0)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ClepError(
            "Prefect's server does not answer.",
            got=error,
            where=url,
            do="start it (make up), or let this run start its own: unset PREFECT_API_URL",
        ) from error


def read_services(settings: Settings) -> dict[str, Service]:
    """Return the services that `up` started and that still run."""
    return {name: service for name, service in _written(settings).items() if _lives(service)}


def _written(settings: Settings) -> dict[str, Service]:
    """Return the services that `up` started, whether they run or not."""
    try:
        written = json.loads((settings.home / STATE).read_text())
    except (OSError, ValueError):
        return {}
    known = Service.__annotations__.keys()  # an older version wrote others
    return {name: Service(**facts) for name, facts in written.items() if facts.keys() == known}


def running_url(settings: Settings, name: str) -> str | None:
    """Return the address of a service that `up` started, if it still runs."""
    service = read_services(settings).get(name)
    return service.url if service else None


def _lives(service: Service) -> bool:
    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(service.pid)
        alive = process.status() != psutil.STATUS_ZOMBIE
        return bool(alive and process.environ().get(TOKEN) == service.token)
    return False


def _family(pid: int) -> "list[Process]":
    """Return a process and its children."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def _processes(service: Service) -> "list[Process]":
    """Return a service's processes, those too that outlived it: they carry its token."""
    import psutil

    found: list[Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(TOKEN) == service.token and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _end(processes: "list[Process]") -> None:
    """End processes: ask, wait, then kill."""
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(processes, timeout=10)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _start(
    settings: Settings, name: str, command: list[str], url: str, health: str, extra: Mapping[str, str]
) -> Service:
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
    try:
        _wait(name, health, process, log)
    except BaseException:
        _end(_family(process.pid))  # nobody would know of it
        raise
    return Service(pid=process.pid, token=token, url=url, log=str(log))


def up() -> dict[str, Service]:
    """Start Prefect, MLflow and a worker where they are not running, and deploy prefect.yaml; return what runs.

    Raises:
        ClepError: one of them could not be started; what was started before stays and is stopped by `down`.
    """
    settings = load_settings()
    services = read_services(settings)
    for name, service in _written(settings).items():
        if name not in services and name != "worker":  # a run whose worker died goes on to its end
            _end(_processes(service))
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
    tell_crashed(settings, services["prefect"].url)
    return services


def _start_prefect(settings: Settings) -> Service:
    port = free_port(4200)
    extra = {"PREFECT_SERVER_API_HOST": "127.0.0.1", "PREFECT_SERVER_API_PORT": str(port)}
    if settings.prefect_database_url:
        check_database(settings.prefect_database_url, "asyncpg")
        database = settings.prefect_database_url.replace("postgresql://", "postgresql+asyncpg://", 1)
        extra["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
    url = f"http://127.0.0.1:{port}/api"
    return _start(settings, "prefect", _prefect_command(port), url, f"{url}/health", extra)


def _start_mlflow(settings: Settings) -> Service:
    port, folder = free_port(5000), settings.home / "mlflow"
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
        "MLFLOW_BACKEND_STORE_URI": database,  # not on the command line, which all can read
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # for its judges of language models: six processes, 1.5 GB
    }
    service = _start(settings, "mlflow", command, url, f"{url}/health", extra)
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
    return _start(settings, "worker", [*command, "--limit", "1"], health, health, extra)


def _prepare_prefect(settings: Settings, url: str) -> None:
    """Write prefect.toml, where Prefect looks for its address, create the work pools that are missing, and deploy."""
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
    """Set (or, with None, remove) tracking_url in var/settings.toml; other lines stay as they are."""
    path = settings.home / "settings.toml"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    if tracking_url and any(line.startswith("tracking_url") and MADE_BY_UP.strip() not in line for line in lines):
        return  # the user's own server stays the one in use
    lines = [line for line in lines if MADE_BY_UP.strip() not in line]
    if tracking_url:
        lines.insert(0, f'tracking_url = "{tracking_url}"  {MADE_BY_UP}')
    path.write_text("".join(lines))


def down() -> list[str]:
    """Stop what `up` started and is still running; return the names. Files it wrote are removed."""
    settings = load_settings()
    services = _written(settings)
    stopped: list[str] = []
    for name in ("worker", "mlflow", "prefect"):
        if name in services and (processes := _processes(services[name])):
            _end(processes)
            stopped.append(name)
    (settings.home / STATE).unlink(missing_ok=True)
    toml = PROJECT / "prefect.toml"
    if toml.exists() and toml.read_text().startswith(MADE_BY_UP):
        toml.unlink()
    if (settings.home / "settings.toml").exists():
        write_settings(settings, None)
    return stopped


def main() -> None:
    """Run up or down and say what happened."""
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
            sys.exit("usage: python -m tasks.services up | down")
    except ClepError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
