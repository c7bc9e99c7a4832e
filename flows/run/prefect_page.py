"""The Prefect page of a run: progress of long stages, table of decisions, results and links.

It is only a display: if the server refuses an artifact, the run continues.
"""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from threading import Thread
from typing import Any
from uuid import UUID

from clepdg.store.store import Store
from clepdg_flows.run.progress import describe, since_first
from clepdg_tasks.engine.node import Node, split_id
from clepdg_tasks.engine.run_history import RunLog
from clepdg_tasks.tracking.client import front_page
from clepdg_tasks.tracking.run_logger import MlflowLogger


def results_page(stages: Mapping[str, Mapping[str, Any]], store: Store, registry: MlflowLogger) -> str:
    """Return the results as markdown.

    Args:
        stages: node id -> its outcome, in order.
    """
    lines = [_mlflow(registry)]
    report = stages.get("report/report", {}).get("key")
    if report:
        folder = store.local("report", report)
        page = registry.page("report", report, "report.html")
        lines.insert(0, f"Report: {f'[report.html]({page}), ' if page else ''}`{folder / 'report.html'}`")
        return "\n\n".join([*lines, (folder / "results.md").read_text()])
    made = {node_id: facts["key"] for node_id, facts in stages.items() if facts.get("key")}
    if made:
        last, _ = split_id(list(made)[-1])
        lines.append(f"No report: this run ends with {last}. Its outputs:")
        lines.append("\n".join(_output(n, key, store, registry) for n, key in made.items() if split_id(n)[0] == last))
    return "\n\n".join(lines)


def _mlflow(registry: MlflowLogger) -> str:
    if not registry.url.startswith("http"):
        run = f", run `{registry.parent}`" if registry.parent else ""
        return f"MLflow: `{registry.url}`{run}"
    own = registry.page()
    if own:
        return f"MLflow: [this run]({own})"
    why = "it did not answer" if registry.notes() else "this run computed nothing and has no page of its own"
    return f"MLflow: [{registry.url}]({front_page(registry.url)}); {why}"


def _output(node_id: str, key: str, store: Store, registry: MlflowLogger) -> str:
    stage, name = split_id(node_id)
    page = registry.page(stage, key)
    return f"- {f'[{stage} {name}]({page})' if page else f'{stage} {name}'}: `{store.local(stage, key)}`"


log = logging.getLogger("clepdg")

FIRST_SECONDS = 2.0  # shorter stages need no bar
EVERY_SECONDS = 1.0  # an update costs about 13 ms


def progress_artifact(node: Node) -> Callable[[int, int], None]:
    """Return a function that updates a task's progress, at most once a second.

    A thread sends one update at a time: Prefect's client can wait minutes for a server that is away, and work does not.
    """
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    started, last, made = time.monotonic(), 0.0, list[UUID]()
    sender: Thread | None = None
    since = since_first()

    def update(done: int, total: int) -> None:
        nonlocal last, sender
        now, lately = time.monotonic(), since(done)
        if not total or now - started < FIRST_SECONDS or (now - last < EVERY_SECONDS and done < total):
            return
        if sender and done >= total:
            sender.join(EVERY_SECONDS)
        if sender is None or not sender.is_alive():
            last = now
            sender = Thread(target=copy_context().run, args=(send, done, total, *lately), daemon=True)
            sender.start()

    def send(done: int, total: int, lately: int, seconds: float) -> None:
        share, text = 100.0 * done / total, describe(node.stage, node.name, done, total, lately, seconds)
        try:
            if made:
                update_progress_artifact(artifact_id=made[0], progress=share, description=text)
            else:
                made.append(create_progress_artifact(progress=share, description=text))  # type: ignore[arg-type]
        except Exception as error:
            log.warning("Prefect did not accept the progress of %s: %s", node.id, _first_line(error))

    return update


def run_artifacts(run: RunLog, store: Store, registry: MlflowLogger) -> None:
    """Create the artifacts of a run that ended: decisions and results."""
    try:
        _run_artifacts(run, store, registry)
    except Exception as error:
        log.warning("Prefect did not accept the decisions and results: %s", _first_line(error))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _run_artifacts(run: RunLog, store: Store, registry: MlflowLogger) -> None:
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
    creates: list[Callable[[], Any]] = [
        lambda: create_table_artifact(
            table=rows, key="decisions", description="Outcome of every stage, and the reason"
        ),
        lambda: create_markdown_artifact(markdown=page, key="results", description="Report, MLflow run and results"),
    ]
    with ThreadPoolExecutor() as pool:  # the server is busy: both requests wait together
        for created in [pool.submit(copy_context().run, create) for create in creates]:
            created.result()
