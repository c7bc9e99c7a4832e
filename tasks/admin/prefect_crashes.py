"""Prefect's runs of this machine that were killed: their states say so, since nobody else tells the server.

A worker tells of runs whose process died, but not once it was killed itself; `clep-dg run` has no worker.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clepdg.errors import StoreError
from tasks.host import liveness
from tasks.host.settings import Settings

if TYPE_CHECKING:
    import httpx

log = logging.getLogger("clepdg")

ONGOING = ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"]
GONE = "The run was killed: its process is gone."


@contextlib.contextmanager
def alive(settings: Settings, flow_run: str) -> Iterator[None]:
    """Let other processes of this machine know that a flow run lives, until its block ends."""
    folder = _folder(settings)
    try:
        held: contextlib.AbstractContextManager[object] = liveness.hold(folder, flow_run)
    except StoreError:  # the run's own checks name all that can't be written
        held = contextlib.nullcontext()
    with held:
        try:
            yield
        finally:
            liveness.told(folder, flow_run)


def tell_crashed(settings: Settings, api: str | None) -> list[str]:
    """Mark the flow runs of this machine whose process is gone, and their task runs, as Crashed; return their ids.

    Args:
        api: address of Prefect's server; None: there is none to tell.
    """
    killed = liveness.ended_untold(_folder(settings)) if api else []
    if not killed:
        return []
    import httpx

    try:
        with httpx.Client(base_url=str(api).rstrip("/"), timeout=10.0, trust_env=False) as client:
            for flow_run in killed:
                _crashed(client, flow_run)
                liveness.told(_folder(settings), flow_run)
    except httpx.HTTPError as error:  # it costs no run anything: the next one tells it
        log.warning("Prefect could not be told of killed runs: %s: %s", type(error).__name__, error)
    return killed


def _crashed(client: "httpx.Client", flow_run: str) -> None:
    found = client.get(f"/flow_runs/{flow_run}")
    if found.status_code == 404:  # of another server
        return
    found.raise_for_status()
    mine = {"flow_runs": {"id": {"any_": [flow_run]}}, "task_runs": {"state": {"type": {"any_": ONGOING}}}}
    tasks = client.post("/task_runs/filter", json=mine)
    tasks.raise_for_status()
    ended = {"state": {"type": "CRASHED", "name": "Crashed", "message": GONE}, "force": True}
    ongoing = [f"/task_runs/{task['id']}" for task in tasks.json()]
    if found.json()["state_type"] in (None, *ONGOING):
        ongoing.append(f"/flow_runs/{flow_run}")
    for run in ongoing:
        client.post(f"{run}/set_state", json=ended).raise_for_status()


def _folder(settings: Settings) -> Path:
    return settings.home / "prefect" / "living"
