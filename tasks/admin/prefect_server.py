"""Find a Prefect server for a run, or start one that ends with it."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from clepdg.errors import ClepError
from clepdg_tasks.host.liveness import die_with_parent
from clepdg_tasks.host.processes import end, environment, family, free_port, running_url, wait_for
from clepdg_tasks.host.settings import Settings


def prefect_command(port: int) -> list[str]:
    """Return the command that serves Prefect's API on a port of 127.0.0.1."""
    factory = "prefect.server.api.server:create_app"
    options = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--lifespan", "on"]
    return [sys.executable, "-m", "uvicorn", "--factory", factory, *options]


@contextlib.contextmanager
def prefect_for_one_run(settings: Settings) -> Iterator[str]:
    """Yield the address of the running Prefect server, or start one.

    It ends with this process, kill -9 included; Prefect's own ephemeral server does not.
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
            prefect_command(port),
            stdout=out,
            stderr=out,
            env={**os.environ, **environment(settings), "PREFECT_UI_ENABLED": "0"},
            preexec_fn=die_with_parent,
            start_new_session=True,  # Ctrl-C is for the run, which needs its server to end properly
        )
    try:
        wait_for("Prefect's server", f"http://127.0.0.1:{port}/api/health", process, log)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        end(family(process.pid))


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
            do="start it (make up), or let this run start its own: unset PREFECT_API_URL",
        ) from error
