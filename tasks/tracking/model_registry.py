"""Register a model version per stage key in MLflow, and load classifiers."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clepdg.config.folds import SUPERVISED
from clepdg.config.rows import MAIN_ROW, ROWS
from clepdg.errors import ConfigError, StoreError
from clepdg.store.record import Record, damage
from clepdg.store.store import Store
from clepdg_tasks.engine import run_history
from clepdg_tasks.engine.node import Node
from clepdg_tasks.host.settings import Settings, load_settings
from clepdg_tasks.tracking.client import UNAVAILABLE, connect, first_line, never_used, translate_errors
from clepdg_tasks.tracking.lineage import LINEAGE, UNKNOWN, clep_id, fold_tags, incomplete, licences_of, version_tags
from clepdg_tasks.tracking.model_cards import model_description, version_description
from clepdg_tasks.tracking.serving import log_model
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
    name, place = model_name(record.stage, preset), fold_tags(node)
    found = version_of(client, name, record.key)
    if found is None:
        lineage = {"digest": record.digests["content"], "run": run, **place}
        shown = {"uar": UNKNOWN, "interval": UNKNOWN, "n": UNKNOWN} if record.stage == "classifier" else {}
        shown |= {tag: lineage.pop(tag) for tag in ("row", "contexts", "seed") if tag in lineage}
        _ensure_model(client, name, record.stage, preset)
        own, clep = (store.local(one.stage, one.key) for one in (record, records.get(clep_id(node), record)))
        model = log_model(client, own, record, run_id, fold_tags(node), clep=clep)
        lineage["model_id"] = model.model_id
        tags = {**shown, "stage_key": record.key, LINEAGE: json.dumps(lineage)}
        card = version_description(record, place, licences_of(node), incomplete(node, records))
        source, logged = model.artifact_location, model.model_id
        found = client.create_model_version(name, source, run_id, tags=tags, description=card, model_id=logged).version
        versions = json.dumps([{"name": name, "version": str(found)}])
        client.set_logged_model_tags(logged, {"mlflow.modelVersions": versions})  # their pages link to each other
    return {"model": name, "version": str(found)}


def is_registered_kind(stage: str, tags: Mapping[str, str]) -> bool:
    """Return whether an output becomes a version of a registered model.

    Of fold supervised these are CLEP, its ACPT, and the text classifiers that are compared with ACPT's, with their text
    embeddings. All others are runs: floors, probes, variants, folds that leave out a corpus.
    """
    from clepdg.evaluation.credit import RIVALS

    text = {row: ROWS[row].contexts for row in (MAIN_ROW, *RIVALS) if ROWS[row].head == "text"}
    if tags.get("fold") != SUPERVISED or "variant" in tags:
        return False
    return (
        stage == "clep"
        or (stage == "acpt" and tags.get("contexts") == ROWS[MAIN_ROW].contexts)
        or (stage == "text_embeddings" and tags.get("contexts") in text.values())
        or (stage == "classifier" and tags.get("row") in text)
    )


def is_servable(tags: Mapping[str, str]) -> bool:
    """Return whether a registered classifier can be served."""
    return is_registered_kind("classifier", tags)


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
    tags = version_tags(find_version(settings, preset, chosen))
    where, store = f"{model_name('classifier', preset)}, {chosen}", settings.open_store()
    if not is_servable(tags):
        raise ConfigError(
            "This version can't be served.",
            got=", ".join(tags.get(name, "-") for name in ("fold", "row")),
            expected=f"a text classifier of fold {SUPERVISED}",
            where=where,
            do=f"clep-dg compare --preset {preset} lists the versions",
        )
    run = run_history.read(store, tags.get("run", "-")) or {"stages": {}}
    if (made_by := run.get("config", {}).get("preset", preset)) != preset:  # all but the demo share one registry
        logging.getLogger("clepdg").warning(
            "%s is of preset %s, not %s: clep-dg compare --preset %s lists others", where, made_by, preset, preset
        )
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
    listed = f"clep-dg compare --preset {preset} lists the versions"
    if chosen.isdigit() and int(chosen) >= 1 << 63:  # more than a database counts
        raise ConfigError("There is no such registered classifier.", got=chosen, where=name, do=listed)
    client = connect(settings)
    from mlflow.exceptions import MlflowException

    with translate_errors(settings):
        try:
            numbered = client.get_model_version if chosen.isdigit() else client.get_model_version_by_alias
            return numbered(name, chosen)
        except MlflowException as error:
            if error.error_code in UNAVAILABLE:
                raise
            do = do if chosen == CHAMPION else listed
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
