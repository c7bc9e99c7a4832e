"""What the Prefect page of a run shows: progress of long stages, the table of decisions, the results, the links.

A page is for looking at: a server that does not take one costs no run its result.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from threading import Thread
from typing import Any
from uuid import UUID

from clepdg.store import Store
from flows.page import results_page
from flows.progress import describe, since_first
from tasks.registry import Registry
from tasks.runs import RunLog
from tasks.stages import Node

log = logging.getLogger("clepdg")

FIRST_SECONDS = 2.0  # shorter stages need no bar
EVERY_SECONDS = 1.0  # an update costs about 13 ms


def progress_artifact(node: Node) -> Callable[[int, int], None]:
    """Return a progress function that keeps a progress artifact of the running task, at most once a second.

    Prefect is told by a thread of its own, one update at a time: work never waits for a server, which Prefect's client
    does for minutes when it is away.
    """
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    started, last, made = time.monotonic(), 0.0, list[UUID]()
    telling: Thread | None = None
    since = since_first()

    def update(done: int, total: int) -> None:
        nonlocal last, telling
        now, lately = time.monotonic(), since(done)
        if not total or now - started < FIRST_SECONDS or (now - last < EVERY_SECONDS and done < total):
            return
        if telling and done >= total:
            telling.join(EVERY_SECONDS)
        if telling is None or not telling.is_alive():
            last = now
            telling = Thread(target=copy_context().run, args=(tell, done, total, *lately), daemon=True)
            telling.start()

    def tell(done: int, total: int, lately: int, seconds: float) -> None:
        share, said = 100.0 * done / total, describe(node.stage, node.name, done, total, lately, seconds)
        try:
            if made:
                update_progress_artifact(artifact_id=made[0], progress=share, description=said)
            else:
                made.append(create_progress_artifact(progress=share, description=said))  # type: ignore[arg-type]
        except Exception as error:
            log.warning("Prefect did not take the progress of %s: %s", node.id, _said(error))

    return update


def run_artifacts(run: RunLog, store: Store, registry: Registry) -> None:
    """Leave the decisions, the links and the results of a run that ended."""
    try:
        _run_artifacts(run, store, registry)
    except Exception as error:
        log.warning("Prefect did not take the decisions and results: %s", _said(error))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _run_artifacts(run: RunLog, store: Store, registry: Registry) -> None:
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    stages = run.stages
    rows = [
        {
            "stage": node_id.replace("/", " ", 1),
            "outcome": facts["outcome"],
            "why": str(facts.get("reason", "")).splitlines()[0] if facts.get("reason") else "",
            "seconds": facts.get("seconds", ""),
        }
        for node_id, facts in stages.items()
    ]
    rows = [{"stage": "sources", "outcome": "Note", "why": note, "seconds": ""} for note in run.notes] + rows
    page = "\n".join([*(f"**{note}**\n" for note in run.notes), results_page(stages, store, registry)])
    tellings: list[Callable[[], Any]] = [
        lambda: create_table_artifact(table=rows, key="decisions", description="What became of every stage, and why"),
        lambda: create_markdown_artifact(markdown=page, key="results", description="Report, MLflow run and results"),
    ]
    with ThreadPoolExecutor() as pool:  # the server is busy with the stages' states: it is waited for once
        for told in [pool.submit(copy_context().run, telling) for telling in tellings]:
            told.result()
