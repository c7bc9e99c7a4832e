"""Registered classifiers side by side: their figures, paired differences, and what changed between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clepdg.corruptions import CLEAN
from clepdg.emotions import labels
from clepdg.errors import ClepError, ConfigError, StoreError
from clepdg.protocols import MAIN_ROW, SUPERVISED
from clepdg.store import Record, Store
from tasks.registry import CHAMPION, model_name, set_champion
from tasks.settings import Settings
from tasks.stages import config_changes
from tasks.tracking import connect, first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from clepdg.intervals import Interval


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
        do = f"run the pipeline first (clep-dg run --preset {preset})"
        raise ConfigError("No classifier is registered yet.", got=first_line(error), where=name, do=do) from error
    found, token = [], None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        found += [Version(number=int(v.version), champion=v.version == champion, tags=dict(v.tags)) for v in page]
        token = page.token
        if not token:
            return sorted(found, key=lambda version: version.number)


def paired_difference(store: Store, new: Mapping[str, str], old: Mapping[str, str]) -> "Interval | str":
    """Return UAR of a version minus that of another on the same test utterances, or why it can't be had.

    Args:
        new: tags of a version: row, seed, test_digest and evaluate_key.
        old: tags of the version that it is held against.
    """
    import numpy as np

    from clepdg.answers import COLUMNS, read_answers
    from clepdg.evaluate import LEFT_OUT
    from clepdg.intervals import paired
    from clepdg.reading import read_frame

    if new.get("test_digest") != old.get("test_digest") or "test_digest" not in new:
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
    return paired(
        a.truth,
        a.predicted,
        b.predicted,
        a.clusters,
        keep,
        resamples=settings["resamples"],
        confidence=settings["confidence"],
        rng=np.random.default_rng(0),
    )


def convinces(difference: "Interval | str") -> bool:
    """Return whether a paired difference makes a version champion by itself: over speakers, and wholly above 0."""
    from clepdg.intervals import UTTERANCES

    return not isinstance(difference, str) and difference.method != UTTERANCES and difference.low > 0


def compare(settings: Settings, preset: str) -> str:
    """Return all versions of a preset's classifier in a table, then each rival of the champion against it."""
    client, store = connect(settings), settings.open_store()
    versions = read_versions(client, preset)
    lines = [f"{model_name('classifier', preset)}", ""]
    head = f"{'version':>7s}  {'':8s}  {'fold':24s} {'row':18s} {'seed':8s}   UAR  [low, high]    WAR     n  test data"
    lines.append(head)
    lines += [_line(version) for version in versions]
    champion = next((version for version in versions if version.champion), None)
    if champion is None:
        return "\n".join([*lines, "", "No version is the champion."])
    rivals = [v for v in versions if v.place[:2] == champion.place[:2] and v.number != champion.number]
    for version in rivals:
        lines += ["", f"version {version.number} against the champion, version {champion.number}"]
        lines.append(f"  UAR difference: {shown_difference(paired_difference(store, version.tags, champion.tags))}")
        lines += [f"  {change}" for change in changes(store, champion.tags, version.tags)] or ["  nothing changed"]
    if not rivals:
        lines += ["", f"No other version of fold {champion.place[0]}, row {champion.place[1]} is there to compare."]
    return "\n".join(lines)


def _line(version: Version) -> str:
    fold, row, seed = version.place
    tags = version.tags
    figures = "     -" if "uar" not in tags else (
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
    """Return what changed between two versions' runs: settings key by key, and the digests of the corpora's files."""
    try:
        runs = [_run(store, tags["run"]) for tags in (old, new)]
    except (ClepError, KeyError) as error:
        return [f"what changed is not known: {error}"]
    lines = [f"setting {line}" for line in config_changes(runs[0]["config"], runs[1]["config"])]
    before, after = (corpus_digests(store, run) for run in runs)
    for corpus in sorted({*before, *after}):
        if before.get(corpus) != after.get(corpus):
            lines.append(f"corpus {corpus} {before.get(corpus, 'none')[:12]} -> {after.get(corpus, 'none')[:12]}")
    return lines


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
        ConfigError: there is no such version, or it is not of the row and fold that may be champion.
    """
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
    set_champion(client, model_name("classifier", preset), number, why)
    return f"version {number} is the champion now" + (f"; it was version {before}" if before else "")
