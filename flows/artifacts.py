"""What the Prefect page of a run shows: progress of long stages, the table of decisions, the results, the links."""

import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from clepdg.store import Store
from flows.page import results_page
from flows.progress import describe
from tasks.registry import Registry
from tasks.stages import Node

FIRST_SECONDS = 2.0  # shorter stages need no bar
EVERY_SECONDS = 1.0  # an update costs about 13 ms


def progress_artifact(node: Node) -> Callable[[int, int], None]:
    """Return a progress function that keeps a progress artifact of the running task, at most once a second."""
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    started, last, made = time.monotonic(), 0.0, list[UUID]()

    def update(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if not total or now - started < FIRST_SECONDS or (now - last < EVERY_SECONDS and done < total):
            return
        last = now
        share, said = 100.0 * done / total, describe(node.stage, node.name, done, total, now - started)
        if made:
            update_progress_artifact(artifact_id=made[0], progress=share, description=said)
        else:
            made.append(create_progress_artifact(progress=share, description=said))  # type: ignore[arg-type]

    return update


def run_artifacts(stages: Mapping[str, Mapping[str, Any]], store: Store, registry: Registry) -> None:
    """Leave the decisions, the links and the results of a run that ended."""
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    rows = [
        {
            "stage": node_id.replace("/", " ", 1),
            "outcome": facts["outcome"],
            "why": str(facts.get("reason", "")).splitlines()[0] if facts.get("reason") else "",
            "seconds": facts.get("seconds", ""),
        }
        for node_id, facts in stages.items()
    ]
    create_table_artifact(table=rows, key="decisions", description="What became of every stage, and why")
    page = results_page(stages, store, registry)
    create_markdown_artifact(markdown=page, key="results", description="Report, MLflow run and results")
