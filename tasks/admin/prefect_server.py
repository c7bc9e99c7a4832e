"""Find a Prefect server for a run, or start one that ends with it."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from clepdg.errors import ClepError
from clepdg_tasks.admin.prefect_access import client_environment, new_secret, read_secret, server_environment
from clepdg_tasks.admin.prefect_database import prepared_database
from clepdg_tasks.host.children import end, family, free_port, wait_for
from clepdg_tasks.host.liveness import die_with_parent
from clepdg_tasks.host.processes import environment, running_url
from clepdg_tasks.host.settings import UP, Settings

LOG_BYTES: Final = 10_000_000


def prefect_command(port: int) -> list[str]:
    """Return the command that serves Prefect's API on a port of 127.0.0.1."""
    factory = "clepdg_flows.run.prefect_app:create_app"
    options = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--lifespan", "on"]
    return [sys.executable, "-m", "uvicorn", "--factory", factory, *options]


@contextlib.contextmanager
def prefect_for_one_run(settings: Settings, say: Callable[[str], None] = lambda line: None) -> Iterator[str]:
    """Yield the address of the running Prefect server, or start one.

    The environment then has what its clients need. It ends with this process, kill -9 included; Prefect's own ephemeral
    server does not.

    Args:
        say: shows a line to the user.
    """
    ours = running_url(settings, "prefect")
    running = os.environ.get("PREFECT_API_URL") or ours
    if running:
        secret = read_secret(settings) if running.rstrip("/") == ours else None
        with set_in_environment(client_environment(running, secret) if secret else {"PREFECT_API_URL": running}):
            check_prefect(running)
            yield running
        return
    log = settings.home / "logs" / "prefect-one-run.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    port, secret = free_port(), new_secret()
    own = {**environment(settings), **server_environment(port, secret), "PREFECT_UI_ENABLED": "0"}
    with prepared_database(settings) as note:
        if note:
            say(note)
        since = log.stat().st_size if log.exists() else 0
        if since > LOG_BYTES:
            log.unlink()
            since = 0
        with log.open("ab") as out:  # other runs write to it as well
            process = subprocess.Popen(
                prefect_command(port),
                stdout=out,
                stderr=out,
                env={**os.environ, **own},
                preexec_fn=die_with_parent,
                start_new_session=True,  # Ctrl-C is for the run, which needs its server to end properly
            )
        try:
            wait_for("Prefect's server", f"http://127.0.0.1:{port}/api/health", process, log, since)
        except BaseException:
            end(family(process.pid))
            raise
    url = f"http://127.0.0.1:{port}/api"
    try:
        with set_in_environment(client_environment(url, secret)):
            yield url
    finally:
        end(family(process.pid))


@contextlib.contextmanager
def set_in_environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a block; Prefect reads them once."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def check_prefect(url: str) -> None:
    """Raise ClepError if Prefect's server does not answer."""
    import httpx

    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=5.0)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ClepError(
            "Prefect's server does not answer.",
            got=error,
            where=url,
            do=f"start it ({UP}), or let this run start its own: unset PREFECT_API_URL",
        ) from error
