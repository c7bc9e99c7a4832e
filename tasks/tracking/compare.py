"""List a preset's registered classifiers, and compare their versions."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clepdg.config.folds import SUPERVISED
from clepdg.config.rows import MAIN_ROW, ROWS
from clepdg.errors import ClepError, ConfigError, StoreError
from clepdg.store.store import Store
from clepdg_tasks.engine import run_history
from clepdg_tasks.engine.changes import config_changes
from clepdg_tasks.engine.run_history import split_id
from clepdg_tasks.host.settings import Settings
from clepdg_tasks.tracking.client import UNAVAILABLE, connect, first_line, translate_errors
from clepdg_tasks.tracking.lineage import version_tags
from clepdg_tasks.tracking.model_registry import CHAMPION, first_run, is_servable, model_name
from clepdg_tasks.tracking.paired_differences import (
    NOT_EVALUATED,
    VALIDATION_UAR,
    format_difference,
    paired_differences,
    validation_difference,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BOUNDS = f"{'[low, high]':14s}"
HEAD = f"{'version':>7s}  {'':8s}  {'fold':24s} {'method':18s} {'seed':8s}   UAR  {_BOUNDS}    WAR     n  test data"


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
        found += [Version(number=int(v.version), champion=v.version == champion, tags=version_tags(v)) for v in page]
        token = page.token
        if not token:
            return sorted(found, key=lambda version: version.number)


def compare(
    settings: Settings,
    preset: str,
    chosen: Sequence[str] = (),
    *,
    fold: str | None = None,
    method: str | None = None,
) -> str:
    """Return a text that compares the versions of a preset's classifier.

    It has a table of the versions, and compares the champion with the newest one that may take its place: of the same
    method, where there is one.

    Args:
        chosen: two versions, numbers or "champion": the text then compares only the second with the first. One: it
            is compared with the champion.
        fold: lists the versions of this fold only.
        method: lists, and compares, the versions of this row of the results table only.

    Raises:
        ConfigError: none is registered, or none has this fold and method, or a version does not exist.
    """
    client, store = connect(settings), settings.open_store()
    with translate_errors(settings):
        versions = read_versions(client, preset)
    champion = next((version for version in versions if version.champion), None)
    name = model_name("classifier", preset)
    if chosen:
        old, new = _chosen(versions, chosen, champion)
        return "\n".join([name, "", HEAD, _line(old), _line(new), *_against(store, new, old)])
    listed = [v for v in versions if fold in (None, v.place[0]) and method in (None, v.place[1])]
    if not listed:
        got = ", ".join(f"{what} {value}" for what, value in (("fold", fold), ("method", method)) if value)
        known = sorted({", ".join(version.place[:2]) for version in versions})
        raise ConfigError("No version has this fold and method.", got=got, expected=known, where=name)
    lines = [name, "", HEAD, *(_line(version) for version in listed)]
    if champion is None:
        return "\n".join([*lines, "", "No version is the champion."])
    rivals = [version for version in listed if is_servable(version.tags) and not version.champion]
    alike = [version for version in rivals if version.place[:2] == champion.place[:2]]
    if rivals:
        return "\n".join([*lines, *_against(store, (alike or rivals)[-1], champion)])
    return "\n".join(
        [*lines, "", "None of these versions but the champion can be served: there is nothing to compare."]
    )


def _chosen(versions: Sequence[Version], chosen: Sequence[str], champion: Version | None) -> tuple[Version, Version]:
    """Return two versions, the older first."""
    known = {str(version.number): version for version in versions}
    if champion:
        known[CHAMPION] = champion
    given = [CHAMPION, *chosen] if len(chosen) == 1 else list(chosen)
    found = [known[name] for name in given if name in known]
    if len(given) != 2 or len({version.number for version in found}) != 2:
        raise ConfigError("Two versions can be compared.", got=list(chosen), expected=f"two of {', '.join(known)}")
    return found[0], found[1]


def _methods(new: Version, old: Version) -> list[str]:
    """Return a line that names both methods or folds, where they differ."""
    if new.place[:2] == old.place[:2]:
        return []
    titles = [
        f"{ROWS[row].title if row in ROWS else row} (fold {fold})" for fold, row, _ in (v.place for v in (new, old))
    ]
    return [f"  different methods: {titles[0]} against {titles[1]}"]


def _against(store: Store, new: Version, old: Version) -> list[str]:
    """Return the lines that compare two versions: metrics, data and settings."""
    from clepdg.evaluation.intervals import METRICS

    champion = "the champion, " if old.champion else ""
    lines = ["", f"version {new.number} against {champion}version {old.number}", *_methods(new, old)]
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
        f"{_figure(tags['uar'])}  {_interval(tags.get('interval', '-')):14s}  {_figure(tags.get('war', '-'))}  "
        f"{_whole(tags.get('n', '-')):>4s}  {tags.get('test_digest', '-')[:8]}"
    )  # fmt: skip
    alias = CHAMPION if version.champion else ""
    return f"{version.number:7d}  {alias:8s}  {fold:24s} {row:18s} {seed:8s} {figures}"


def _figure(text: str) -> str:
    """Return a figure as it was rounded; earlier releases kept 4 decimals."""
    return f"{float(text):.3f}" if len(text) > 5 else text


def _interval(text: str) -> str:
    return ", ".join(f"{_figure(part.strip('[] '))}" for part in text.split(",")).join("[]") if "," in text else text


def _whole(text: str) -> str:
    return text.partition(".")[0]


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
