"""The care of a store: `verify` reads every byte of it, `gc` removes what nothing reaches any more."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from filelock import Timeout

from clepdg.store.layout import Item
from clepdg.store.record import OTHER_FORMAT, Record
from clepdg.store.store import Store
from tasks.engine import run_history
from tasks.engine.node import STAGES
from tasks.host.settings import Settings

RUNS = 10  # whose outputs stay
GRACE_HOURS = 24.0  # what is younger stays: somebody may be at work on it
PARTIAL_DAYS = 7.0  # ... and a working folder or checkpoint: somebody may go on with it
UNENDED_DAYS = 30.0  # a run that did not end counts as alive for so long after its last word

Reached = set[tuple[str, str]]  # (stage, key)


def verify(
    store: Store, *, dry_run: bool, progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[int, list[tuple[Item, str]]]:
    """Read every output of a store, and take back those that are not what they were.

    Args:
        dry_run: take nothing back.
        progress: called with (bytes done, bytes in all).

    Returns:
        How many outputs there are, and each damaged one with what is wrong with it; what another version wrote is
        named, and never taken back.
    """
    outputs = [item for item in store.items(STAGES) if item.kind == "output"]
    total, done, damaged = sum(item.bytes for item in outputs), 0, []
    for item in outputs:
        fault = store.fault(item.stage, item.key)
        if fault and _still_there(store, item):
            damaged.append((item, fault))
            if not (dry_run or fault.startswith(OTHER_FORMAT)):
                store.withdraw(item.stage, item.key)
        done += item.bytes
        progress(done, total)
    return len(outputs), damaged


def _still_there(store: Store, item: Item) -> bool:
    """Tell whether a fault is one: a run may have replaced the output while it was read."""
    try:
        with store.lock(item.stage, item.key, seconds=0):
            return store.fault(item.stage, item.key) not in (None, "new")
    except Timeout:
        return False


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """What `gc` would remove, and what stays."""

    items: list[Item]
    kept: int
    kept_bytes: int

    @property
    def bytes(self) -> int:
        """Bytes of what would be removed."""
        return sum(item.bytes for item in self.items)


def garbage(store: Store, settings: Settings, now: float | None = None) -> Garbage:
    """Find what nothing reaches: not the last runs, no run under way, no version of a model that has an alias.

    What is younger than GRACE_HOURS, or PARTIAL_DAYS, stays, and so does what is locked, whatever its age.

    Raises:
        ClepError: MLflow or the store does not answer; then nothing is known to be garbage.
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
    """Remove items, but not one that a run has taken in hand meanwhile; return how many went."""
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
    """Return the outputs of the last runs, and of all that have not ended; a run's file lists inputs as well."""
    reached: Reached = set()
    newer = 0
    for log, when in run_history.logs(store, count=1 << 30):
        alive = log.get("outcome") == run_history.UNENDED and now - when < 86400 * UNENDED_DAYS
        if newer < RUNS or alive:
            reached |= _keys(log["stages"])
        newer += not log.get("part")  # a part belongs to the run that waits for it
    return reached


def reached_by_versions(store: Store, settings: Settings) -> Reached:
    """Return the outputs behind the registered models that have an alias: the whole run that made each."""
    from tasks.tracking.client import aliased_versions

    reached: Reached = set()
    for stage, tags in aliased_versions(settings):
        reached |= {(stage, tags.get("stage_key", "")), ("evaluate", tags.get("evaluate_key", ""))}
        name = tags.get("run", "")
        log = store.documents.read(f"runs/{name}.json") if re.fullmatch(r"[\w-]+", name) else None
        if isinstance(log, dict) and isinstance(log.get("stages"), dict):
            reached |= _keys(log["stages"])
    return reached


def _keys(stages: dict[str, dict[str, str]]) -> Reached:
    return {(node_id.partition("/")[0], facts["key"]) for node_id, facts in stages.items() if facts.get("key")}


def describe(store: Store, item: Item) -> str:
    """Return a line about an item: its size, age, what it is and what it was made for."""
    record = store.previous(item.stage, item.key) if item.kind == "output" else None
    name = record.name if isinstance(record, Record) else "-"
    days = item.age / 86400
    return f"{item.bytes / 1e6:10.1f} MB  {days:6.1f} days  {item.kind:8s}  {item.stage:17s} {name:30s} {item.place}"
