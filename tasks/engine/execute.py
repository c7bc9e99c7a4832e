"""Bring one stage up to date: reuse what stands; else lock, compute on its devices and commit, or lose nothing."""

import contextlib
import errno
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from filelock import FileLock, Timeout

from clepdg.callbacks import Reporting
from clepdg.errors import ClepError, StoreError
from clepdg.hashing import plain
from clepdg.store.record import Record
from clepdg.store.store import Store
from tasks.engine.node import DATA_STAGES, TRAINED, Computed, Decision, Node, Outcome, Work
from tasks.engine.versions import VERSIONS
from tasks.engine.worker import Child
from tasks.host.settings import Settings, resolve_device

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
STARTING_SECONDS = 120.0  # a child may need so long before and after its steps
LIBRARIES = ("torch", "transformers", "soundfile", "soxr", "numpy", "scikit-learn", "webdataset")


def run(
    node: Node,
    decision: Decision,
    records: Mapping[str, Record],
    store: Store,
    settings: Settings,
    *,
    redo: frozenset[str] = frozenset(),
    child: Child | None = None,
    reporting: Callable[[Node, Decision], contextlib.AbstractContextManager[Reporting]],
    stopping: threading.Event | None = None,
    waiting: Callable[[str], None] = lambda said: None,
) -> Outcome:
    """Bring a node up to date: reuse its output if it stands, otherwise compute and commit it.

    Args:
        decision: what `decide` says of it.
        child: the process to compute it in; None: this one, or for several ranks one of its own.
        reporting: opens where metrics and progress of a computed stage go.
        stopping: set where the run is being stopped: what waits for a lock of another run gives up.
        waiting: told once of a lock that another run has.

    Raises:
        ClepError: the stage failed, or its output is refused; nothing half-done is kept as done.
    """
    started = time.monotonic()
    if decision.key is None:
        raise StoreError("A stage was started before its inputs.", got=decision.reason, where=node.id)
    record, reason, reused = decision.record, decision.reason, decision.record is not None
    if record is None:
        give_up = stopping.is_set if stopping else lambda: False
        asked = _telling(give_up, waiting, f"{node.id} waits: another run computes it")
        with store.lock(node.stage, decision.key, give_up=asked), _clear_disk_errors(store, node):
            found = store.lookup(node.stage, decision.key)
            if isinstance(found, Record) and node.stage not in redo:
                record, reason, reused = found, "computed by another run meanwhile", True
            elif node.stage not in redo and (kept := store.complete(node.stage, decision.key)):
                record, reason, reused = kept, "computed by an earlier run, which could not store it", True
            else:
                asked = _telling(give_up, waiting, f"{node.id} waits: another run has the device")
                record = _compute(node, decision, records, store, settings, child, reporting, asked)
    node.accept(record, store.address(record.stage, record.key))
    return Outcome(record=record, reused=reused, reason=reason, seconds=time.monotonic() - started)


def _telling(give_up: Callable[[], bool], waiting: Callable[[str], None], said: str) -> Callable[[], bool]:
    """Return give_up, which is asked while a lock is waited for, such that its first call tells a person."""
    told = False

    def asked() -> bool:
        nonlocal told
        if not told:
            told = True
            waiting(said)
        return give_up()

    return asked


def _compute(
    node: Node,
    decision: Decision,
    records: Mapping[str, Record],
    store: Store,
    settings: Settings,
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
            previous=store.at_hand(node.stage, decision.before) if decision.before else None,
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
