"""Choose the champion among the registered versions of a classifier."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clepdg.config.folds import SUPERVISED
from clepdg.config.rows import MAIN_ROW
from clepdg.errors import ConfigError
from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg_tasks.engine.node import Node
from clepdg_tasks.host.settings import Settings
from clepdg_tasks.tracking.client import connect, translate_errors
from clepdg_tasks.tracking.compare import read_versions
from clepdg_tasks.tracking.lineage import LINEAGE, version_tags
from clepdg_tasks.tracking.marker import read_marker
from clepdg_tasks.tracking.model_cards import number, with_figures
from clepdg_tasks.tracking.model_registry import CHAMPION, is_servable, model_name, set_champion, version_of
from clepdg_tasks.tracking.paired_differences import (
    NOT_EVALUATED,
    VALIDATION_UAR,
    format_difference,
    is_improvement,
    validation_difference,
)
from clepdg_tasks.tracking.run_data import SORTED, Points

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("clepdg")


def tag_classifiers(
    client: "MlflowClient",
    store: Store,
    node: Node,
    record: Record,
    records: Mapping[str, Record],
    log_metrics: Callable[[str, Points, str | None], None],
) -> None:
    """Tag each evaluated classifier with its metrics, and update the champion.

    Args:
        node: an evaluation.
        record: its record.
        records: node id -> record of its inputs.
        log_metrics: called with an MLflow run, its metrics (name, value, step), and its logged model.
    """
    heads = [ref for ref in node.inputs.values() if ref.stage == "classifier"]
    candidates = [ref for ref in heads if node.fold == SUPERVISED and ref.tags["row"] == MAIN_ROW]
    for ref in heads:
        marker = read_marker(store, records[ref.id])
        if marker is None:
            continue
        found = dict(record.figures["headline"].get(ref.tags["row"], {}))
        facts = {"test_digest": record.digests["test"], "evaluate_key": record.key}
        if ref in candidates and "validation" in record.digests:
            facts |= {"validation_digest": record.digests["validation"]}
            found |= {"validation_uar": record.figures["validation_uar"][ref.tags["seed"]]}
        figures = [(SORTED.get(name, name), float(value), 0) for name, value in found.items()]
        if "version" not in marker or version_of(client, marker["model"], records[ref.id].key) is None:
            log_metrics(marker["run_id"], figures, None)  # it is no version, or a user deleted that
            continue
        version = client.get_model_version(marker["model"], marker["version"])
        own = version_tags(version)
        log_metrics(marker["run_id"], figures, own.get("model_id"))
        _tag_version(client, version, own, found, facts, list(node.config["split_units"]))
        if ref in candidates[:1]:  # only the first seed can be champion
            _challenge(client, store, marker["model"], int(marker["version"]))


def _tag_version(
    client: "MlflowClient",
    version: Any,
    own: Mapping[str, str],
    found: Mapping[str, float],
    facts: Mapping[str, str],
    corpora: Sequence[str],
) -> None:
    """Write a version's figures, rounded once, into its tags and card.

    Args:
        own: its tags, those in its lineage included.
        found: figures of the evaluation.
        facts: digests and keys that later comparisons need.
    """
    texts = {name: number(value) if name == "n" else f"{value:.3f}" for name, value in found.items()}
    shown: dict[str, str] = {name: texts[name] for name in ("uar", "n") if name in texts}
    if {"low", "high"} <= {*texts}:
        shown["interval"] = f"[{texts['low']}, {texts['high']}]"
    lineage: dict[str, str] = {name: value for name, value in own.items() if name not in version.tags}
    lineage |= dict(facts)
    lineage |= {name: texts[name] for name in ("war", "validation_uar") if name in texts}
    shown[LINEAGE] = json.dumps(lineage)
    for tag, value in shown.items():
        client.set_model_version_tag(version.name, version.version, tag, value)
    if {"uar", "interval", "n", "war"} <= {*shown, *texts}:
        data = f"test utterances of {', '.join(corpora)}, pooled"
        card = with_figures(version.description or "", {**texts, **shown}, data)
        client.update_model_version(version.name, version.version, card)


def _challenge(client: "MlflowClient", store: Store, name: str, number: int) -> None:
    """Make a version champion if there is none, or if it is an improvement.

    The two are compared on the same validation utterances: what reports show, chooses nothing.
    """
    champion = client.get_registered_model(name).aliases.get(CHAMPION)
    if champion is None:
        set_champion(client, name, number, "the first version")
    elif int(champion) != number:
        new, old = (version_tags(client.get_model_version(name, str(n))) for n in (number, champion))
        difference = validation_difference(store, new, old)
        if is_improvement(difference):
            why = f"{VALIDATION_UAR} {format_difference(difference)} against version {champion}"
            set_champion(client, name, number, why)
        elif isinstance(difference, str):
            log.warning("Version %d is not compared with the champion, version %s: %s", number, champion, difference)


def promote(settings: Settings, preset: str, number: int, why: str) -> str:
    """Make a version the champion, keep the reason, and return a message.

    Raises:
        ConfigError: there is no reason or no such version, or it can't be served.
    """
    if not why.strip():
        raise ConfigError("A champion needs a reason, which is stored with it.", do='--why "checked by ear"')
    client = connect(settings)
    with translate_errors(settings):
        return _promote(client, preset, number, why.strip())


def _promote(client: "MlflowClient", preset: str, number: int, why: str) -> str:
    versions = {version.number: version for version in read_versions(client, preset)}
    eligible = [n for n, version in versions.items() if is_servable(version.tags)]
    if number not in eligible:
        raise ConfigError(
            "This version can't be the champion." if number in versions else "There is no such version.",
            got=f"version {number}" + (f" ({', '.join(versions[number].place)})" if number in versions else ""),
            expected=eligible,
            where=f"{model_name('classifier', preset)}, text classifiers of fold {SUPERVISED}",
            do=f"clep-dg compare --preset {preset} lists the versions",
        )
    before = next((version.number for version in versions.values() if version.champion), None)
    if number == before:
        return f"version {number} is the champion already"
    set_champion(client, model_name("classifier", preset), number, why)
    unknown = "" if "uar" in versions[number].tags else f"; it is {NOT_EVALUATED}"
    return f"version {number} is the champion now" + (f"; it was version {before}" if before else "") + unknown
