"""Protects `clep-dg run` that is stopped: its message, no process left, and the same command goes on to the end.

All state lies below a folder with a space and letters that are not ASCII in its name.
"""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow

SMALL = (
    *("run", "--preset", "demo", "--corpora", "synthetic-1,synthetic-3", "--set", "synthetic.utterances=210"),
    *(
        "--set",
        "compute.threads=1",
        "--set",
        "clep.epochs=2",
        "--set",
        "clep.steps_per_epoch=12",
        "--set",
        "clep.batch_size=4",
    ),
    *("--set", "acpt.contexts=2", "--set", "acpt.epochs=3"),
    *("--set", "classifier.steps=5", "--set", "protocols=supervised"),
    *("--set", "rows=clep-zero-shot,text-acpt"),
)
HIDDEN, SHOWN = b"\x1b[?25l", b"\x1b[?25h"  # the cursor
COMMAND = str(Path(sys.executable).with_name("clep-dg"))


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API")}
    return kept | {
        "CLEPDG_HOME": str(tmp_path / "ein Ördner 音"),
        "CLEPDG_WORKERS": "2",
        "CLEPDG_CHECKPOINT_SECONDS": "0",
        "LC_ALL": "C",
    }


def start(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, *SMALL],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # a group of its own, as a shell gives it
    )


def stopped(environment: dict[str, str], pattern: str, number: signal.Signals) -> tuple[int, str]:
    """Start the command, send a signal when something is there, and return its exit code and what it said."""
    process = start(environment)
    home, deadline, children = Path(environment["CLEPDG_HOME"]), time.monotonic() + 180, list[psutil.Process]()
    try:
        while not list((home / "store").glob(pattern)):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)
        children = psutil.Process(process.pid).children(recursive=True)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # Ctrl-C reaches the whole group
        else:
            process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait(30)
    assert children
    assert not psutil.wait_procs(children, timeout=20)[1]
    return process.returncode, said


def test_ctrl_c_and_sigterm_then_the_same_command(environment):
    code, said = stopped(environment, "shard/*.partial", signal.SIGINT)
    assert (code, said.strip().splitlines()[-1]) == (130, "clep-dg: stopped; the same command continues from here")
    assert "Traceback" not in said
    code, said = stopped(environment, "clep/*.partial/training.resume", signal.SIGTERM)
    assert (code, said.strip().splitlines()[-1]) == (143, "clep-dg: stopped; the same command continues from here")
    assert "Traceback" not in said
    process = start(environment)
    out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "CLEP zero-shot" in out
    audio = next(Path(environment["CLEPDG_HOME"]).rglob("*.wav"))
    command = [COMMAND, "predict", "--preset", "demo", str(audio)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert audio.name in done.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_terminal_has_its_cursor_and_one_line_after_a_stop(environment, number, code):
    pid, terminal = pty.fork()
    if not pid:
        os.execve(COMMAND, [COMMAND, *SMALL], environment | {"TERM": "xterm", "COLUMNS": "80"})
    shown, sent = b"", False
    try:
        while True:
            try:
                data = os.read(terminal, 65536)
            except OSError:  # Linux says so where a terminal's last process ended
                break
            shown += data
            if not data:
                break
            if not sent and HIDDEN in shown:
                sent = True
                if number == signal.SIGINT:
                    os.write(terminal, b"\x03")  # what the key sends: the terminal makes the signal
                else:
                    os.kill(pid, number)
    finally:
        os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
    assert shown.rfind(SHOWN) > shown.rfind(HIDDEN) > 0
    assert shown.count(b"clep-dg: stopped; the same command continues from here") == 1
    assert shown.rstrip().endswith(b"from here") and b"Traceback" not in shown
