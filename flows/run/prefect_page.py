"""The Prefect page of a run: progress of long stages, table of decisions, results and links.

It is only a display: if the server refuses an artifact, the run continues.
"""

import base64
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from threading import Thread
from typing import Any, Final
from uuid import UUID

from clepdg.hashing import read_json
from clepdg.report.summary import SUMMARY, lay_out
from clepdg.report.tables import cut
from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg_flows.run.latest_report import FOLDER, PAGE
from clepdg_flows.run.progress import describe, since_first
from clepdg_tasks.engine.node import Node
from clepdg_tasks.engine.run_history import RunLog
from clepdg_tasks.tracking.client import front_page
from clepdg_tasks.tracking.run_logger import MlflowLogger


def results_page(records: Sequence[Record], store: Store, run_logger: MlflowLogger) -> str:
    """Return the results as markdown: links, the run's summary, a picture.

    Args:
        records: outputs of the run, in order.
    """
    lines = [_mlflow(run_logger)]
    report = next((record for record in records if record.stage == "report"), None)
    if report:
        folder, home = store.local(report.stage, report.key), run_logger.settings.home
        page = run_logger.page(report.stage, report.key, PAGE)
        kept = (home / PAGE).exists()
        lines.insert(0, f"Report: {f'[{PAGE}]({page}), ' if page else ''}`{(home if kept else folder) / PAGE}`")
        lines.append(f"Downloads (tables, figures): `{home / FOLDER if kept else folder}`")
        summary = "\n".join(lay_out(read_json(folder / SUMMARY), more="in the report"))
        return "\n\n".join([*lines, f"```text\n{summary}\n```", *_picture(folder)])
    if records:
        last = records[-1].stage
        lines.append(f"No report: this run ends with {last}. Its outputs:")
        lines.append("\n".join(_output(record, store, run_logger) for record in records if record.stage == last))
    return "\n\n".join(lines)


def _picture(folder: Path) -> list[str]:
    """Return the report's first chart in the page itself, if there is one."""
    path = folder / "charts" / f"{METHODS}.svg"
    if not path.exists():
        return []
    data = base64.b64encode(path.read_bytes()).decode()
    return [f"![UAR of all methods](data:image/svg+xml;base64,{data})"]


def _mlflow(run_logger: MlflowLogger) -> str:
    if not run_logger.url.startswith("http"):
        run = f", run `{run_logger.parent}`" if run_logger.parent else ""
        return f"MLflow: `{run_logger.url}`{run}"
    own = run_logger.page()
    if own:
        return f"MLflow: [this run]({own})"
    why = "it did not answer" if run_logger.notes() else "this run computed nothing and has no page of its own"
    return f"MLflow: [{run_logger.url}]({front_page(run_logger.url)}); {why}"


def _output(record: Record, store: Store, run_logger: MlflowLogger) -> str:
    name, page = f"{record.stage} {record.name}", run_logger.page(record.stage, record.key)
    return f"- {f'[{name}]({page})' if page else name}: `{store.local(record.stage, record.key)}`"


log = logging.getLogger("clepdg")

METHODS: Final = "methods"  # name of the verdict's chart
ORDER: Final = ("Failed", "Skipped", "Completed", "Reused")  # of the decisions: what was stale comes first
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


def run_artifacts(run: RunLog, records: Mapping[str, Record], store: Store, run_logger: MlflowLogger) -> None:
    """Create the artifacts of a run that ended: decisions and results."""
    try:
        _run_artifacts(run, records, store, run_logger)
    except Exception as error:
        log.warning("Prefect did not accept the decisions and results: %s", _first_line(error))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _run_artifacts(run: RunLog, records: Mapping[str, Record], store: Store, run_logger: MlflowLogger) -> None:
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    outputs = [records[node_id] for node_id in run.stages if node_id in records]
    stages = sorted(run.stages.items(), key=lambda item: ORDER.index(item[1]["outcome"]))
    rows = [
        {
            "stage": node_id.replace("/", " ", 1),
            "outcome": facts["outcome"],
            "seconds": facts.get("seconds", ""),
            "why": cut(str(facts.get("reason") or "").partition("\n")[0]),
        }
        for node_id, facts in stages
    ]
    rows = [{"stage": "sources", "outcome": "Note", "seconds": "", "why": note} for note in run.notes] + rows
    page = "\n".join([*(f"**{note}**\n" for note in run.notes), results_page(outputs, store, run_logger)])
    creates: list[Callable[[], Any]] = [
        lambda: create_table_artifact(
            table=rows,
            key="decisions",
            description=f"Outcome of every stage, and the reason (whole in the store's runs/{run.path.name})",
        ),
        lambda: create_markdown_artifact(
            markdown=page, key="results", description="Report, MLflow run, verdict and main methods"
        ),
    ]
    with ThreadPoolExecutor() as pool:  # the server is busy: both requests wait together
        for created in [pool.submit(copy_context().run, create) for create in creates]:
            created.result()
