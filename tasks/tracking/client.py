"""Connect to MLflow, and write to its experiments and runs."""

import json
import logging
import os
import shlex
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from clepdg.download import urls
from clepdg.errors import ClepError
from clepdg.hashing import plain
from clepdg.redaction import scrub
from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg_tasks.engine.node import Node
from clepdg_tasks.host import liveness
from clepdg_tasks.host.processes import environment, running_url
from clepdg_tasks.host.settings import Settings
from clepdg_tasks.host.settings_file import without_password
from clepdg_tasks.host.sqlite import check_mlflow_database, mlflow_database, sqlite_url
from clepdg_tasks.tracking.model_cards import experiment_description

if TYPE_CHECKING:
    from mlflow import MlflowClient


UNAVAILABLE = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")  # MLflow's error codes of a server that does not answer
CLASSIC = "workflowType=machine_learning"  # without it MLflow opens its pages for language models, which show no runs


def tracking_url(settings: Settings) -> str:
    """Return MLflow's tracking URI: a server, else a PostgreSQL or SQLite URL."""
    return settings.tracking_url or settings.mlflow_database_url or sqlite_url(mlflow_database(settings))


def where_to_view(settings: Settings) -> str:
    """Return where to view MLflow: an address, or a command."""
    url = tracking_url(settings)
    shown = url if url.startswith("sqlite") else without_password(url)
    return urls.redact(url) if url.startswith("http") else f"mlflow ui --backend-store-uri {shlex.quote(shown)}"


def _is_own(settings: Settings) -> bool:
    """Return whether the server of `make up`, or no server, is in use."""
    return not settings.tracking_url or settings.tracking_url == running_url(settings, "mlflow")


def tracking_identity(settings: Settings) -> str:
    """Return a name of the tracking store that does not depend on its port.

    The server of `make up` has the name of its database. A database in the place of one that was removed gets another
    name: outputs that were registered in the removed one are registered again.
    """
    if settings.tracking_url and not _is_own(settings):
        return urls.redact(settings.tracking_url)
    if settings.mlflow_database_url:
        return without_password(settings.mlflow_database_url)
    database = mlflow_database(settings)
    replaced = database.with_name("replaced")
    if not database.exists():
        database.parent.mkdir(parents=True, exist_ok=True)
        replaced.write_text(uuid.uuid4().hex)
    return f"{database.parent} {replaced.read_text()}" if replaced.exists() else str(database.parent)


@contextmanager
def translate_errors(settings: Settings) -> Iterator[None]:
    """Turn errors of MLflow and its database into ClepError."""
    import mlflow
    import sqlalchemy

    try:
        yield
    except (mlflow.exceptions.MlflowException, sqlalchemy.exc.SQLAlchemyError) as error:
        where = where_to_view(settings)
        raise ClepError("MLflow refuses or does not answer.", got=first_line(error)[:400], where=where) from error


def connect(settings: Settings) -> "MlflowClient":
    """Return a client of MLflow's tracking server, or of its database.

    Raises:
        ClepError: MLflow's database can't be used.
    """
    if not settings.tracking_url and not settings.mlflow_database_url:
        check_mlflow_database(mlflow_database(settings))
    for name, value in environment(settings).items():
        if name.startswith("MLFLOW_"):
            os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # callers report errors, without a traceback
    (settings.home / "mlflow").mkdir(parents=True, exist_ok=True)
    url = tracking_url(settings)
    mlflow.set_tracking_uri(url)
    mlflow.set_registry_uri(url)
    with translate_errors(settings):
        return mlflow.MlflowClient(tracking_uri=url, registry_uri=url)


def experiment_name(preset: str) -> str:
    """Return the name of a preset's experiment; the demo has one of its own."""
    return "clep-dg-demo" if preset == "demo" else "clep-dg"


def restore_experiment(client: "MlflowClient", preset: str) -> bool:
    """Restore a preset's experiment if it was deleted; return whether it was.

    MLflow accepts no run in a deleted experiment, and no other of its name.
    """
    found = client.get_experiment_by_name(experiment_name(preset))
    if found is None or found.lifecycle_stage == "active":
        return False
    client.restore_experiment(found.experiment_id)
    return True


def experiment_id(client: "MlflowClient", settings: Settings, preset: str) -> str:
    """Return the id of a preset's experiment, and create it if it is missing.

    Its artifacts never go to the current folder.
    """
    name = experiment_name(preset)
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    folder = settings.home / "mlflow" / ("artifacts-demo" if preset == "demo" else "artifacts")
    location = folder.as_uri() if _is_own(settings) else None
    note = {"mlflow.note.content": experiment_description(preset)}
    return str(client.create_experiment(name, artifact_location=location, tags=note))


def front_page(url: str) -> str:
    """Return the URL of a server's list of experiments."""
    return f"{url.rstrip('/')}/#/experiments?{CLASSIC}"


def run_page(url: str, experiment: str, run_id: str, artifact: str = "") -> str | None:
    """Return the URL of a run's page, or its artifact; None without a server."""
    if not url.startswith("http"):
        return None
    page = f"{urls.redact(url).rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"
    return page + (f"/artifacts/{artifact}" if artifact else "") + f"?{CLASSIC}"


def end_killed_runs(client: "MlflowClient", store: Store) -> None:
    """End the MLflow runs of flow runs that ended without a report to MLflow."""
    for name in liveness.unreported(store.root / "runs"):
        experiments = [found.experiment_id for found in client.search_experiments()]
        unfinished = f"tags.run = '{name}' and attributes.status = 'RUNNING'"
        for run in client.search_runs(experiments, unfinished, max_results=10_000):
            client.set_terminated(run.info.run_id, "KILLED")
        liveness.mark_reported(store.root / "runs", name)


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


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (scrub(str(error)).splitlines() or [type(error).__name__])[0]


def aliased_versions(settings: Settings) -> list[tuple[str, dict[str, str]]]:
    """Return (stage, tags) of the registered versions that have an alias.

    The list is empty where MLflow was never used.
    """
    if never_used(settings):
        return []
    client, found, token = connect(settings), list[tuple[str, dict[str, str]]](), None
    with translate_errors(settings):
        while True:
            page = client.search_registered_models(max_results=100, page_token=token)
            for model in page:
                stage = model.name.removeprefix("demo-").removeprefix("clep-dg-").replace("-", "_")
                numbers = sorted({str(number) for number in model.aliases.values()})
                found += [(stage, dict(client.get_model_version(model.name, number).tags)) for number in numbers]
            token = page.token
            if not token:
                return found


def never_used(settings: Settings) -> bool:
    """Return whether MLflow would be a SQLite file that does not exist."""
    return not (settings.tracking_url or settings.mlflow_database_url or mlflow_database(settings).exists())
