"""Registered classifiers side by side: their figures, paired differences, and what changed between them."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clepdg.audio.corruptions import CLEAN
from clepdg.config.folds import SUPERVISED
from clepdg.config.rows import MAIN_ROW
from clepdg.emotions import labels
from clepdg.errors import ClepError, ConfigError, StoreError
from clepdg.store.record import Record
from clepdg.store.store import Store
from tasks.engine.node import config_changes
from tasks.host.settings import Settings
from tasks.tracking.client import connect, first_line
from tasks.tracking.model_registry import CHAMPION, first_run, model_name, set_champion

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from clepdg.evaluation.intervals import Interval


NOT_EVALUATED = "not evaluated yet"
HEAD = f"{'version':>7s}  {'':8s}  {'fold':24s} {'row':18s} {'seed':8s}   UAR  [low, high]    WAR     n  test data"


@dataclass(frozen=True, kw_only=True)
class Version:
    """One registered version: its number, whether it is the champion, and its tags."""

    number: int
    champion: bool
    tags: Mapping[str, str]

    @property
    def place(self) -> tuple[str, str, str]:
        """Fold, row and seed."""
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
        do = first_run(preset)
        raise ConfigError("No classifier is registered yet.", got=first_line(error), where=name, do=do) from error
    found, token = [], None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        found += [Version(number=int(v.version), champion=v.version == champion, tags=dict(v.tags)) for v in page]
        token = page.token
        if not token:
            return sorted(found, key=lambda version: version.number)


def paired_difference(store: Store, new: Mapping[str, str], old: Mapping[str, str]) -> "Interval | str":
    """Return UAR of a version minus that of another, as in `paired_differences`."""
    found = paired_differences(store, new, old, ("UAR",))
    return found if isinstance(found, str) else found["UAR"]


def paired_differences(
    store: Store, new: Mapping[str, str], old: Mapping[str, str], metrics: Sequence[str]
) -> "dict[str, Interval] | str":
    """Return figures of a version minus those of another on the same test utterances, or why they can't be had.

    Args:
        new: tags of a version: row, seed, test_digest and evaluate_key.
        old: tags of the version that it is held against.
        metrics: which of clepdg.intervals.METRICS.
    """
    import numpy as np

    from clepdg.evaluation.cells import LEFT_OUT
    from clepdg.evaluation.intervals import paired
    from clepdg.evaluation.predictions import COLUMNS, read_answers
    from clepdg.store.readers import read_frame

    if "test_digest" not in new or "test_digest" not in old:
        return NOT_EVALUATED
    if new["test_digest"] != old["test_digest"]:
        return "not on the same test utterances"
    parts, settings = [], dict[str, Any]()
    for tags in (new, old):
        record = store.lookup("evaluate", tags["evaluate_key"])
        if not isinstance(record, Record):
            return f"its predictions are not in the store ({record})"
        table = read_frame(store.local("evaluate", record.key) / "predictions.parquet", COLUMNS)
        mine = (table.row == tags["row"]) & (table.seed == tags["seed"]) & (table.split == "test")
        mine &= table.condition == CLEAN
        settings = record.config["evaluate"]
        parts.append(read_answers(table[mine], labels(record.config["label_set"])))
    a, b = parts
    keep = np.bincount(a.truth, minlength=a.probabilities.shape[-1]) >= LEFT_OUT
    options = {name: settings[name] for name in ("resamples", "confidence")}
    return {
        metric: paired(
            a.truth,
            a.predicted,
            b.predicted,
            a.clusters,
            keep,
            metric=metric,
            seed=0,  # the same resamples for each
            **options,
        )
        for metric in metrics
    }


def convinces(difference: "Interval | str") -> bool:
    """Return whether a paired difference makes a version champion by itself: over speakers, and wholly above 0."""
    from clepdg.evaluation.intervals import UTTERANCES

    return not isinstance(difference, str) and difference.method != UTTERANCES and difference.low > 0


def compare(settings: Settings, preset: str, numbers: Sequence[int] = ()) -> str:
    """Return all versions of a preset's classifier in a table, then each rival of the champion against it.

    Args:
        numbers: two versions, the second of which is held against the first in the place of all that.

    Raises:
        ConfigError: none is registered, or numbers are not those of two versions.
    """
    client, store = connect(settings), settings.open_store()
    versions = read_versions(client, preset)
    if numbers:
        old, new = _chosen(versions, numbers)
        return "\n".join(
            [f"{model_name('classifier', preset)}", "", HEAD, _line(old), _line(new), *_against(store, new, old)]
        )
    lines = [f"{model_name('classifier', preset)}", ""]
    lines.append(HEAD)
    lines += [_line(version) for version in versions]
    champion = next((version for version in versions if version.champion), None)
    if champion is None:
        return "\n".join([*lines, "", "No version is the champion."])
    rivals = [v for v in versions if v.place[:2] == champion.place[:2] and v.number != champion.number]
    for version in rivals:
        lines += _against(store, version, champion)
    if not rivals:
        lines += ["", f"No other version of fold {champion.place[0]}, row {champion.place[1]} is there to compare."]
    return "\n".join(lines)


def _chosen(versions: Sequence[Version], numbers: Sequence[int]) -> list[Version]:
    known = {version.number: version for version in versions}
    if len(set(numbers)) != 2 or len(numbers) != 2 or not set(numbers) <= set(known):
        raise ConfigError(
            "Two versions are compared.", got=list(numbers), expected=f"two of {', '.join(map(str, known))}"
        )
    return [known[number] for number in numbers]


def _against(store: Store, new: Version, old: Version) -> list[str]:
    """Return the block that holds a version against another: differences, data side by side, what changed."""
    from clepdg.evaluation.intervals import METRICS

    champion = "the champion, " if old.champion else ""
    lines = ["", f"version {new.number} against {champion}version {old.number}"]
    found = paired_differences(store, new.tags, old.tags, tuple(METRICS))
    if isinstance(found, str):
        lines.append(f"  differences: {found}")
    else:
        lines += [f"  {metric} difference: {shown_difference(value)}" for metric, value in found.items()]
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


def shown_difference(difference: "Interval | str") -> str:
    """Return a paired difference as text, or why there is none."""
    if isinstance(difference, str):
        return difference
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}], {difference.method}"


def changes(store: Store, old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return which settings changed between two versions' runs, key by key."""
    try:
        runs = [_run(store, tags["run"]) for tags in (old, new)]
    except (ClepError, KeyError) as error:
        return [f"what changed is not known: {error}"]
    return [f"setting {line}" for line in config_changes(runs[0]["config"], runs[1]["config"])]


def data_digests(store: Store, tags: Mapping[str, str]) -> dict[str, str]:
    """Return the digests of the test utterances and of each corpus's files, as far as they are known of a version."""
    found = {"test utterances": tags["test_digest"]} if "test_digest" in tags else {}
    with contextlib.suppress(ClepError, KeyError):
        found |= {f"corpus {name}": value for name, value in corpus_digests(store, _run(store, tags["run"])).items()}
    return found


def _run(store: Store, name: str) -> dict[str, Any]:
    said: dict[str, Any] | None = store.documents.read(f"runs/{name}.json")
    if said is None:
        raise StoreError("A run's file is gone.", where=store.documents.address(f"runs/{name}.json"))
    return said


def corpus_digests(store: Store, run: Mapping[str, Any]) -> dict[str, str]:
    """Return corpus -> content digest of its files, for one run's file: the lineage down to the checksums."""
    digests = {}
    for node_id, facts in run["stages"].items():
        stage, _, corpus = node_id.partition("/")
        record = store.previous(stage, facts["key"]) if stage == "source" and facts.get("key") else None
        if record:
            digests[corpus] = record.digests["content"]
    return digests


def promote(settings: Settings, preset: str, number: int, why: str) -> str:
    """Make a version the champion and keep the reason; return what was done.

    Raises:
        ConfigError: no reason, no such version, or not one of the row and fold that may be champion.
    """
    if not why.strip():
        raise ConfigError("A champion needs a reason, which is kept with it.", do='--why "checked by ear"')
    client = connect(settings)
    versions = {version.number: version for version in read_versions(client, preset)}
    eligible = [n for n, version in versions.items() if version.place[:2] == (SUPERVISED, MAIN_ROW)]
    if number not in eligible:
        raise ConfigError(
            "This version can't be the champion." if number in versions else "There is no such version.",
            got=f"version {number}" + (f" ({', '.join(versions[number].place)})" if number in versions else ""),
            expected=eligible,
            where=f"{model_name('classifier', preset)}, fold {SUPERVISED}, row {MAIN_ROW}",
        )
    before = next((version.number for version in versions.values() if version.champion), None)
    if number == before:
        return f"version {number} is the champion already"
    set_champion(client, model_name("classifier", preset), number, why.strip())
    unknown = "" if "uar" in versions[number].tags else f"; it is {NOT_EVALUATED}"
    return f"version {number} is the champion now" + (f"; it was version {before}" if before else "") + unknown
