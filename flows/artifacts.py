"""What the Prefect page of a run shows: progress of long stages, the table of decisions, the results, the links."""

import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from clepdg.store import Store
from flows.progress import describe
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


def run_artifacts(
    stages: Mapping[str, Mapping[str, Any]], store: Store, mlflow_url: str, mlflow_run: str | None
) -> None:
    """Leave the decisions, the results and the links of a run that ended."""
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
    report = stages.get("report/report", {}).get("key")
    lines = []
    if report:
        folder = store.local("report", report)
        lines += [
            (folder / "results.md").read_text(),
            "",
            f"Report: [{folder / 'report.html'}]({(folder / 'report.html').as_uri()})",
            "",
        ]
    if mlflow_url.startswith("http"):
        lines.append(f"MLflow: [{mlflow_url}]({mlflow_url})" + (f", run `{mlflow_run}`" if mlflow_run else ""))
    else:
        lines.append(
            f"MLflow: `mlflow ui --backend-store-uri {mlflow_url}`" + (f", run `{mlflow_run}`" if mlflow_run else "")
        )
    create_markdown_artifact(markdown="\n".join(lines), key="results", description="Results, report and MLflow run")
