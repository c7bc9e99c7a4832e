"""Deploy prefect.yaml to the server of `make up`, and tell Prefect's command line where that is."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from clepdg.errors import ClepError
from clepdg_tasks.admin.prefect_access import api_client, client_environment, write_private
from clepdg_tasks.host.children import PATIENCE_SECONDS
from clepdg_tasks.host.processes import environment
from clepdg_tasks.host.settings import PROJECT, Settings

BIN: Final = Path(sys.executable).parent
POOLS: Final = ("clep-dg", "clep-dg-folds")  # whole runs, which the worker of `up` executes; parts of fanned-out runs
POOL_TEMPLATE: Final[dict[str, Any]] = {  # no variables: a flow run can't choose its command, environment or folder
    "job_configuration": {"stream_output": True},
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}
MADE_BY_UP: Final = "# written by `make up`, removed by `make down`\n"


def deploy(settings: Settings, url: str, secret: str, say: Callable[[str], object]) -> None:
    """Write prefect.toml, create or close the work pools, deploy prefect.yaml.

    Prefect reads its server's address and secret from prefect.toml.
    """
    text = f'{MADE_BY_UP}[api]\nurl = "{url}"\nauth_string = "{secret}"\n\n[client]\ncsrf_support_enabled = true\n'
    try:
        write_private(PROJECT / "prefect.toml", text)
    except OSError as error:
        write_private(settings.home / "prefect.toml", text)
        say(f"{PROJECT} can't be written ({error.strerror}): Prefect's command line works in {settings.home}")
    _create_pools(url, secret)
    words = [str(BIN / "prefect"), "--no-prompt", "deploy", "--all"]
    done = subprocess.run(
        words,
        cwd=PROJECT,
        env={**os.environ, **environment(settings), **client_environment(url, secret)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    if done.returncode:
        raise ClepError("prefect deploy --all failed.", got=(done.stdout + done.stderr)[-2000:])


def _create_pools(url: str, secret: str, attempts: int = 10) -> None:
    """Create the work pools; set the template of those that are there."""
    import httpx

    template = {"base_job_template": POOL_TEMPLATE}
    try:
        with api_client(url, secret) as client:
            for name in POOLS:
                pool = client.get(f"/work_pools/{name}")
                if pool.status_code == 404:
                    client.post("/work_pools/", json={"name": name, "type": "process", **template}).raise_for_status()
                elif pool.raise_for_status().json()["type"] == "process":  # another kind is the user's own
                    client.patch(f"/work_pools/{name}", json=template).raise_for_status()
    except httpx.HTTPError as error:
        busy = isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 503
        if busy and attempts > 1:  # SQLite is locked while the server starts, or ends what a killed one left
            time.sleep(2)
            return _create_pools(url, secret, attempts - 1)
        raise ClepError("The work pools can't be created.", got=error, where=url) from error


def remove_prefect_toml(settings: Settings) -> None:
    """Remove the prefect.toml that `deploy` wrote."""
    for path in (PROJECT / "prefect.toml", settings.home / "prefect.toml"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if path.read_text().startswith(MADE_BY_UP):
                path.unlink()
