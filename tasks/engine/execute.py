"""Reuse a stage's stored output, or lock, compute and commit it."""

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
from clepdg_tasks.engine.node import DATA_STAGES, TRAINED, Computed, Decision, Node, Outcome, Work
from clepdg_tasks.engine.usage import compute_measured
from clepdg_tasks.engine.versions import VERSIONS
from clepdg_tasks.engine.worker import WorkerProcess
from clepdg_tasks.host.settings import Settings, resolve_device

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
EXTRA_SECONDS = 120.0  # beyond training_seconds: time before the first and after the last step of a training
LIBRARIES = ("torch", "transformers", "soundfile", "soxr", "numpy", "scikit-learn", "webdataset")


def run(
    node: Node,
    decision: Decision,
    records: Mapping[str, Record],
    store: Store,
    settings: Settings,
    *,
    redo: frozenset[str] = frozenset(),
    worker: WorkerProcess | None = None,
    reporting: Callable[[Node, Decision], contextlib.AbstractContextManager[Reporting]],
    stopping: threading.Event | None = None,
    waiting: Callable[[str], None] = lambda message: None,
) -> Outcome:
    """Reuse a node's stored output, or compute and commit it.

    Args:
        decision: the result of `decide` for this node.
        worker: the process that computes it; None: this process, or a new worker where there are several ranks.
        reporting: context manager that receives metrics and progress of a computed stage.
        stopping: set when the run is stopped: waiting for a lock of another run then fails.
        waiting: called once with a message if another run holds a lock.

    Raises:
        ClepError: the stage failed, or its output is refused; an incomplete output is never committed.
    """
    started = time.monotonic()
    if decision.key is None:
        raise StoreError("A stage was started before its inputs.", got=decision.reason, where=node.id)
    record, reason, reused = decision.record, decision.reason, decision.record is not None
    if record is None:
        give_up = stopping.is_set if stopping else lambda: False
        cancel = _announcing(give_up, waiting, f"{node.id} waits: another run computes it")
        with store.lock(node.stage, decision.key, give_up=cancel), _explain_disk_errors(store, node):
            found = node.find(store, decision.key)
            if isinstance(found, Record) and node.stage not in redo:
                record, reason, reused = found, "computed by another run in the meantime", True
            elif node.stage not in redo and (kept := store.complete(node.stage, decision.key)):
                record, reason, reused = kept, "computed by an earlier run, which could not store it", True
            else:
                cancel = _announcing(give_up, waiting, f"{node.id} waits: another run has the device")
                record = _compute(node, decision, records, store, settings, worker, reporting, cancel)
    node.accept(record, store.address(record.stage, record.key))
    seconds = time.monotonic() - started if reused else record.seconds  # without waiting for locks and for MLflow
    return Outcome(record=record, reused=reused, reason=reason, seconds=seconds)


def _announcing(give_up: Callable[[], bool], waiting: Callable[[str], None], message: str) -> Callable[[], bool]:
    """Return a lock's `give_up` that first shows a message, once."""
    announced = False

    def cancel() -> bool:
        nonlocal announced
        if not announced:
            announced = True
            waiting(message)
        return give_up()

    return cancel


def _compute(
    node: Node,
    decision: Decision,
    records: Mapping[str, Record],
    store: Store,
    settings: Settings,
    worker: WorkerProcess | None,
    reporting: Callable[[Node, Decision], contextlib.AbstractContextManager[Reporting]],
    give_up: Callable[[], bool],
) -> Record:
    assert decision.key is not None
    read = {name: records[ref.id] for name, ref in node.refs.items()}
    inputs = {name: store.local(record.stage, record.key) for name, record in read.items()}
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
            records=read,
            refs=node.refs,
            previous=store.at_hand(node.stage, decision.before) if decision.before else None,
            pins=store.documents,
            device=devices[0],
            devices=devices,
            workers=settings.workers,
            reporting=report,
            checkpointing=settings.checkpointing,
        )
        computed = _call(node, work, worker)
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
                cpu_seconds=computed.cpu_seconds,
                device=", ".join(devices),
                peak_bytes=computed.peak_bytes,
                versions=library_versions(),
            )
        )


@contextlib.contextmanager
def _explain_disk_errors(store: Store, node: Node) -> Iterator[None]:
    """Raise a StoreError with advice where a stage can't write."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ClepError) or _errno(error) not in UNWRITABLE:
            raise
        raise StoreError(
            "A stage could not write its output.",
            got=error,
            where=f"{node.id}, {store.root}",
            do="free disk space (or make the folder writable) and run the same command again: what is done is kept",
        ) from error


def _errno(error: Exception) -> int | None:
    """Return the errno of an error; safetensors has it in its message only."""
    if isinstance(error, OSError):
        return error.errno
    named = re.search(r"\(os error (\d+)\)", str(error))
    return int(named[1]) if named else None


def _clear(folder: Path) -> None:
    """Remove all that a killed run left except its *.resume state."""
    for path in folder.iterdir():
        if path.suffix == ".resume":
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _call(node: Node, work: Work, worker: WorkerProcess | None) -> Computed:
    """Call a stage's function, here or in a worker process."""
    if worker is None and node.ranks == 1:
        return compute_measured(node.compute, work)
    limit = work.checkpointing.limit_seconds if node.stage in TRAINED else None
    patience = None if limit is None else limit + EXTRA_SECONDS
    process = worker or WorkerProcess()
    try:
        return process.compute(node.compute, work, patience=patience)
    finally:
        if worker is None:
            process.end()


@contextlib.contextmanager
def _devices(node: Node, store: Store, settings: Settings, give_up: Callable[[], bool]) -> Iterator[tuple[str, ...]]:
    """Lock the devices of a stage, one torch stage per device.

    A second stage on the same device would share its random state and cores.
    """
    if node.stage in DATA_STAGES:
        yield ("cpu",)
        return
    named = tuple(resolve_device(name) for name in settings.device.split(","))[: node.ranks]
    named = tuple("cpu:0" if name == "cpu" else name for name in named)  # one name, one lock
    locks = store.root / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        for device in sorted(named):  # one order everywhere, against deadlocks
            lock = FileLock(locks / f"device-{device.replace(':', '-')}")
            try:
                held.enter_context(lock.acquire(cancel_check=give_up))
            except Timeout as error:
                raise StoreError("The run was stopped while it waited for a device.", where=device) from error
        yield tuple("cpu" if name.startswith("cpu") else name for name in named)


_versions: dict[str, str] = {}
_versions_lock = threading.Lock()


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that results depend on.

    They are recorded with each output but are in no key.
    """
    with _versions_lock:
        if not _versions:
            _versions.update({name: metadata.version(name) for name in LIBRARIES})
    return dict(_versions)
