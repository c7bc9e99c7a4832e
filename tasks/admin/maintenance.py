"""Verify a store's outputs, and collect its garbage."""

import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from filelock import Timeout

from clepdg.store.layout import Item
from clepdg.store.record import OTHER_FORMAT, Record
from clepdg.store.run_files import is_run_file
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
        if store.fault(item.stage, item.key) and (fault := _confirm(store, item, dry_run=dry_run)):
            damaged.append((item, fault))
        done += item.bytes
        progress(done, total)
    return len(outputs), damaged


def _confirm(store: Store, item: Item, *, dry_run: bool) -> str | None:
    """Return an output's fault if it persists, and withdraw the output.

    A run may have replaced it, or may be replacing it.
    """
    try:
        with store.lock(item.stage, item.key, seconds=0):
            fault = store.fault(item.stage, item.key)
            if fault is None or fault == "new":
                return None
            if not (dry_run or fault.startswith(OTHER_FORMAT)):
                store.withdraw(item.stage, item.key)
            return fault
    except Timeout:
        return None


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """Items that `gc` would remove, with counts of those that it keeps.

    Attributes:
        reached: outputs that are needed.
        runs: states of the runs' files from which that was read.
    """

    items: list[Item]
    kept: int
    kept_bytes: int
    reached: Reached
    runs: dict[str, tuple[int, float]]

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
    runs = store.documents.states("runs")
    reached = reached_by_runs(store, time.time() if now is None else now) | reached_by_versions(store, settings)
    items, kept = [], Counter[str]()
    for item in store.items(STAGES):
        if _is_needed(item, reached) or _locked(store, item):
            kept.update(items=1, bytes=item.bytes)
        else:
            items.append(item)
    return Garbage(items=items, kept=kept["items"], kept_bytes=kept["bytes"], reached=reached, runs=runs)


def _is_needed(item: Item, reached: Reached) -> bool:
    wanted = item.kind == "output" and (item.stage, item.key) in reached
    return wanted or item.age < (86400 * PARTIAL_DAYS if item.kind == "partial" else 3600 * GRACE_HOURS)


def remove(store: Store, found: Garbage) -> list[Item]:
    """Remove garbage, and return the removed items.

    Each item is looked at again under the locks that runs take: those that a run needs by now, or works on, stay.
    """
    removed, reached, runs = [], set(found.reached), found.runs
    for item in found.items:
        with contextlib.suppress(Timeout), run_history.deciding(store), store.lock(item.stage, item.key, seconds=0):
            now = store.documents.states("runs")
            for name in (name for name, state in now.items() if runs.get(name) != state):
                reached |= _listed(store, name)
            runs = now
            again = [each for each in store.items((item.stage,), item.key) if each.place == item.place]
            if again and not _is_needed(again[0], reached):
                store.remove(item)
                removed.append(item)
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
    for _, log, when in store.documents.newest("runs", 1 << 30):
        if not is_run_file(log):
            continue
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
        reached |= _listed(store, f"runs/{name}.json") if re.fullmatch(r"[\w-]+", name) else set()
    return reached


def _listed(store: Store, name: str) -> Reached:
    """Return the outputs that a run's file lists.

    Raises:
        StoreError: the store does not answer, or the file is damaged.
    """
    content = store.documents.read(name)
    return _keys(content["stages"]) if is_run_file(content) else set()


def _keys(stages: dict[str, dict[str, str]]) -> Reached:
    return {(split_id(node_id)[0], facts["key"]) for node_id, facts in stages.items() if facts.get("key")}


def describe(store: Store, item: Item) -> str:
    """Return an item's line in a listing: size, age, kind, stage, name, place."""
    record = store.previous(item.stage, item.key) if item.kind == "output" else None
    name = record.name if isinstance(record, Record) else "-"
    days = item.age / 86400
    return f"{item.bytes / 1e6:10.1f} MB  {days:6.1f} days  {item.kind:8s}  {item.stage:17s} {name:30s} {item.place}"
