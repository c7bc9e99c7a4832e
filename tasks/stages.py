"""Run one stage: its key, reuse, lock, commit, and why.

A stage is a Node: what it is called, the configuration it reads and nothing else, and its inputs by content digest.
`decide` says without running whether its output stands and, if not, why; `run` computes what does not.
"""

import contextlib
import errno
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from clepdg.documents import Documents
from clepdg.errors import ClepError, StoreError
from clepdg.pace import USUAL, Pace
from clepdg.reporting import Reporting
from clepdg.store import Record, Store, plain, stage_key
from tasks.children import Child
from tasks.settings import Settings, resolve_device
from tasks.versions import VERSIONS

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)

STAGES = tuple(VERSIONS)  # in the order of the pipeline
DATA_STAGES = ("source", "index", "shard")  # run in parallel; the others have their device to themselves
TRAINED = ("clep", "acpt", "classifier")  # report every step
STARTING_SECONDS = 120.0  # a child may need so long before and after its steps
STANDS = "same settings and inputs"  # why an output is reused
LIBRARIES = ("torch", "transformers", "soundfile", "soxr", "numpy", "scikit-learn", "webdataset")


@dataclass(frozen=True, kw_only=True)
class Computed:
    """What a stage's function returns: digests of what came out, and figures for checks and tables."""

    digests: Mapping[str, str]
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a stage's function gets: nothing that is not in its key, but for where and how to work.

    Attributes:
        folder: where the output goes; *.resume files in it survive a kill.
        inputs: input name -> folder of that output.
        records: input name -> its record.
        previous: folder of the last run's output of this node, if this machine has it.
        pins: the store's documents; pins/<corpus>.json holds from the first download on, and outlives every output.
        device: the first of devices.
        devices: one, or one for each rank that there is one for.
    """

    config: Mapping[str, Any]
    folder: Path
    inputs: Mapping[str, Path]
    records: Mapping[str, Record]
    previous: Path | None
    pins: Documents
    device: str
    workers: int
    reporting: Reporting
    devices: tuple[str, ...] = ("cpu",)
    pace: Pace = USUAL


@dataclass(frozen=True, kw_only=True)
class Node:
    """One stage of one corpus, fold or row.

    Attributes:
        config: plain values and dataclasses; in the key.
        inputs: input name -> id of a node, or "id#part" to depend on a part of it alone; their digests are in the key.
        uses: like inputs, for what is read but already identified by an input; not in the key.
        state: input name -> digest of something outside the store; in the key.
        accept: refuses a record by its figures, given with where its output lies, for a person; called on every run,
            so that a reuse never skips it.
        fold: the fold that it belongs to; None: several share it. Folds need nothing of each other.
        ranks: processes that compute it together.
    """

    stage: str
    name: str
    compute: Callable[[Work], Computed]
    config: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    uses: Mapping[str, str] = field(default_factory=dict)
    state: Mapping[str, str] = field(default_factory=dict)
    accept: Callable[[Record, str], None] = lambda record, place: None
    fold: str | None = None
    ranks: int = 1

    @property
    def id(self) -> str:
        """Stage and name: unique in a graph."""
        return f"{self.stage}/{self.name}"

    @property
    def needs(self) -> list[str]:
        """Ids of the nodes this one reads."""
        return list(dict.fromkeys(ref.partition("#")[0] for ref in [*self.inputs.values(), *self.uses.values()]))


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether a node's output stands, and why not. key is None where an input is not known yet."""

    key: str | None
    record: Record | None
    reason: str
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a node in a run."""

    record: Record
    reused: bool
    reason: str
    seconds: float


def decide(
    node: Node, records: Mapping[str, Record], store: Store, last: Mapping[str, str], redo: frozenset[str] = frozenset()
) -> Decision:
    """Decide about a node from the records of its inputs; computes nothing.

    Args:
        records: node id -> record of what stands.
        last: node id -> key in the last run, to say what changed.
        redo: stages to compute again even if they stand.
    """
    missing = [need for need in node.needs if need not in records]
    if missing:
        return Decision(key=None, record=None, reason=f"depends on {missing[0].replace('/', ' ', 1)}")
    digests = dict(node.state)
    for name, ref in node.inputs.items():
        node_id, _, part = ref.partition("#")
        digests[name] = records[node_id].digests[part or "content"]
    key = stage_key(node.stage, VERSIONS[node.stage], node.config, digests)
    found = store.lookup(node.stage, key)
    if isinstance(found, Record):
        if node.stage not in redo:
            return Decision(key=key, record=found, reason=STANDS, digests=digests)
        return Decision(key=key, record=None, reason="asked to be computed again", digests=digests)
    if found == "new" and last.get(node.id) == key:
        found = "its output was deleted"
    elif found == "new" and node.id in last:
        before = store.previous(node.stage, last[node.id])
        found = _difference(before, node, digests) if before else found
    return Decision(key=key, record=None, reason=found, digests=digests)


def _difference(before: Record, node: Node, digests: Mapping[str, str]) -> str:
    """Say which part of the key changed since the last run."""
    if before.version != VERSIONS[node.stage]:
        return f"version {before.version} -> {VERSIONS[node.stage]}"
    changes = [f"config {line}" for line in config_changes(before.config, plain(node.config))]
    names = sorted({*before.inputs, *digests})
    changes += [f"input {name} changed" for name in names if before.inputs.get(name) != digests.get(name)]
    return "; ".join(changes[:3]) + (f"; and {len(changes) - 3} more" if len(changes) > 3 else "") if changes else "new"


def config_changes(before: Any, after: Any, prefix: str = "") -> list[str]:
    """Return lines "a.b 10 -> 15" for what differs between two plain configurations."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = sorted({*before, *after})
        lines = [config_changes(before.get(n), after.get(n), f"{prefix}.{n}" if prefix else n) for n in names]
        return [line for group in lines for line in group]
    return [] if before == after else [f"{prefix} {_short(before)} -> {_short(after)}"]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def run(
    node: Node,
    records: Mapping[str, Record],
    store: Store,
    settings: Settings,
    *,
    last: Mapping[str, str],
    redo: frozenset[str] = frozenset(),
    child: Child | None = None,
    reporting: Callable[[Node, Decision], contextlib.AbstractContextManager[Reporting]],
    stopping: threading.Event | None = None,
) -> Outcome:
    """Bring a node up to date: reuse its output if it stands, otherwise compute and commit it.

    Args:
        child: the process to compute it in; None: this one, or for several ranks one of its own.
        reporting: opens where metrics and progress of a computed stage go.
        stopping: set where the run is being stopped: what waits for a lock of another run gives up.

    Raises:
        ClepError: the stage failed, or its output is refused; nothing half-done is kept as done.
    """
    started = time.monotonic()
    decision = decide(node, records, store, last, redo)
    if decision.key is None:
        raise StoreError("A stage was started before its inputs.", got=decision.reason, where=node.id)
    record, reason, reused = decision.record, decision.reason, decision.record is not None
    if record is None:
        give_up = stopping.is_set if stopping else lambda: False
        with store.lock(node.stage, decision.key, give_up=give_up), _clear_disk_errors(store, node):
            found = store.lookup(node.stage, decision.key)
            if isinstance(found, Record) and node.stage not in redo:
                record, reason, reused = found, "computed by another run meanwhile", True
            elif node.stage not in redo and (kept := store.complete(node.stage, decision.key)):
                record, reason, reused = kept, "computed by an earlier run, which could not store it", True
            else:
                record = _compute(node, decision, records, store, settings, last, child, reporting, give_up)
    node.accept(record, store.address(record.stage, record.key))
    return Outcome(record=record, reused=reused, reason=reason, seconds=time.monotonic() - started)


def _compute(
    node: Node,
    decision: Decision,
    records: Mapping[str, Record],
    store: Store,
    settings: Settings,
    last: Mapping[str, str],
    child: Child | None,
    reporting: Callable[[Node, Decision], contextlib.AbstractContextManager[Reporting]],
    give_up: Callable[[], bool],
) -> Record:
    assert decision.key is not None
    refs = {name: ref.partition("#")[0] for name, ref in {**node.inputs, **node.uses}.items()}
    inputs = {name: store.local(records[ref].stage, records[ref].key) for name, ref in refs.items()}
    folder = store.partial(node.stage, decision.key)
    _clear(folder)
    with (
        _devices(node, store, settings, give_up) as devices,
        reporting(node, decision) as report,
        store.checkpoints(node.stage, decision.key),
    ):
        started = time.monotonic()
        work = Work(
            config=node.config,
            folder=folder,
            inputs=inputs,
            records={name: records[ref] for name, ref in refs.items()},
            previous=store.at_hand(node.stage, last[node.id]) if node.id in last else None,
            pins=store.documents,
            device=devices[0],
            devices=devices,
            workers=settings.workers,
            reporting=report,
            pace=settings.pace,
        )
        computed = _call(node, work, child)
        return store.commit(
            Record(
                stage=node.stage,
                name=node.name,
                key=decision.key,
                version=VERSIONS[node.stage],
                config=plain(node.config),
                inputs=dict(decision.digests),
                digests=dict(computed.digests),
                figures=plain(computed.figures),
                files={},
                seconds=round(time.monotonic() - started, 3),
                versions=library_versions(),
            )
        )


@contextlib.contextmanager
def _clear_disk_errors(store: Store, node: Node) -> Iterator[None]:
    """Say what to do where a stage can't write; what is done, a training's last checkpoint included, is kept."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ClepError) or _errno(error) not in UNWRITABLE:
            raise
        raise StoreError(
            "A stage could not write its output.",
            got=error,
            where=f"{node.id}, {store.root}",
            do="make room (or the folder writable) and run the same command again: what is done is kept",
        ) from error


def _errno(error: Exception) -> int | None:
    """Return the system's number of an error; what is written in Rust (safetensors) has it in its text alone."""
    if isinstance(error, OSError):
        return error.errno
    named = re.search(r"\(os error (\d+)\)", str(error))
    return int(named[1]) if named else None


def _clear(folder: Path) -> None:
    """Remove what a killed run left, but for its *.resume state."""
    for path in folder.iterdir():
        if path.suffix == ".resume":
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _call(node: Node, work: Work, child: Child | None) -> Computed:
    """Call a stage's function, here or in a child process."""
    if child is None and node.ranks == 1:
        return node.compute(work)
    limit = work.pace.limit_seconds if node.stage in TRAINED else None
    patience = None if limit is None else limit + STARTING_SECONDS
    process = child or Child()
    try:
        return process.compute(node.compute, work, patience=patience)
    finally:
        if child is None:
            process.end()


@contextlib.contextmanager
def _devices(node: Node, store: Store, settings: Settings, give_up: Callable[[], bool]) -> Iterator[tuple[str, ...]]:
    """Hold the devices of a stage: one torch stage at a time, since a second would share random state and cores."""
    if node.stage in DATA_STAGES:
        yield ("cpu",)
        return
    named = tuple(resolve_device(name) for name in settings.device.split(","))[: node.ranks]
    locks = store.root / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        for device in sorted(named):  # in one order everywhere, so that no two runs wait for each other
            lock = FileLock(locks / f"device-{device.replace(':', '-')}")
            try:
                held.enter_context(lock.acquire(cancel_check=give_up))
            except Timeout as error:
                raise StoreError("The wait for the device was given up.", where=device) from error
        yield named


_versions: dict[str, str] = {}
_versions_lock = threading.Lock()


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that results come from; recorded, not in any key."""
    with _versions_lock:
        if not _versions:
            _versions.update({name: metadata.version(name) for name in LIBRARIES})
    return dict(_versions)
