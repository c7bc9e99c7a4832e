"""Write inputs, params and metrics to MLflow's runs."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from clepdg.hashing import plain
from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg_tasks.engine.node import Node

if TYPE_CHECKING:
    from mlflow import MlflowClient


PROFILE: Final = ("utterances", "seconds", "speakers", "emotions", "splits", "sample_rate", "tars", "bytes")
Points = Sequence[tuple[str, float, int]]  # metrics: name, value, step
LONG: Final = ("backbone", "features", "clep", "acpt", "audio_embeddings")
SECONDS: Final = 10.0  # between samples of the machine's load
TYPES: Final[Mapping[str, Mapping[str, Any]]] = {  # of our tables -> MLflow's
    "int64": {"type": "long"},
    "int32": {"type": "integer"},
    "float64": {"type": "double"},
    "list": {"type": "array", "items": {"type": "string"}},
}
SORTED: Final[Mapping[str, str]] = {"low": "uar_low", "high": "uar_high"}  # figure -> a name that stands beside uar


def log_inputs(client: "MlflowClient", run_id: str, node: Node, records: Mapping[str, Record], store: Store) -> None:
    """Log the corpora that a stage reads as dataset inputs.

    Each has its digest, its columns, its counts, and its address in the store.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    for ref in dict.fromkeys(node.inputs.values()):
        if ref.stage not in ("shard", "index"):
            continue
        record = records[ref.id]
        address = store.address(record.stage, record.key)
        scheme, found, _ = address.partition("://")
        dataset = Dataset(
            name=f"{ref.stage} {ref.name}",
            digest=record.digests[ref.part or "content"][:36],
            source_type=scheme if found else "local",
            source=json.dumps({"uri": address}),
            schema=json.dumps({"mlflow_colspec": _columns(record.stage)}),
            profile=json.dumps({name: record.figures[name] for name in PROFILE if name in record.figures}),
        )
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", ref.part or "evaluation")]))
    if inputs:
        client.log_inputs(run_id, inputs)


def _columns(stage: str) -> list[dict[str, Any]]:
    """Return the columns of an index's table, or of a shard's offset table."""
    from clepdg.dataset import shards, tables

    columns = tables.COLUMNS if stage == "index" else shards.COLUMNS
    return [{"name": name, "required": True, **TYPES.get(kind, {"type": kind})} for name, kind in columns.items()]


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested values to dotted names."""
    if not prefix:
        value = plain(value)
    if not isinstance(value, dict):
        return {prefix: value}
    return {n: v for key, item in value.items() for n, v in flatten(item, f"{prefix}.{key}" if prefix else key).items()}


def log_params(client: "MlflowClient", run_id: str, values: Mapping[str, Any]) -> None:
    """Log nested values as params of a run."""
    from mlflow.entities import Param

    params = [Param(metric_name(name), str(value)[:6000]) for name, value in flatten(values).items()]
    for start in range(0, len(params), 100):
        client.log_batch(run_id, params=params[start : start + 100])


def log_points(client: "MlflowClient", run_id: str, points: Points, model_id: str | None = None) -> None:
    """Log metrics (name, value, step) of a run, and of a model logged in it."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    for start in range(0, len(points), 900):
        part = points[start : start + 900]
        batch = [Metric(name, value, now, step, model_id, run_id=run_id) for name, value, step in part]
        client.log_batch(run_id, metrics=batch)


def figures_of(record: Record) -> list[tuple[str, float, int]]:
    """Return an output's figures as metrics; a method's as `METHOD/uar`."""
    found = {n: v for n, v in flatten(record.figures).items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return [(metric_name(_sorted(name)), float(value), 0) for name, value in found.items()]


def _sorted(name: str) -> str:
    """Return a name under which figures of a method stand together."""
    if not name.startswith("headline."):
        return name
    _, method, figure = name.split(".", 2)
    return f"{method}/{SORTED.get(figure, figure)}"


def metric_name(name: str) -> str:
    """Replace the characters of a name that MLflow refuses."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)[:250]


@dataclass
class Monitors:
    """Log a machine's load during long stages, as system metrics.

    Stages of less than 10 s log none. Those of NVIDIA GPUs need the package nvidia-ml-py.
    """

    _running: dict[str, Any] = field(default_factory=dict)  # MLflow run -> its monitor

    def start(self, stage: str, run_id: str) -> None:
        """Start a thread for a stage's run, if such stages take long."""
        if stage in LONG:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            monitor = self._running[run_id] = SystemMetricsMonitor(run_id, sampling_interval=SECONDS)
            monitor.start()

    def finish(self, run_id: str | None) -> None:
        """End the thread of a stage's run, if it has one."""
        if run_id and (monitor := self._running.pop(run_id, None)):
            monitor.finish()
