"""Register a model version per stage key in MLflow, and load classifiers."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from clepdg.config.folds import SUPERVISED
from clepdg.config.rows import MAIN_ROW
from clepdg.errors import ConfigError, StoreError
from clepdg.store.record import Record, damage
from clepdg.store.store import Store
from clepdg_tasks.engine import run_history
from clepdg_tasks.engine.node import Node
from clepdg_tasks.host.settings import Settings, load_settings
from clepdg_tasks.tracking.client import UNAVAILABLE, connect, first_line, never_used, translate_errors
from clepdg_tasks.tracking.lineage import clep_id, fold_tags, incomplete, licences_of
from clepdg_tasks.tracking.model_cards import model_description, version_description
from clepdg_tasks.tracking.version_lookup import look_up_version

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from clepdg.method.emotion_classifier import EmotionClassifier

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
    found = version_of(client, name, record.key)
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
    if is_servable(record.stage, tags):
        from clepdg_tasks.tracking.serving import save_classifier

        clep = records[clep_id(node)]
        head, tower = (store.local(one.stage, one.key) for one in (record, clep))
        with TemporaryDirectory() as scratch:
            save_classifier(Path(scratch) / "model", head, tower, record.key)
            client.log_artifacts(run_id, str(Path(scratch) / "model"), "model")
    elif _is_whole(tags) or record.stage in ("acpt", "text_embeddings"):
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


def _is_whole(tags: Mapping[str, str]) -> bool:
    return tags.get("fold") == SUPERVISED and "variant" not in tags


def is_servable(stage: str, tags: Mapping[str, str]) -> bool:
    """Return whether a version is a classifier that can be served."""
    return stage == "classifier" and _is_whole(tags) and tags.get("row") == MAIN_ROW


def version_of(client: "MlflowClient", name: str, key: str) -> str | None:
    """Return the version of a model that was made from an output, or None."""
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


def load_classifier(
    settings: Settings,
    preset: str,
    version: str | None = None,
    *,
    audio_only: bool = False,
    emotions: Sequence[str] | None = None,
) -> "EmotionClassifier":
    """Load the champion of the registered classifiers, or another version.

    MLflow only names it. CLEP and the head are read from the store, after their digests are checked: no pickle and no
    code of a registry is loaded.

    Args:
        version: number or alias of a version; None: the champion.
        audio_only: load no text encoder.
        emotions: words that the head is made anew for; None: its own labels.

    Raises:
        ConfigError: it does not exist, can't be served, or the words are none to choose from.
        StoreError: the store does not hold it.
    """
    from clepdg.method.emotion_classifier import EmotionClassifier
    from clepdg.method.fold.new_words import check_words, classify_words
    from clepdg.method.heads import load_head
    from clepdg.models.folder import load_model

    words = check_words(emotions) if emotions is not None else None
    store, run, clep, head = _stored_parts(settings, preset, version)
    if words:
        keys = {node: facts["key"] for node, facts in run["stages"].items()}
        return classify_words(store, keys, clep, head, words, settings.home / "words")
    return EmotionClassifier(load_model(clep, audio_only=audio_only), load_head(head))


def _stored_parts(settings: Settings, preset: str, version: str | None) -> tuple[Store, dict[str, Any], Path, Path]:
    """Return a version's store, its run's file, and the folders of its parts."""
    chosen = str(version or CHAMPION)
    tags = dict(find_version(settings, preset, chosen).tags)
    where, store = f"{model_name('classifier', preset)}, {chosen}", settings.open_store()
    if not is_servable("classifier", tags):
        raise ConfigError(
            "This version has a head only and can't be served.",
            got=", ".join(tags.get(name, "-") for name in ("fold", "row")),
            expected=f"a version of fold {SUPERVISED}, row {MAIN_ROW}",
            where=where,
            do=f"clep-dg compare --preset {preset} lists the versions",
        )
    run = run_history.read(store, tags.get("run", "-")) or {"stages": {}}
    clep = run["stages"].get(f"clep/{tags.get('model')}", {}).get("key")
    folders = []
    for stage, key in (("clep", clep), ("classifier", tags.get("stage_key"))):
        found = _verify(store, stage, key, tags.get("digest") if stage == "classifier" else None)
        if isinstance(found, str):
            raise StoreError(
                "The store does not hold this version's model.",
                got=f"{stage} {key}: {found}",
                where=f"{where}; {store.url}",
                do=f"set CLEPDG_STORE to the store of its run, or compute it again: clep-dg run --preset {preset}",
            )
        folders.append(found)
    return store, run, folders[0], folders[1]


def find_version(settings: Settings, preset: str, chosen: str = CHAMPION) -> Any:
    """Return a registered classifier: an object with `version` and `tags`.

    Args:
        chosen: its number or alias.

    Raises:
        ConfigError: it does not exist.
    """
    name, do = model_name("classifier", preset), first_run(preset)
    if never_used(settings):
        raise ConfigError("No classifier is registered yet.", where=settings.home / "mlflow", do=do)
    if found := look_up_version(settings, name, chosen):
        return found
    client = connect(settings)
    from mlflow.exceptions import MlflowException

    with translate_errors(settings):
        try:
            numbered = client.get_model_version if chosen.isdigit() else client.get_model_version_by_alias
            return numbered(name, chosen)
        except MlflowException as error:
            if error.error_code in UNAVAILABLE:
                raise
            do = do if chosen == CHAMPION else f"clep-dg compare --preset {preset} lists the versions"
            where, got = f"{name}, {chosen}", first_line(error)
            raise ConfigError("There is no such registered classifier.", got=got, where=where, do=do) from error


def _verify(store: Store, stage: str, key: str | None, digest: str | None) -> Path | str:
    """Return an output's folder, its files checked, or why it can't be used."""
    record = store.lookup(stage, key) if key else "its run's file does not name it"
    if isinstance(record, str):
        return record
    if digest not in (None, record.digests["content"]):
        return "another output than the registered one"
    folder = store.local(stage, record.key)
    return damage(folder, record, rehash=True) or folder


def registered_parts(version: str, preset: str, emotions: Sequence[str] | None = None) -> tuple[Any, Any]:
    """Return the CLEP and the head of a registered classifier.

    Args:
        emotions: words that the head is made anew for; None: its own labels.

    Raises:
        ClepError: it does not exist, can't be served, or is not in the store.
    """
    model = load_classifier(load_settings(), preset, version, emotions=emotions)
    return model.clap, model.head
