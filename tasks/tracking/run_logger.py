"""Log a flow run and its stages to MLflow, and register their models.

Each computed stage has an MLflow run under the flow's parent run. mlflow.json beside a stored output marks it as
registered: a run that computes nothing never imports mlflow, and registers outputs that an unavailable server missed.
"""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from clepdg.redaction import scrub
from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg_tasks.engine.node import Node
from clepdg_tasks.host import liveness
from clepdg_tasks.host.settings import Settings
from clepdg_tasks.tracking.champion import tag_classifiers
from clepdg_tasks.tracking.client import (
    UNAVAILABLE,
    connect,
    end_killed_runs,
    experiment_id,
    first_line,
    restore_experiment,
    run_page,
    tracking_identity,
    tracking_url,
    where_to_view,
)
from clepdg_tasks.tracking.lineage import fold_tags, git_commit, stage_run_name
from clepdg_tasks.tracking.marker import read_marker, write_marker
from clepdg_tasks.tracking.model_cards import FLOW, run_description
from clepdg_tasks.tracking.model_registry import is_registered_kind, register
from clepdg_tasks.tracking.previews import log_files, log_summary
from clepdg_tasks.tracking.run_data import Monitors, Points, figures_of, flatten, log_inputs, log_params, log_points

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("clepdg")


@dataclass
class MlflowLogger:
    """Logs a flow run to MLflow, and connects with the first computed stage.

    Errors of MLflow are logged and noted, and never fail a stage.
    """

    settings: Settings
    preset: str
    store: Store
    parameters: Mapping[str, Any]
    tags: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    _client: Any = None
    _threads: threading.RLock = field(default_factory=threading.RLock)
    _experiment: str = ""
    _down: bool = False
    _restored: bool = False
    _failures: list[str] = field(default_factory=list)
    _registered_late: int = 0
    _monitors: Monitors = field(default_factory=Monitors)
    _runs: dict[str, str | None] = field(default_factory=dict)  # key of a registered output -> its MLflow run

    @property
    def url(self) -> str:
        """Return where to view MLflow: an address, or a command."""
        return where_to_view(self.settings)

    @cached_property
    def identity(self) -> str:
        """Return a name of the tracking store that does not depend on its address."""
        return tracking_identity(self.settings)

    def notes(self) -> list[str]:
        """Return messages about failed and late registrations."""
        notes = []
        if self._failures:
            when = "MLflow answers" if self._down else "that is mended"
            notes.append(f"MLflow did not accept {self._failures[0]}. Once {when}, the same command registers it.")
        if self._restored:
            notes.append("MLflow's experiment was deleted; it is restored, since registered versions link to its runs.")
        if self._registered_late:
            notes.append(f"Outputs of earlier runs were registered in MLflow: {self._registered_late}.")
        return notes

    @cached_property
    def _processes(self) -> FileLock:
        folder = self.store.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / "mlflow", thread_local=False)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Lock registration against other runs, which would add the same versions."""
        with self._threads, self._processes:
            yield

    def client(self) -> "MlflowClient":
        """Return the connected client; the first call starts the parent run."""
        with self._threads:
            if self._client is None:
                self._open()
            client: MlflowClient = self._client
            return client

    def _open(self) -> None:
        with self._exclusive():
            opened = connect(self.settings)
            self.tags = {**self.tags, "git_commit": git_commit()}
            end_killed_runs(opened, self.store)
            self._restored = restore_experiment(opened, self.preset)
            experiment = experiment_id(opened, self.settings, self.preset)
            run = opened.create_run(
                experiment, run_name=f"{self.preset} {self.tags['run']}", tags={**self.tags, **FLOW}
            )
            log_params(opened, run.info.run_id, self.parameters)
            self.parent, self._experiment, self._client = run.info.run_id, experiment, opened

    def _failed(self, what: str, error: Exception) -> None:
        """Note and log an error; if MLflow does not answer, stop logging to it."""
        is_bug = isinstance(error, TypeError | KeyError | AttributeError | IndexError)
        self._down = not is_bug and getattr(error, "error_code", "INTERNAL_ERROR") in UNAVAILABLE
        self._failures.append(f"{what}: {first_line(error)}")
        log.warning("MLflow did not accept %s; the next run registers what is missing: %s", what, first_line(error))

    def start(self, node: Node, key: str, *, late: bool = False) -> str | None:
        """Start the MLflow run of a stage; return its id, or None on an error."""
        if self._down:
            return None
        try:
            with self._threads:
                client = self.client()
                tags = {**self.tags, **fold_tags(node), "stage": node.stage, "name": node.name, "stage_key": key}
                tags |= {"mlflow.parentRunId": str(self.parent), "mlflow.note.content": run_description(node.stage)}
                run = client.create_run(self._experiment, run_name=stage_run_name(node), tags=tags)
                log_params(client, run.info.run_id, flatten(node.config))
                if not late:
                    self._monitors.start(node.stage, run.info.run_id)
                return str(run.info.run_id)
        except Exception as error:  # MLflow raises many types; none of them may fail a training
            self._failed(f"the start of {node.id}", error)
            return None

    def log_metrics(self, run_id: str | None, points: Points, model_id: str | None = None) -> None:
        """Log metrics (name, value, step) of a stage's run and its logged model."""
        if run_id is None or not points or self._down:
            return
        try:
            with self._threads:
                log_points(self.client(), run_id, points, model_id)
        except Exception as error:
            self._failed("metrics", error)

    def fail(self, run_id: str | None, error: BaseException) -> None:
        """End a stage's run as FAILED, or KILLED if the flow run was stopped."""
        self._monitors.finish(run_id)
        if run_id is not None and not self._down:
            try:
                with self._threads:
                    self.client().set_tag(run_id, "error", scrub(str(error))[:4000])
                    self.client().set_terminated(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
            except Exception as second:
                self._failed("a failure", second)

    def finish(self, node: Node, record: Record, records: Mapping[str, Record], run_id: str | None) -> None:
        """Log a stage's output and register its model, unless MLflow has it."""
        self._monitors.finish(run_id)
        if self._down:
            return
        if run_id is None and self.is_registered(record):
            return
        try:
            with self._exclusive():
                if run_id is None and self.is_registered(record):
                    return
                late = run_id is None
                run_id = run_id or self.start(node, record.key, late=True)
                if run_id is None:
                    return
                marker = self._log_output(node, record, records, run_id)
                self.client().set_terminated(run_id, "FINISHED")
                write_marker(self.store, record, marker)
                self._runs[record.key] = run_id
                self._registered_late += late
        except Exception as error:
            self._failed(node.id, error)

    def _log_output(self, node: Node, record: Record, records: Mapping[str, Record], run_id: str) -> dict[str, Any]:
        """Log an output's inputs, metrics, model and artifacts; return its marker."""
        client = self.client()
        log_inputs(client, run_id, node, records, self.store)
        self.log_metrics(run_id, figures_of(record))
        for name, value in record.digests.items():
            client.set_tag(run_id, f"digest.{name}", value)
        marker: dict[str, Any] = {"tracking": self.identity, "run_id": run_id, "experiment": self._experiment}
        if is_registered_kind(record.stage, node.tags):
            run = self.tags.get("run", "-")
            marker |= register(client, self.store, node, record, records, run_id, preset=self.preset, run=run)
        if record.stage == "evaluate":
            tag_classifiers(client, self.store, node, record, records, self.log_metrics)
        log_files(client, run_id, record, self.store)
        return marker

    def page(self, stage: str = "", key: str = "", artifact: str = "") -> str | None:
        """Return the URL of the MLflow page of an output's run, or its artifact.

        Without a stage: of this flow run. None where there is no page.
        """
        if not stage:
            return run_page(tracking_url(self.settings), self._experiment, self.parent) if self.parent else None
        record = self.store.lookup(stage, key)
        marker = read_marker(self.store, record) if isinstance(record, Record) else None
        if marker is None or "experiment" not in marker:
            return None
        return run_page(tracking_url(self.settings), marker["experiment"], marker["run_id"], artifact)

    def is_registered(self, record: Record) -> bool:
        """Return whether MLflow has an output; a positive result is cached."""
        if record.key in self._runs:
            return True
        marker = read_marker(self.store, record)
        if marker is None or marker.get("tracking") != self.identity:
            return False
        self._runs[record.key] = marker.get("run_id")
        return True

    def close(self, stages: Mapping[str, Mapping[str, Any]], status: str) -> None:
        """End the parent run, if it was started, and log stages.json.

        The file lists all stages with the MLflow runs that computed them.
        """
        if self._client is None or self.parent is None:
            liveness.mark_reported(self.store.root / "runs", self.tags["run"])
            return
        try:
            linked = {n: {**facts, "mlflow_run": self._runs.get(str(facts.get("key")))} for n, facts in stages.items()}
            self._client.log_dict(self.parent, linked, "stages.json")
            log_summary(self._client, self.parent, self.store, stages)
            self._client.set_terminated(self.parent, status)
            liveness.mark_reported(self.store.root / "runs", self.tags["run"])
        except Exception as error:
            self._failed("the end of the run", error)
