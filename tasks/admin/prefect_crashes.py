"""Mark this machine's killed runs as Crashed on Prefect's server.

Prefect's worker does this for runs whose process died, unless the worker was killed too; `clep-dg run` has no worker.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clepdg.errors import ClepError, StoreError
from clepdg_tasks.admin.prefect_access import api_client
from clepdg_tasks.host import liveness
from clepdg_tasks.host.settings import Settings

if TYPE_CHECKING:
    import httpx

log = logging.getLogger("clepdg")

ONGOING = ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"]
GONE = "The run was killed: its process is gone."


@contextlib.contextmanager
def run_lock(settings: Settings, flow_run: str) -> Iterator[None]:
    """Hold the lock file that marks a flow run as running on this machine."""
    folder = _folder(settings)
    try:
        held: contextlib.AbstractContextManager[object] = liveness.hold(folder, flow_run)
    except StoreError:  # the run's preflight check reports folders that can't be written
        held = contextlib.nullcontext()
    with held:
        try:
            yield
        finally:
            liveness.mark_reported(folder, flow_run)


def report_crashed(settings: Settings, api: str | None, secret: str | None = None) -> list[str]:
    """Mark this machine's killed flow runs and their task runs as Crashed.

    Args:
        api: address of Prefect's server; None: there is none.
        secret: what it asks for, if anything.

    Returns:
        Ids of the flow runs.
    """
    killed = liveness.unreported(_folder(settings)) if api else []
    if not killed:
        return []
    import httpx

    try:
        with api_client(str(api), secret) as client:
            for flow_run in killed:
                _mark_crashed(client, flow_run)
                liveness.mark_reported(_folder(settings), flow_run)
    except (httpx.HTTPError, ClepError) as error:  # no reason to fail a run: the next one reports it
        log.warning("Could not mark killed runs as crashed on Prefect's server: %s: %s", type(error).__name__, error)
    return killed


def _mark_crashed(client: "httpx.Client", flow_run: str) -> None:
    found = client.get(f"/flow_runs/{flow_run}")
    if found.status_code == 404:  # a run of another server
        return
    found.raise_for_status()
    of_run = {"flow_runs": {"id": {"any_": [flow_run]}}, "task_runs": {"state": {"type": {"any_": ONGOING}}}}
    tasks = client.post("/task_runs/filter", json=of_run)
    tasks.raise_for_status()
    crashed = {"state": {"type": "CRASHED", "name": "Crashed", "message": GONE}, "force": True}
    ongoing = [f"/task_runs/{task['id']}" for task in tasks.json()]
    if found.json()["state_type"] in (None, *ONGOING):
        ongoing.append(f"/flow_runs/{flow_run}")
    for run in ongoing:
        client.post(f"{run}/set_state", json=crashed).raise_for_status()


def _folder(settings: Settings) -> Path:
    return settings.home / "prefect" / "living"
