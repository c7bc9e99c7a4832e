"""Protects worker processes: reports and errors reach the parent, and no worker outlives its run."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from clepdg.callbacks import Reporting
from clepdg.errors import ClepError, ConfigError, StoreError
from clepdg.store.documents import Documents
from clepdg.store.opening import open_store
from clepdg_tasks.engine import execute
from clepdg_tasks.engine import worker as worker_module
from clepdg_tasks.engine.node import Node, Work, decide
from clepdg_tasks.engine.worker import WorkerProcess
from clepdg_tasks.host.settings import PROJECT, Settings
from tests.unit import stage_functions


@pytest.fixture
def worker():
    worker = WorkerProcess()
    yield worker
    worker.end()


@pytest.fixture
def make(tmp_path):
    def work(content="x", reporting=None, **config):
        return Work(
            config={"content": content, **config},
            folder=tmp_path,
            inputs={},
            records={},
            previous=None,
            pins=Documents(tmp_path),
            device="cpu:1",
            workers=1,
            reporting=reporting or Reporting(),
        )

    return work


def pid_of(folder, seconds=60.0):
    """Return the pid of a stage that writes it as a file's name."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for path in folder.glob("pid-*"):
            return int(path.name.removeprefix("pid-"))
        time.sleep(0.05)
    raise AssertionError("the stage did not start")


def gone(pid, seconds=30.0):
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(seconds)
    return not psutil.pid_exists(pid)


def test_all_that_a_stage_reports_arrives_in_the_thread_that_waits(worker, make, caplog):
    caplog.set_level(logging.INFO)
    heard, threads = [], set()

    def log_metrics(metrics, step):
        heard.append((metrics, step))
        threads.add(threading.get_ident())

    reporting = Reporting(log_metrics=log_metrics, progress=lambda done, total: heard.append((done, total)))
    computed = worker.compute(stage_functions.talk, make(reporting=reporting))
    assert computed.digests == {"content": "x"}
    assert computed.figures["pid"] != os.getpid()
    assert computed.figures["device"] == "cpu:1"
    assert heard == [({"loss": 1.5}, 3), (1, 3), (2, 3), (3, 3)]
    assert threads == {threading.get_ident()}
    said = {(record.levelname, record.getMessage()) for record in caplog.records}
    assert {
        ("INFO", "an info of the library"),
        ("WARNING", "a warning of another"),
        ("INFO", "a printed line"),
        ("INFO", "bytes of a library in C, without an end of line"),
    } <= said
    assert any("a warning of Python" in message for _, message in said)


def test_one_process_computes_stage_after_stage(worker, make):
    pids = {worker.compute(stage_functions.talk, make(str(n))).figures["pid"] for n in range(3)}
    assert len(pids) == 1
    worker.end()
    assert gone(pids.pop())


def test_a_worker_outlives_the_thread_that_started_it(worker, make):
    """Folds of a run are computed by threads that end before the next stages begin."""
    pids = []

    def compute():
        pids.append(worker.compute(stage_functions.talk, make(str(len(pids)))).figures["pid"])

    for _ in range(2):
        thread = threading.Thread(target=compute)
        thread.start()
        thread.join(120)
        time.sleep(0.2)
    assert len(pids) == 2 and pids[0] == pids[1]


def test_errors_come_back_as_they_were_raised(worker, make):
    with pytest.raises(ConfigError) as refused:
        worker.compute(stage_functions.refuse, make())
    assert str(refused.value) == "This is refused.\n  got: x\n  do: nothing"
    with pytest.raises(ZeroDivisionError) as bug:
        worker.compute(stage_functions.stumble, make())
    assert "in stumble" in "".join(bug.value.__notes__)  # where it happened, in the worker
    with pytest.raises(OSError, match="No space left") as full:
        worker.compute(stage_functions.fill, make())
    assert full.value.errno == 28
    with pytest.raises(RuntimeError, match="Unpicklable: 1 and 2"):
        worker.compute(stage_functions.fail_oddly, make())


def test_a_killed_worker_is_one_clear_error_and_the_next_stage_gets_a_new_one(worker, make):
    with pytest.raises(ClepError, match=r"The training process was killed \(signal 9\)") as error:
        worker.compute(stage_functions.die, make())
    assert "last words" in str(error.value)
    assert "continues from the last checkpoint" in str(error.value)
    with pytest.raises(ClepError, match="exit code 3"):
        worker.compute(stage_functions.leave, make())
    assert worker.compute(stage_functions.talk, make()).digests == {"content": "x"}


@pytest.mark.parametrize("function", [stage_functions.sleep, stage_functions.ignore_and_sleep])
def test_a_worker_that_hangs_is_ended(worker, make, tmp_path, function):
    with pytest.raises(ClepError, match="hangs"):
        worker.compute(function, make(), patience=2.0)
    assert gone(pid_of(tmp_path))


class SlowToLoad:
    """Takes a while to be unpickled, as imports do on a busy machine."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __reduce__(self):
        return time.sleep, (self.seconds,)


def test_patience_counts_from_the_first_message(worker, make):
    computed = worker.compute(stage_functions.talk, make(slow=SlowToLoad(2.0)), patience=1.5)
    assert computed.digests == {"content": "x"}


def test_a_worker_that_never_starts_is_ended(worker, make, monkeypatch):
    monkeypatch.setattr(worker_module, "START_SECONDS", 1.0)
    with pytest.raises(ClepError, match="hangs"):
        worker.compute(stage_functions.talk, make(slow=SlowToLoad(60.0)), patience=0.5)


def test_closing_from_another_thread_ends_the_worker_for_good(worker, make, tmp_path):
    pids = []

    def stop():
        pids.append(pid_of(tmp_path))
        worker.close()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(ClepError, match="was stopped"):
        worker.compute(stage_functions.sleep, make())
    thread.join()
    assert gone(pids[0])
    with pytest.raises(ClepError, match="was stopped"):
        worker.compute(stage_functions.talk, make())


def test_a_report_that_fails_ends_the_worker(worker, make, tmp_path):
    def progress(done, total):
        raise ConnectionError("the server went away")

    with pytest.raises(ConnectionError):
        worker.compute(stage_functions.sleep, make(reporting=Reporting(progress=progress)))
    assert gone(pid_of(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_dies_with_its_parent(tmp_path, number):
    driver = f"""
from pathlib import Path
from clepdg.callbacks import Reporting
from clepdg.store.documents import Documents
from clepdg_tasks.engine.node import Work
from clepdg_tasks.engine.worker import WorkerProcess
from tests.unit import stage_functions
folder = Path({str(tmp_path)!r})
work = Work(config={{}}, folder=folder, inputs={{}}, records={{}}, previous=None, pins=Documents(folder),
            device="cpu", workers=1, reporting=Reporting())
WorkerProcess().compute(stage_functions.ignore_and_sleep, work)
"""
    parent = subprocess.Popen([sys.executable, "-c", driver], cwd=PROJECT)
    try:
        pid = pid_of(tmp_path)
    finally:
        parent.send_signal(number)
        parent.wait(30)
    assert gone(pid)


def one_stage(tmp_path, function, worker, device="cpu:1", training_seconds=None):
    """Run one torch stage in a store."""
    store = open_store(str(tmp_path / "store"))
    settings = Settings(
        home=tmp_path,
        store=str(store.root),
        tracking_url=None,
        device=device,
        workers=1,
        training_seconds=training_seconds,
    )
    node = Node(stage="classifier", name="c", compute=function, config={"content": "x"})
    return execute.run(
        node,
        decide(node, {}, store, dict),
        {},
        store,
        settings,
        worker=worker,
        reporting=lambda node, decision: contextlib.nullcontext(Reporting()),
    )


def test_a_stage_in_a_worker_is_committed_and_a_killed_one_holds_nothing(tmp_path, worker):
    with pytest.raises(ClepError, match="signal 9"):
        one_stage(tmp_path, stage_functions.die, worker)
    with pytest.raises(StoreError, match="what is done is kept"):
        one_stage(tmp_path, stage_functions.fill, worker)
    done = one_stage(tmp_path, stage_functions.talk, worker)  # neither the key's lock nor the device's is held
    assert done.record.digests == {"content": "x"}
    assert not list((tmp_path / "store").glob("*/*.partial"))
    assert one_stage(tmp_path, stage_functions.die, worker).reused


def test_the_time_limit_holds_for_a_training_that_hangs_in_a_worker(tmp_path, worker, monkeypatch):
    monkeypatch.setattr(execute, "EXTRA_SECONDS", 0.5)
    with pytest.raises(ClepError, match="hangs"):
        one_stage(tmp_path, stage_functions.sleep, worker, training_seconds=0.5)
