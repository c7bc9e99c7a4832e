"""MLflow's address, client and experiments, and what is written into one of its runs."""

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clepdg.download import urls
from clepdg.hashing import plain
from clepdg.store.record import Record
from clepdg.store.store import Store
from tasks.engine.node import Node
from tasks.host import liveness
from tasks.host.processes import running_url
from tasks.host.settings import Settings, without_password
from tasks.tracking.model_cards import experiment_description

if TYPE_CHECKING:
    from mlflow import MlflowClient


CLASSIC = "workflowType=machine_learning"  # without it MLflow opens its pages on language models, which know no runs


def tracking_url(settings: Settings) -> str:
    """Return MLflow's address: a server; without one the PostgreSQL that the settings name, or an SQLite file."""
    own = settings.mlflow_database_url or f"sqlite:///{settings.home / 'mlflow' / 'mlflow.db'}"
    return settings.tracking_url or own


def how_to_look(settings: Settings) -> str:
    """Return where a person sees what MLflow holds: an address, or a command."""
    url = tracking_url(settings)
    return url if url.startswith("http") else f"mlflow ui --backend-store-uri {without_password(url)}"


def _is_own(settings: Settings) -> bool:
    """Tell whether no other server than that of `make up` is in use."""
    return not settings.tracking_url or settings.tracking_url == running_url(settings, "mlflow")


def tracking_identity(settings: Settings) -> str:
    """Return what stays the same while MLflow's address changes: our own server reads our own database."""
    if settings.tracking_url and not _is_own(settings):
        return urls.shown(settings.tracking_url)
    own = settings.mlflow_database_url
    return without_password(own) if own else str(settings.home / "mlflow")


def connect(settings: Settings) -> "MlflowClient":
    """Return a client of MLflow's tracking server, or of the SQLite file below var/."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # whoever calls says it, without a traceback
    (settings.home / "mlflow").mkdir(parents=True, exist_ok=True)
    url = tracking_url(settings)
    mlflow.set_tracking_uri(url)
    mlflow.set_registry_uri(url)
    return mlflow.MlflowClient(tracking_uri=url, registry_uri=url)


def experiment_id(client: "MlflowClient", settings: Settings, preset: str) -> str:
    """Return the experiment's id, made if need be; its artifacts never land in the current folder."""
    name = "clep-dg-demo" if preset == "demo" else "clep-dg"
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    folder = settings.home / "mlflow" / ("artifacts-demo" if preset == "demo" else "artifacts")
    location = folder.as_uri() if _is_own(settings) else None
    note = {"mlflow.note.content": experiment_description(preset)}
    return str(client.create_experiment(name, artifact_location=location, tags=note))


def front_page(url: str) -> str:
    """Return the address of a server's list of experiments."""
    return f"{url.rstrip('/')}/#/experiments?{CLASSIC}"


def run_page(url: str, experiment: str, run_id: str, artifact: str = "") -> str | None:
    """Return the address of a run's page, or of one of its artifacts there; None where no server shows it."""
    if not url.startswith("http"):
        return None
    page = f"{url.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"
    return page + (f"/artifacts/{artifact}" if artifact else "") + f"?{CLASSIC}"


def end_killed_runs(client: "MlflowClient", store: Store) -> None:
    """End the MLflow runs of runs that were killed, or whose end MLflow was not there to hear."""
    for name in liveness.ended_untold(store.root / "runs"):
        experiments = [found.experiment_id for found in client.search_experiments()]
        mine = f"tags.run = '{name}' and attributes.status = 'RUNNING'"
        for run in client.search_runs(experiments, mine, max_results=10_000):
            client.set_terminated(run.info.run_id, "KILLED")
        liveness.told(store.root / "runs", name)


def log_inputs(client: "MlflowClient", run_id: str, node: Node, records: Mapping[str, Record], store: Store) -> None:
    """Log the corpora that a stage reads as dataset inputs, with their digests."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    for ref in dict.fromkeys(node.inputs.values()):
        node_id, _, part = ref.partition("#")
        stage, _, corpus = node_id.partition("/")
        if stage not in ("shard", "index"):
            continue
        record = records[node_id]
        dataset = Dataset(
            name=f"{stage} {corpus}",
            digest=record.digests[part or "content"][:36],
            source_type="local",
            source=json.dumps({"uri": store.address(record.stage, record.key)}),
        )
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", part or "evaluation")]))
    if inputs:
        client.log_inputs(run_id, inputs)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested values as one level of dotted names."""
    if not prefix:
        value = plain(value)
    if not isinstance(value, dict):
        return {prefix: value}
    return {n: v for key, item in value.items() for n, v in flat(item, f"{prefix}.{key}" if prefix else key).items()}


def log_params(client: "MlflowClient", run_id: str, values: Mapping[str, Any]) -> None:
    """Log nested values as a run's params."""
    from mlflow.entities import Param

    params = [Param(metric_name(name), str(value)[:6000]) for name, value in flat(values).items()]
    for start in range(0, len(params), 100):
        client.log_batch(run_id, params=params[start : start + 100])


def metric_name(name: str) -> str:
    """Return a name with MLflow's characters only."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)[:250]


def shown(value: Any) -> str:
    """Return a tag's text."""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def aliased_versions(settings: Settings) -> list[tuple[str, dict[str, str]]]:
    """Return (stage, tags) of every registered version of ours that has an alias; none where MLflow was never used."""
    if not settings.tracking_url and not (settings.home / "mlflow" / "mlflow.db").exists():
        return []
    client, found, token = connect(settings), list[tuple[str, dict[str, str]]](), None
    while True:
        page = client.search_registered_models(max_results=100, page_token=token)
        for model in page:
            stage = model.name.removeprefix("demo-").removeprefix("clep-dg-").replace("-", "_")
            numbers = sorted({str(number) for number in model.aliases.values()})
            found += [(stage, dict(client.get_model_version(model.name, number).tags)) for number in numbers]
        token = page.token
        if not token:
            return found
