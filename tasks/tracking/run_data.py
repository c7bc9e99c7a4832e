"""Write inputs, params and metrics to MLflow's runs."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clepdg.hashing import plain
from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg_tasks.engine.node import Node

if TYPE_CHECKING:
    from mlflow import MlflowClient


def log_inputs(client: "MlflowClient", run_id: str, node: Node, records: Mapping[str, Record], store: Store) -> None:
    """Log the corpora that a stage reads as dataset inputs with digests."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    for ref in dict.fromkeys(node.inputs.values()):
        if ref.stage not in ("shard", "index"):
            continue
        record = records[ref.id]
        dataset = Dataset(
            name=f"{ref.stage} {ref.name}",
            digest=record.digests[ref.part or "content"][:36],
            source_type="local",
            source=json.dumps({"uri": store.address(record.stage, record.key)}),
        )
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", ref.part or "evaluation")]))
    if inputs:
        client.log_inputs(run_id, inputs)


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


def log_points(client: "MlflowClient", run_id: str, points: Sequence[tuple[str, float, int]]) -> None:
    """Log metrics (name, value, step) of a run."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    for start in range(0, len(points), 900):
        batch = [Metric(name, value, now, step) for name, value, step in points[start : start + 900]]
        client.log_batch(run_id, metrics=batch)


def metric_name(name: str) -> str:
    """Replace the characters of a name that MLflow refuses."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)[:250]


def format_tag(value: Any) -> str:
    """Return a tag's value as text."""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
