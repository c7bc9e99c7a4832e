"""Protects live lines of running stages: only on a terminal, and an error or Ctrl-C leaves the terminal as it was."""

import os
import pty
import re
import subprocess
import sys

import pytest

RUN = """
from clepdg_flows.run.display import Display
with Display() as display, display.bar("clep", "supervised.c0") as update:
    display.whole("stages", 3, 214)
    for step in range(3):
        update(step, 10)
    display.say("acpt done")
    raise {error}
"""


STARTING = """
import os
import signal
from rich.console import Console
from clepdg_flows.run.display import Display

hide = Console.show_cursor

def interrupted(self, show=True):
    done = hide(self, show)
    if not show:
        os.kill(os.getpid(), signal.SIGINT)
    return done

Console.show_cursor = interrupted
with Display():
    raise {error}
"""


def run_on_terminal(error: str, script: str = RUN, **environment: str) -> str:
    """Return what a terminal of 80 columns receives."""
    reader, writer = pty.openpty()
    given = {**os.environ, "COLUMNS": "80", "TERM": "xterm", **environment}
    command = [sys.executable, "-c", script.format(error=error)]
    process = subprocess.Popen(command, stdin=writer, stdout=writer, stderr=writer, env=given)
    os.close(writer)
    found = b""
    try:
        while data := os.read(reader, 65536):
            found += data
    except OSError:  # Linux: the other side is closed
        pass
    finally:
        os.close(reader)
    process.wait(60)
    return found.decode()


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "ValueError"])
def test_an_error_brings_the_cursor_back(error: str) -> None:
    said = run_on_terminal(error)
    assert "clep supervised.c0" in said and "3 of 214" in said and "acpt done" in said
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")
    assert said.rindex("\x1b[?25h") < said.rindex(error)


def test_a_signal_while_it_starts_brings_the_cursor_back_too() -> None:
    said = run_on_terminal("ValueError", STARTING)
    assert "KeyboardInterrupt" in said and "ValueError" not in said
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")


def test_no_colour_where_none_is_wanted_and_no_live_line_on_a_dumb_terminal() -> None:
    assert "\x1b[3" not in run_on_terminal("ValueError", NO_COLOR="1")
    said = run_on_terminal("ValueError", TERM="dumb")
    assert "\x1b" not in said and "acpt done" in said and "214" not in said


SIDE_BY_SIDE = """
import sys
import threading
from clepdg_flows.run.display import Display

sys.setswitchinterval(1e-6)
with Display() as display:
    def work(name):
        for step in range(25):
            with display.bar("clep", f"{{name}}.{{step}}") as update:
                for done in range(10):
                    update(done, 10)
            display.say(f"done {{name}}.{{step}}")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def screen(said: str) -> list[str]:
    """Return the lines that stay, of what a terminal without end receives."""
    lines, at, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", said):
        if part == "\n":
            at += 1
            lines += [""] * (at == len(lines))
        elif part == "\r":
            column = 0
        elif part.endswith("A") and part.startswith("\x1b"):
            at -= int(part[2:-1])
        elif part == "\x1b[2K":
            lines[at] = ""
        elif not part.startswith("\x1b"):
            lines[at] = lines[at][:column].ljust(column) + part + lines[at][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines if line.strip()]


def test_lines_of_stages_side_by_side_all_stay_and_no_live_line_does() -> None:
    assert sorted(screen(run_on_terminal("", SIDE_BY_SIDE))) == sorted(
        f"done {name}.{step}" for name in "abcd" for step in range(25)
    )
