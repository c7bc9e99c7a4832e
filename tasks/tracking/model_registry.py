"""Register a model version per stage key in MLflow, and load classifiers."""

import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from clepdg.config.folds import SUPERVISED
from clepdg.config.rows import MAIN_ROW
from clepdg.errors import ConfigError
from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg_tasks.engine.node import Node
from clepdg_tasks.host.settings import Settings, load_settings
from clepdg_tasks.tracking.client import connect, first_line
from clepdg_tasks.tracking.lineage import clep_id, fold_tags, incomplete, licences_of
from clepdg_tasks.tracking.model_cards import model_description, version_description

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODELS = {
    "clep": "clep-dg-clep",
    "acpt": "clep-dg-acpt",
    "text_embeddings": "clep-dg-text-embeddings",
    "classifier": "clep-dg-classifier",
}
CHAMPION = "champion"


def model_name(stage: str, preset: str) -> str:
    """Return a registered model's name; the demo has models of its own."""
    return ("demo-" if preset == "demo" else "") + MODELS[stage]


def register(
    client: "MlflowClient",
    store: Store,
    node: Node,
    record: Record,
    records: Mapping[str, Record],
    run_id: str,
    *,
    preset: str,
    run: str,
) -> dict[str, Any]:
    """Register an output once; return its model's name and version.

    Args:
        records: node id -> record of the nodes before it.
        run_id: MLflow run of the stage.
        run: name of the flow run, stored as a tag of the version.
    """
    name = model_name(record.stage, preset)
    found = _version_of(client, name, record.key)
    if found is None:
        tags = {"stage_key": record.key, "digest": record.digests["content"], "preset": preset}
        tags |= {**fold_tags(node), "licences": licences_of(node), "run": run}
        tags["differs_from_whole_corpora"] = incomplete(node, records)
        _ensure_model(client, name, record.stage, preset)
        source = _log_model(client, store, node, record, records, run_id)
        card = version_description(node, record, tags)
        found = client.create_model_version(name, source, run_id, tags=tags, description=card).version
    return {"model": name, "version": str(found)}


def _log_model(
    client: "MlflowClient",
    store: Store,
    node: Node,
    record: Record,
    records: Mapping[str, Record],
    run_id: str,
) -> str:
    """Log a version's files, or their place in the store; return its address."""
    tags = fold_tags(node)
    whole = tags.get("fold") == SUPERVISED and "variant" not in tags
    servable = record.stage == "classifier" and whole and tags.get("row") == MAIN_ROW
    if servable:
        from clepdg_tasks.tracking.serving import save_classifier

        clep = records[clep_id(node)]
        head, tower = (store.local(one.stage, one.key) for one in (record, clep))
        with TemporaryDirectory() as scratch:
            save_classifier(Path(scratch) / "model", head, tower, record.key)
            client.log_artifacts(run_id, str(Path(scratch) / "model"), "model")
    elif whole or record.stage in ("acpt", "text_embeddings"):
        folder = store.local(record.stage, record.key)
        for name in record.files:
            client.log_artifact(run_id, str(folder / name), str(Path("model") / Path(name).parent))
    else:  # leave-out and variant CLEPs are too many to copy: log where they are
        pointer = {
            "store": store.url,
            "stage": record.stage,
            "key": record.key,
            "digests": record.digests,
        }
        client.log_dict(run_id, pointer, "model/pointer.json")
    return f"{client.get_run(run_id).info.artifact_uri}/model"


def _version_of(client: "MlflowClient", name: str, key: str) -> str | None:
    found = client.search_model_versions(f"name = '{name}' and tag.stage_key = '{key}'")
    return str(found[0].version) if found else None


def _ensure_model(client: "MlflowClient", name: str, stage: str, preset: str) -> None:
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description=model_description(stage, preset, name))


def set_champion(client: "MlflowClient", name: str, number: int, why: str) -> None:
    """Move the alias to a version, and tag it with the reason and the time."""
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    client.set_model_version_tag(name, str(number), "champion_why", why)
    client.set_model_version_tag(name, str(number), "champion_since", since)
    client.set_registered_model_alias(name, CHAMPION, str(number))


def first_run(preset: str) -> str:
    """Return advice for a preset without a registered classifier."""
    demo = "" if preset == "demo" else "; for the demo's classifier add --preset demo"
    return f"run the pipeline first (clep-dg run --preset {preset}){demo}"


def load_classifier(settings: Settings, preset: str, version: str | None = None) -> Any:
    """Load the champion of the registered classifiers, or another version.

    Args:
        version: number or alias of a version; None: the champion.

    Raises:
        ConfigError: it does not exist, or can't be served.
    """
    name = model_name("classifier", preset)
    do = first_run(preset)
    elsewhere = settings.tracking_url or settings.mlflow_database_url
    if not elsewhere and not (settings.home / "mlflow" / "mlflow.db").exists():
        raise ConfigError("No classifier is registered yet.", where=settings.home / "mlflow", do=do)
    connect(settings)
    import mlflow

    try:
        chosen = f"/{version}" if str(version).isdigit() else f"@{version or CHAMPION}"
        return mlflow.pyfunc.load_model(f"models:/{name}{chosen}")
    except mlflow.exceptions.MlflowException as error:
        where = f"{name}, {version or CHAMPION}"
        if "MLmodel" in str(error):
            raise ConfigError(
                "This version has a head only and can't be served.",
                expected=f"a version of fold {SUPERVISED}, row {MAIN_ROW}",
                where=where,
                do=f"clep-dg compare --preset {preset} lists the versions",
            ) from error
        do = f"clep-dg compare --preset {preset} lists the versions" if version else do
        raise ConfigError(
            "There is no such registered classifier.", got=first_line(error), where=where, do=do
        ) from error


def registered_parts(version: str, preset: str) -> tuple[Any, Any]:
    """Return the CLEP and the head of a registered classifier.

    Raises:
        ConfigError: it does not exist, or can't be served.
    """
    model = load_classifier(load_settings(), preset, version).unwrap_python_model()
    return model.clap, model.head
