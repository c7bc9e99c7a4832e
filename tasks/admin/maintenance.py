"""Verify a store's outputs, and collect its garbage."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from filelock import Timeout

from clepdg.store.layout import Item
from clepdg.store.record import OTHER_FORMAT, Record
from clepdg.store.store import Store
from clepdg_tasks.engine import run_history
from clepdg_tasks.engine.node import STAGES
from clepdg_tasks.engine.run_history import split_id
from clepdg_tasks.host.settings import Settings

RUNS = 10  # the number of last runs whose outputs are kept
GRACE_HOURS = 24.0  # younger items are kept: another process may be using them
PARTIAL_DAYS = 7.0  # the same for working folders and checkpoints, from which a run may continue
UNFINISHED_DAYS = 30.0  # an unfinished run counts as running for this long after its last update

Reached = set[tuple[str, str]]  # (stage, key)


def verify(
    store: Store, *, dry_run: bool, progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[int, list[tuple[Item, str]]]:
    """Read every output of a store, and withdraw the damaged ones.

    Args:
        dry_run: withdraw nothing.
        progress: called with (bytes done, bytes in all).

    Returns:
        The number of outputs, and each damaged one with its fault. Outputs of another version are listed as well, but
        never withdrawn.
    """
    outputs = [item for item in store.items(STAGES) if item.kind == "output"]
    total, done, damaged = sum(item.bytes for item in outputs), 0, []
    for item in outputs:
        fault = store.fault(item.stage, item.key)
        if fault and _is_confirmed(store, item):
            damaged.append((item, fault))
            if not (dry_run or fault.startswith(OTHER_FORMAT)):
                store.withdraw(item.stage, item.key)
        done += item.bytes
        progress(done, total)
    return len(outputs), damaged


def _is_confirmed(store: Store, item: Item) -> bool:
    """Return whether a fault persists: a run may have replaced the output."""
    try:
        with store.lock(item.stage, item.key, seconds=0):
            return store.fault(item.stage, item.key) not in (None, "new")
    except Timeout:
        return False


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """Items that `gc` would remove, with counts of those that it keeps."""

    items: list[Item]
    kept: int
    kept_bytes: int

    @property
    def bytes(self) -> int:
        """Return the bytes that would be removed."""
        return sum(item.bytes for item in self.items)


def garbage(store: Store, settings: Settings, now: float | None = None) -> Garbage:
    """Find items that no recent run and no aliased model version needs.

    Items younger than GRACE_HOURS (working folders: PARTIAL_DAYS) are kept, and locked ones at any age.

    Raises:
        ClepError: MLflow or the store does not answer.
    """
    reached = reached_by_runs(store, time.time() if now is None else now) | reached_by_versions(store, settings)
    items, kept = [], Counter[str]()
    for item in store.items(STAGES):
        wanted = item.kind == "output" and (item.stage, item.key) in reached
        young = item.age < (86400 * PARTIAL_DAYS if item.kind == "partial" else 3600 * GRACE_HOURS)
        if wanted or young or _locked(store, item):
            kept.update(items=1, bytes=item.bytes)
        else:
            items.append(item)
    return Garbage(items=items, kept=kept["items"], kept_bytes=kept["bytes"])


def remove(store: Store, items: Iterable[Item]) -> int:
    """Remove items except those that a run has locked; return their number."""
    removed = 0
    for item in items:
        try:
            with store.lock(item.stage, item.key, seconds=0):
                store.remove(item)
                removed += 1
        except Timeout:
            continue
    return removed


def _locked(store: Store, item: Item) -> bool:
    try:
        with store.lock(item.stage, item.key, seconds=0):
            return False
    except Timeout:
        return True


def reached_by_runs(store: Store, now: float) -> Reached:
    """Return the outputs of the last runs and of all unfinished ones.

    A run's file lists the stages that it reused as well.
    """
    reached: Reached = set()
    newer = 0
    for log, when in run_history.logs(store, count=1 << 30):
        running = log.get("outcome") == run_history.UNFINISHED and now - when < 86400 * UNFINISHED_DAYS
        if newer < RUNS or running:
            reached |= _keys(log["stages"])
        newer += not log.get("part")  # a part belongs to the run that waits for it
    return reached


def reached_by_versions(store: Store, settings: Settings) -> Reached:
    """Return the outputs of the runs that made the aliased model versions."""
    from clepdg_tasks.tracking.client import aliased_versions

    reached: Reached = set()
    for stage, tags in aliased_versions(settings):
        reached |= {(stage, tags.get("stage_key", "")), ("evaluate", tags.get("evaluate_key", ""))}
        name = tags.get("run", "")
        log = store.documents.read(f"runs/{name}.json") if re.fullmatch(r"[\w-]+", name) else None
        if isinstance(log, dict) and isinstance(log.get("stages"), dict):
            reached |= _keys(log["stages"])
    return reached


def _keys(stages: dict[str, dict[str, str]]) -> Reached:
    return {(split_id(node_id)[0], facts["key"]) for node_id, facts in stages.items() if facts.get("key")}


def describe(store: Store, item: Item) -> str:
    """Return an item's line in a listing: size, age, kind, stage, name, place."""
    record = store.previous(item.stage, item.key) if item.kind == "output" else None
    name = record.name if isinstance(record, Record) else "-"
    days = item.age / 86400
    return f"{item.bytes / 1e6:10.1f} MB  {days:6.1f} days  {item.kind:8s}  {item.stage:17s} {name:30s} {item.place}"
