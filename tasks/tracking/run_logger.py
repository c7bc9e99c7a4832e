"""MLflow: one run per computed stage under the flow's parent run, and what they bring into the registered models.

After MLflow accepted an output, mlflow.json is written beside it, so that an up-to-date run never imports mlflow, and
what was missed while a server was down is made up by the next run.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from clepdg.config.folds import SUPERVISED
from clepdg.config.rows import MAIN_ROW
from clepdg.errors import StoreError
from clepdg.store.record import Record
from clepdg.store.store import Store
from tasks.engine.node import Node
from tasks.host import liveness
from tasks.host.settings import Settings
from tasks.tracking import compare
from tasks.tracking.client import (
    connect,
    end_killed_runs,
    experiment_id,
    first_line,
    flat,
    how_to_look,
    log_inputs,
    log_params,
    metric_name,
    run_page,
    shown,
    tracking_identity,
    tracking_url,
)
from tasks.tracking.lineage import first_seed, fold_tags, git_commit
from tasks.tracking.model_cards import FLOW, run_description
from tasks.tracking.model_registry import CHAMPION, MODELS, register, set_champion

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("clepdg")

MARKER = "mlflow.json"
AWAY = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")  # MLflow's codes of a server that does not answer


@dataclass
class Registry:
    """What one flow run tells MLflow. Nothing is imported or opened before the first stage that was computed."""

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
    _untold: list[str] = field(default_factory=list)
    _made_up: int = 0
    _runs: dict[str, str | None] = field(default_factory=dict)  # key of what MLflow has -> its run

    @property
    def url(self) -> str:
        """Where a person sees what MLflow holds."""
        return how_to_look(self.settings)

    @cached_property
    def identity(self) -> str:
        """Where the accepted outputs are registered, whatever the address."""
        return tracking_identity(self.settings)

    def notes(self) -> list[str]:
        """Return what a person should know: what MLflow did not take, and what it was told of belatedly."""
        notes = []
        if self._untold:
            first = f"MLflow did not take {self._untold[0]}"
            notes.append(f"{first}. The same command makes up what is missing, once MLflow answers.")
        if self._made_up:
            notes.append(f"MLflow was told of what it had missed before (outputs: {self._made_up}).")
        return notes

    @cached_property
    def _processes(self) -> FileLock:
        folder = self.store.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / "mlflow", thread_local=False)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one run at a time look what MLflow has and add what is missing: two would both add it."""
        with self._threads, self._processes:
            yield

    def client(self) -> "MlflowClient":
        """Return the client, connected; the first call opens the experiment and the parent run."""
        with self._threads:
            if self._client is None:
                self._open()
            client: MlflowClient = self._client
            return client

    def _open(self) -> None:
        with self._alone():
            opened = connect(self.settings)
            self.tags = {**self.tags, "git_commit": git_commit()}
            end_killed_runs(opened, self.store)
            experiment = experiment_id(opened, self.settings, self.preset)
            run = opened.create_run(experiment, run_name=f"clep-dg {self.preset}", tags={**self.tags, **FLOW})
            log_params(opened, run.info.run_id, self.parameters)
            self.parent, self._experiment, self._client = run.info.run_id, experiment, opened

    def _missed(self, what: str, error: Exception) -> None:
        """Say what MLflow did not take; if it is away, leave it alone for the rest of the run."""
        ours = isinstance(error, TypeError | KeyError | AttributeError | IndexError)
        self._down = not ours and getattr(error, "error_code", "INTERNAL_ERROR") in AWAY
        self._untold.append(f"{what}: {first_line(error)}")
        log.warning("MLflow did not take %s; the next run makes up what is missing: %s", what, first_line(error))

    def start(self, node: Node, key: str) -> str | None:
        """Open the MLflow run of a stage that is being computed; None if MLflow does not answer."""
        if self._down:
            return None
        try:
            with self._threads:
                client = self.client()
                tags = {
                    **self.tags,
                    "mlflow.parentRunId": str(self.parent),
                    "stage": node.stage,
                    "name": node.name,
                    "stage_key": key,
                    "mlflow.note.content": run_description(node.stage),
                    **fold_tags(node),
                }
                run = client.create_run(self._experiment, run_name=f"{node.stage} {node.name}", tags=tags)
                log_params(client, run.info.run_id, flat(node.config))
                return str(run.info.run_id)
        except Exception as error:  # MLflow raises many kinds; none of them may cost a training
            self._missed(f"the start of {node.id}", error)
            return None

    def log_metrics(self, run_id: str | None, points: list[tuple[str, float, int]]) -> None:
        """Record metrics (name, value, step) of a stage's run."""
        if run_id is None or not points or self._down:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        try:
            with self._threads:
                for start in range(0, len(points), 900):
                    batch = [Metric(name, value, now, step) for name, value, step in points[start : start + 900]]
                    self.client().log_batch(run_id, metrics=batch)
        except Exception as error:
            self._missed("metrics", error)

    def fail(self, run_id: str | None, error: BaseException) -> None:
        """End a stage's run as failed, or as killed where the whole run was stopped."""
        if run_id is not None and not self._down:
            try:
                with self._threads:
                    self.client().set_tag(run_id, "error", str(error)[:4000])
                    self.client().set_terminated(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
            except Exception as second:
                self._missed("a failure", second)

    def finish(self, node: Node, record: Record, records: Mapping[str, Record], run_id: str | None) -> None:
        """Record a stage's output and register its model, unless MLflow already has it."""
        if self._down:
            return
        if run_id is None and self.accepted(record):
            return
        try:
            with self._alone():
                if run_id is None and self.accepted(record):
                    return
                made_up = run_id is None
                run_id = run_id or self.start(node, record.key)
                if run_id is None:
                    return
                client = self.client()
                log_inputs(client, run_id, node, records, self.store)
                figures = {
                    name: value for name, value in flat(record.figures).items() if isinstance(value, int | float)
                }
                self.log_metrics(run_id, [(metric_name(n), float(v), 0) for n, v in figures.items()])
                for name, value in record.digests.items():
                    client.set_tag(run_id, f"digest.{name}", value)
                facts: dict[str, Any] = {"tracking": self.identity, "run_id": run_id, "experiment": self._experiment}
                if record.stage in MODELS:
                    run = self.tags.get("run", "-")
                    facts |= register(client, self.store, node, record, records, run_id, preset=self.preset, run=run)
                if record.stage == "evaluate":
                    self._tag_classifiers(client, node, record, records)
                if record.stage in ("index", "evaluate", "report"):
                    for path in sorted(self.store.local(record.stage, record.key).iterdir()):
                        if path.name not in ("stage.json", MARKER):
                            client.log_artifact(run_id, str(path))
                client.set_terminated(run_id, "FINISHED")
                self.store.documents.write(self.store.beside(record, MARKER), facts)
                self._runs[record.key] = run_id
                self._made_up += made_up
        except Exception as error:
            self._missed(node.id, error)

    def page(self, stage: str = "", key: str = "", artifact: str = "") -> str | None:
        """Return the address of the page of the run that computed an output, or of an artifact of it.

        Without a stage, that of this run, if it opened one. None where no server shows it.
        """
        url = tracking_url(self.settings)
        if not stage:
            return run_page(url, self._experiment, self.parent) if self.parent else None
        record = self.store.lookup(stage, key)
        marker = read_marker(self.store, record) if isinstance(record, Record) else None
        if marker is None or "experiment" not in marker:
            return None
        return run_page(url, marker["experiment"], marker["run_id"], artifact)

    def accepted(self, record: Record) -> bool:
        """Tell whether MLflow has an output; what it was found to have is not looked up again."""
        if record.key in self._runs:
            return True
        marker = read_marker(self.store, record)
        if marker is None or marker.get("tracking") != self.identity:
            return False
        self._runs[record.key] = marker.get("run_id")
        return True

    def _tag_classifiers(
        self, client: "MlflowClient", node: Node, record: Record, records: Mapping[str, Record]
    ) -> None:
        """Give each classifier's version its headline metrics, and let the eligible one contend for champion."""
        for name, ref in node.inputs.items():
            if not name.startswith("classifier/"):
                continue
            marker = read_marker(self.store, records[ref])
            row, _, seed = name.removeprefix("classifier/").partition(".")
            if marker is None or "version" not in marker:
                continue
            tags = {
                **record.figures["headline"].get(row, {}),
                "test_digest": record.digests["test"],
                "evaluate_key": record.key,
            }
            figures = [(n, float(v), 0) for n, v in tags.items() if isinstance(v, int | float)]
            self.log_metrics(marker["run_id"], figures)
            for tag, value in tags.items():
                client.set_model_version_tag(marker["model"], marker["version"], tag, shown(value))
            if (node.name, row) == (SUPERVISED, MAIN_ROW) and seed == first_seed(node):
                self._contend(client, marker["model"], int(marker["version"]))

    def _contend(self, client: "MlflowClient", name: str, number: int) -> None:
        """Make a version champion if there is none, or if it beats the champion on the same test utterances."""
        champion = client.get_registered_model(name).aliases.get(CHAMPION)
        if champion is None:
            set_champion(client, name, number, "the first version")
        elif int(champion) != number:
            new, old = (client.get_model_version(name, str(n)).tags for n in (number, champion))
            difference = compare.paired_difference(self.store, new, old)
            if compare.convinces(difference):
                why = f"UAR {compare.shown_difference(difference)} against version {champion}"
                set_champion(client, name, number, why)

    def close(self, stages: Mapping[str, Mapping[str, Any]], status: str) -> None:
        """End the parent run, if one was opened, with the list of all stages and the runs that computed them."""
        if self._client is None or self.parent is None:
            liveness.told(self.store.root / "runs", self.tags["run"])
            return
        try:
            linked = {
                node_id: {**facts, "mlflow_run": self._runs.get(facts.get("key") or "")}
                for node_id, facts in stages.items()
            }
            self._client.log_dict(self.parent, linked, "stages.json")
            self._client.set_terminated(self.parent, status)
            liveness.told(self.store.root / "runs", self.tags["run"])
        except Exception as error:
            self._missed("the end of the run", error)


def read_marker(store: Store, record: Record) -> dict[str, Any] | None:
    """Return what MLflow accepted of an output: tracking, run_id, and model and version if it is registered."""
    try:
        marker = store.documents.read(store.beside(record, MARKER))
        return marker if isinstance(marker, dict) else None
    except StoreError:
        return None
