"""Let Prefect run a deployment's flow again later, where that can help: a source, a store or a server was away."""

import logging
from typing import Final

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRunPolicy
from prefect.events.worker import EventsWorker
from prefect.runtime import flow_run

from clepdg.errors import ClepError

DELAYS: Final = (60, 300, 1200)  # seconds before each retry
DRAIN_SECONDS: Final = 5.0

log = logging.getLogger("clepdg")


def retry_later(error: ClepError) -> None:
    """Have Prefect retry a flow run that ends with an error, if that can help.

    The flow itself has no retries, since a wrong setting stays wrong. A run of the command line is not retried: its
    user sees the error.
    """
    from prefect.runtime import deployment

    count = flow_run.run_count
    if not (error.away and deployment.id) or count > len(DELAYS):
        return
    delay = DELAYS[count - 1]
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, empirical_policy=FlowRunPolicy(retries=count, retry_delay=delay))
    log.warning("%s Retry %d of %d in %d s.", error.what, count, len(DELAYS), delay)


def send_events() -> None:
    """Send waiting events: alerts need a run's heartbeat before its end."""
    EventsWorker.drain_all(timeout=DRAIN_SECONDS)
