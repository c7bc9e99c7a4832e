"""Prefect's runs of this machine that were killed: their states say so, since nobody else tells the server.

A worker tells of runs whose process died, but not once it was killed itself; `clep-dg run` has no worker.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from clepdg.errors import StoreError
from tasks import living
from tasks.settings import Settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

log = logging.getLogger("clepdg")

GONE = "The run was killed: its process is gone."


@contextlib.contextmanager
def alive(settings: Settings, flow_run: str) -> Iterator[None]:
    """Let other processes of this machine know that a flow run lives, until its block ends."""
    folder = _folder(settings)
    try:
        held: contextlib.AbstractContextManager[object] = living.hold(folder, flow_run)
    except StoreError:  # the run's own checks name all that can't be written
        held = contextlib.nullcontext()
    with held:
        try:
            yield
        finally:
            living.told(folder, flow_run)


def tell_crashed(settings: Settings, api: str | None = None) -> list[str]:
    """Mark the flow runs of this machine whose process is gone, and their task runs, as Crashed; return their ids.

    Args:
        api: address of Prefect's server; None: the one in use.
    """
    killed = living.ended_untold(_folder(settings))
    if not killed:
        return []
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    try:
        with temporary_settings({PREFECT_API_URL: api} if api else {}), get_client(sync_client=True) as client:
            for flow_run in killed:
                _crashed(client, UUID(flow_run))
                living.told(_folder(settings), flow_run)
    except Exception as error:  # it costs no run anything: the next one tells it
        log.warning("Prefect could not be told of killed runs: %s: %s", type(error).__name__, error)
    return killed


def _crashed(client: "SyncPrefectClient", flow_run: UUID) -> None:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    with contextlib.suppress(ObjectNotFound):  # of another server
        found = client.read_flow_run(flow_run)
        if found.state is None or not found.state.is_final():
            client.set_flow_run_state(flow_run, Crashed(message=GONE), force=True)
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run]))
        for task in client.read_task_runs(flow_run_filter=wanted):
            if task.state is None or not task.state.is_final():
                client.set_task_run_state(task.id, Crashed(message=GONE), force=True)


def _folder(settings: Settings) -> Path:
    return settings.home / "prefect" / "living"
