"""List a preset's registered classifiers, and compare their versions."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clepdg.config.folds import SUPERVISED
from clepdg.config.rows import MAIN_ROW
from clepdg.errors import ClepError, ConfigError, StoreError
from clepdg.store.store import Store
from clepdg_tasks.engine import run_history
from clepdg_tasks.engine.node import config_changes
from clepdg_tasks.engine.run_history import split_id
from clepdg_tasks.host.settings import Settings
from clepdg_tasks.tracking.client import UNAVAILABLE, connect, first_line, translate_errors
from clepdg_tasks.tracking.model_registry import CHAMPION, first_run, model_name
from clepdg_tasks.tracking.paired_differences import (
    NOT_EVALUATED,
    VALIDATION_UAR,
    format_difference,
    paired_differences,
    validation_difference,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

HEAD = f"{'version':>7s}  {'':8s}  {'fold':24s} {'row':18s} {'seed':8s}   UAR  [low, high]    WAR     n  test data"


@dataclass(frozen=True, kw_only=True)
class Version:
    """Registered version of a classifier."""

    number: int
    champion: bool
    tags: Mapping[str, str]

    @property
    def place(self) -> tuple[str, str, str]:
        """Return fold, row and seed."""
        return self.tags.get("fold", "-"), self.tags.get("row", "-"), self.tags.get("seed", "-")


def read_versions(client: "MlflowClient", preset: str) -> list[Version]:
    """Return all registered classifiers of a preset, oldest first.

    Raises:
        ConfigError: none is registered.
    """
    import mlflow

    name = model_name("classifier", preset)
    try:
        champion = client.get_registered_model(name).aliases.get(CHAMPION)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code in UNAVAILABLE:
            raise
        do = first_run(preset)
        raise ConfigError("No classifier is registered yet.", got=first_line(error), where=name, do=do) from error
    found, token = [], None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        found += [Version(number=int(v.version), champion=v.version == champion, tags=dict(v.tags)) for v in page]
        token = page.token
        if not token:
            return sorted(found, key=lambda version: version.number)


def compare(settings: Settings, preset: str, numbers: Sequence[int] = ()) -> str:
    """Return a text that compares the versions of a preset's classifier.

    It has a table of all versions, and compares each with the same fold and row as the champion to the champion.

    Args:
        numbers: two versions; the text then compares only the second to the first.

    Raises:
        ConfigError: none is registered, or numbers are not two registered versions.
    """
    client, store = connect(settings), settings.open_store()
    with translate_errors(settings):
        versions = read_versions(client, preset)
    if numbers:
        old, new = _chosen(versions, numbers)
        return "\n".join(
            [f"{model_name('classifier', preset)}", "", HEAD, _line(old), _line(new), *_against(store, new, old)]
        )
    lines = [f"{model_name('classifier', preset)}", "", HEAD, *(_line(version) for version in versions)]
    champion = next((version for version in versions if version.champion), None)
    if champion is None:
        return "\n".join([*lines, "", "No version is the champion."])
    rivals = [v for v in versions if v.place[:2] == champion.place[:2] and v.number != champion.number]
    for version in rivals:
        lines += _against(store, version, champion)
    if not rivals:
        lines += ["", f"There is no other version of fold {champion.place[0]}, row {champion.place[1]} to compare."]
    return "\n".join(lines)


def _chosen(versions: Sequence[Version], numbers: Sequence[int]) -> list[Version]:
    known = {version.number: version for version in versions}
    if len(set(numbers)) != 2 or len(numbers) != 2 or not set(numbers) <= set(known):
        raise ConfigError(
            "Two versions can be compared.", got=list(numbers), expected=f"two of {', '.join(map(str, known))}"
        )
    return [known[number] for number in numbers]


def _against(store: Store, new: Version, old: Version) -> list[str]:
    """Return the lines that compare two versions: metrics, data and settings."""
    from clepdg.evaluation.intervals import METRICS

    champion = "the champion, " if old.champion else ""
    lines = ["", f"version {new.number} against {champion}version {old.number}"]
    found = paired_differences(store, new.tags, old.tags, tuple(METRICS))
    if isinstance(found, str):
        lines.append(f"  differences: {found}")
    else:
        lines += [f"  {metric} difference: {format_difference(value)}" for metric, value in found.items()]
    if {new.place[:2], old.place[:2]} == {(SUPERVISED, MAIN_ROW)}:
        decides = validation_difference(store, new.tags, old.tags)
        lines.append(f"  {VALIDATION_UAR} difference, which decides on a champion: {format_difference(decides)}")
    lines.append(f"  {'data':24s} {f'version {old.number}':12s} version {new.number}")
    before, after = (data_digests(store, version.tags) for version in (old, new))
    for name in sorted({*before, *after}):
        pair = [digests.get(name, "-")[:8] for digests in (before, after)]
        lines.append(f"  {name:24s} {pair[0]:12s} {pair[1]:12s}{'' if pair[0] == pair[1] else ' differs'}".rstrip())
    return lines + ([f"  {change}" for change in changes(store, old.tags, new.tags)] or ["  no setting changed"])


def _line(version: Version) -> str:
    fold, row, seed = version.place
    tags = version.tags
    figures = f"  {NOT_EVALUATED}" if "uar" not in tags else (
        f"{float(tags['uar']):.3f}  [{float(tags['low']):.3f}, {float(tags['high']):.3f}]  "
        f"{float(tags['war']):.3f}  {float(tags['n']):4.0f}  {tags['test_digest'][:8]}"
    )  # fmt: skip
    alias = CHAMPION if version.champion else ""
    return f"{version.number:7d}  {alias:8s}  {fold:24s} {row:18s} {seed:8s} {figures}"


def changes(store: Store, old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return the settings that differ between two versions' runs, one a line."""
    try:
        runs = [_run(store, tags["run"]) for tags in (old, new)]
    except (ClepError, KeyError) as error:
        return [f"the changed settings are not known: {error}"]
    return [f"setting {line}" for line in config_changes(runs[0]["config"], runs[1]["config"])]


def data_digests(store: Store, tags: Mapping[str, str]) -> dict[str, str]:
    """Return the known digests of a version's test utterances and corpora."""
    found = {"test utterances": tags["test_digest"]} if "test_digest" in tags else {}
    with contextlib.suppress(ClepError, KeyError):
        found |= {f"corpus {name}": value for name, value in corpus_digests(store, _run(store, tags["run"])).items()}
    return found


def _run(store: Store, name: str) -> dict[str, Any]:
    content = run_history.read(store, name)
    if content is None:
        raise StoreError("A run's file is missing or damaged.", where=store.documents.address(f"runs/{name}.json"))
    return content


def corpus_digests(store: Store, run: Mapping[str, Any]) -> dict[str, str]:
    """Return corpus -> digest of its files, for the content of a run's file."""
    digests = {}
    for node_id, facts in run["stages"].items():
        stage, corpus = split_id(node_id)
        record = store.previous(stage, facts["key"]) if stage == "source" and facts.get("key") else None
        if record:
            digests[corpus] = record.digests["content"]
    return digests
