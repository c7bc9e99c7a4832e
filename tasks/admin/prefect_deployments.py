"""Find the Prefect server to deploy to, create its work pools, and tell Prefect's command line where it is."""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clepdg.errors import ClepError
from clepdg_tasks.admin import alerts
from clepdg_tasks.admin import deploy as deployments
from clepdg_tasks.admin.prefect_access import api_client, read_secret, write_private
from clepdg_tasks.host.processes import running_url
from clepdg_tasks.host.settings import PROJECT, UP, Settings

if TYPE_CHECKING:
    import httpx

BIN: Final = Path(sys.executable).parent
POOLS: Final = ("clep-dg", "clep-dg-folds")  # whole runs, which the worker of `up` executes; parts of fanned-out runs
POOL_TEMPLATE: Final[dict[str, Any]] = {  # no variables: a flow run can't choose its command, environment or folder
    "job_configuration": {"stream_output": True},
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}
MADE_BY_UP: Final = "# written by `make up`, removed by `make down`\n"


def write_prefect_toml(settings: Settings, url: str, secret: str, say: Callable[[str], object]) -> None:
    """Write prefect.toml, which gives Prefect's commands address and secret."""
    text = f'{MADE_BY_UP}[api]\nurl = "{url}"\nauth_string = "{secret}"\n\n[client]\ncsrf_support_enabled = true\n'
    try:
        write_private(PROJECT / "prefect.toml", text)
    except OSError as error:
        write_private(settings.home / "prefect.toml", text)
        say(f"{PROJECT} can't be written ({error.strerror}): Prefect's command line works in {settings.home}")


def deploy_to(
    url: str, secret: str | None, *, ours: bool, force: bool = False, alerts_by: str | None = None
) -> list[str]:
    """Create the work pools, and deploy what prefect.yaml changed.

    Args:
        url: address of the server's API.
        ours: whether it is the server of `make up`, whose pools are closed.
        force: deploy what did not change too.
        alerts_by: the notification block of alerts, TYPE/NAME; None: no alerts are deployed.

    Returns:
        Lines for the user.

    Raises:
        ClepError: prefect.yaml can't be deployed, or the server does not answer.
    """
    import httpx

    PROJECT.mkdir(parents=True, exist_ok=True)  # where flow runs work
    entries = deployments.read_entries(deployments.prefect_yaml())
    try:
        with api_client(url, secret) as client:
            if alerts_by:
                alerts.find_block(client, alerts_by)  # refused before anything is deployed
            _create_pools(client, close=ours)
            lines = deployments.deploy(client, entries, force=force)
            return lines + (alerts.deploy_alerts(client, alerts_by) if alerts_by else [])
    except httpx.HTTPError as error:
        raise ClepError("Prefect's server does not answer as it should.", got=error, where=url) from error


def prefect_of_user(settings: Settings) -> tuple[str, str | None, bool]:
    """Return address and secret of the user's Prefect server.

    The third value says whether it is that of `make up`.

    Raises:
        ClepError: there is none.
    """
    ours = running_url(settings, "prefect")
    url = os.environ.get("PREFECT_API_URL") or ours
    if url is None:
        do = f"start one: {UP}; or name yours: PREFECT_API_URL"
        raise ClepError("There is no Prefect server to deploy to.", do=do)
    if url.rstrip("/") == ours:
        return url, read_secret(settings), True
    return url, os.environ.get("PREFECT_API_AUTH_STRING"), False


def _create_pools(client: "httpx.Client", *, close: bool) -> None:
    """Create the work pools; with `close`, set the template of all."""
    template = {"base_job_template": POOL_TEMPLATE}
    for name in POOLS:
        pool = deployments.ask(client, "GET", f"/work_pools/{name}")
        if pool.status_code == 404:
            made = {"name": name, "type": "process", **template}
            deployments.ask(client, "POST", "/work_pools/", made).raise_for_status()
        elif pool.raise_for_status().json()["type"] == "process" and close:  # another kind is the user's own
            deployments.ask(client, "PATCH", f"/work_pools/{name}", template).raise_for_status()


def remove_prefect_toml(settings: Settings) -> None:
    """Remove the prefect.toml that `deploy` wrote."""
    for path in (PROJECT / "prefect.toml", settings.home / "prefect.toml"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if path.read_text().startswith(MADE_BY_UP):
                path.unlink()


def schedules_of(settings: Settings, name: str) -> list[str]:
    """Return in words when a deployment runs by itself, and how.

    Raises:
        ClepError: the server wants another secret.
    """
    import httpx

    try:
        url, secret, _ = prefect_of_user(settings)
    except ClepError:
        return [f"No Prefect server runs here ({UP}): nothing is scheduled."]
    try:
        with api_client(url, secret) as client:
            answer = client.get(f"/deployments/name/{deployments.NAME}/{name}")
            if answer.status_code == 404:
                return [f"Deployment {deployments.NAME}/{name} is not deployed: clep-dg deploy"]
            found = answer.raise_for_status().json()
            wanted = {"deployments": {"id": {"any_": [found["id"]]}}, "sort": "EXPECTED_START_TIME_ASC", "limit": 1}
            wanted["flow_runs"] = {"state": {"type": {"any_": ["SCHEDULED"]}}}
            due = client.post("/flow_runs/filter", json=wanted).raise_for_status().json()
    except httpx.HTTPError as error:
        return [f"Prefect's server ({url}) does not answer: {error}"]
    paused = " (the deployment is paused)" if found["paused"] else ""
    lines = [f"Schedule {deployments.in_words(each)}{paused}" for each in found["schedules"]]
    given = [f"{key}={value}" for key, value in found["parameters"].items() if key != "refresh"]
    lines += [f"The deployment's own parameters come before the pin: {', '.join(given)}"] if given else []
    return [
        *(lines or ["No schedule: it runs when it is asked to"]),
        *(f"Next: {run['expected_start_time']}" for run in due),
    ]
