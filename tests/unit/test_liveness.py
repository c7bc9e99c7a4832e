"""Protects the order of runs, and that killed runs are found, whatever the clock says."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clepdg.errors import StoreError
from clepdg.store.opening import open_store
from clepdg_tasks.engine import run_history
from clepdg_tasks.engine.run_history import Arguments
from clepdg_tasks.host import liveness

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "a störe"))


def start(store, monkeypatch, seconds, **arguments):
    """Start a run at a time of the clock, and return its name."""
    with monkeypatch.context() as clock:
        clock.setattr(run_history, "stamp", lambda store: stamp(store, lambda: seconds))
        log = run_history.start(store, Arguments(preset="demo", overrides=arguments), config())
    log.stages = {"source/c": {"key": str(arguments)}}
    log.write()
    return log.path.stem


stamp = run_history.stamp


def config():
    return {"preset": "demo", "backbone": {"name": "micro"}, "corpora": ["c"]}


@pytest.mark.parametrize(
    "times",
    [
        pytest.param([1e9, 1e9, 1e9, 1e9], id="a clock that stands"),
        pytest.param([2e9, 1e9, 1.5e9, 1e9], id="a clock set back"),
        pytest.param([1e9, 9e9, 1e9, 1e9], id="a clock that jumped ahead and back"),
        pytest.param([1e9, 1e9 + 0.9, 1e9 + 0.1, 1e9 + 5], id="a clock that trembles"),
    ],
)
def test_the_last_run_is_the_last_whatever_the_clock_says(store, monkeypatch, times):
    names = [start(store, monkeypatch, seconds, number=number) for number, seconds in enumerate(times)]
    assert names == sorted(names)
    newest, _ = run_history.logs(store)[0]
    assert newest["arguments"]["overrides"] == {"number": 3}
    assert run_history.last_keys(store, config()) == {"source/c": "{'number': 3}"}


def test_a_file_that_is_no_run_does_not_disturb_the_order(store, monkeypatch):
    (store.root / "runs").mkdir()
    (store.root / "runs" / "notes.json").write_text("{}")
    assert start(store, monkeypatch, 0).startswith("19700101T000000-")


def test_a_running_run_is_left_alone_and_a_killed_one_is_found(store):
    folder = store.root / "runs"
    code = f"""
import os
from pathlib import Path
from clepdg_tasks.host import liveness
lock = liveness.hold(Path({str(folder)!r}), "theirs")
print("held", flush=True)
input()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with liveness.hold(folder, "mine"):
            assert liveness.unreported(folder) == []
        liveness.mark_reported(folder, "mine")
        assert liveness.unreported(folder) == []
    finally:
        process.kill()
        process.wait(30)
    assert liveness.unreported(folder) == ["theirs"]
    liveness.mark_reported(folder, "theirs")
    assert liveness.unreported(folder) == []


def test_a_store_that_can_not_be_written_is_named(store):
    (store.root / "runs").write_text("a file in the place of a folder")
    with pytest.raises(StoreError, match="can't be written"):
        liveness.hold(store.root / "runs", "mine")


def test_a_process_of_the_soak_test_ends_by_its_signals_though_a_shell_had_them_ignored():
    """A shell starts what runs in the background with SIGINT ignored."""
    code = "import os, signal; from tests.soak import pipeline; pipeline.reset_signals(); os.kill(os.getpid(), {})"
    ignored = lambda: [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)]  # noqa: E731
    for number in (signal.SIGINT, signal.SIGTERM):
        command = [sys.executable, "-c", code.format(int(number))]
        done = subprocess.run(command, preexec_fn=ignored, cwd=PROJECT, capture_output=True, timeout=60)  # noqa: PLW1509
        assert done.returncode == -number
