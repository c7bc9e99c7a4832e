"""Protects the pages' commands: every line and every Python block that the demo's environment can run is run.

A line that names no preset gets the demo's. Not run here: what needs publishers, a model of a hub or a file of the
reader's own, and servers (tests/flow/test_services.py and test_serving.py run those).
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clepdg.errors import ClepError
from clepdg_flows.cli.main import _parser
from clepdg_flows.cli.options import read_arguments
from clepdg_flows.run.plan import configure
from tests.flow.small import SMALL
from tests.unit.test_docs import PAGES, README, lines_of

BIN = Path(sys.executable).parent
ANYWHERE = ("status", "predict", "compare", "promote", "verify", "gc")  # other commands need a network or a file


def quick(*words: str) -> tuple[str, ...]:
    """Return settings that make a run short, but those that a line sets itself."""
    kept = (f"{name}={value}" for name, value in SMALL.items() if f"{name}=" not in " ".join(words))
    return tuple(word for setting in kept for word in ("--set", setting))


def in_the_demo(words: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return a line's arguments for the demo's environment, or None if it can't run there."""
    command, *options = words[1:]
    preset = () if "--preset" in words or command in ("verify", "gc") else ("--preset", "demo")
    if command in ANYWHERE:
        return (command, *options, *preset)
    if command != "run" or "open" in words or {"--backbone", "--corpora"} & {*words}:
        return None
    line = (command, *options, *preset, *quick(*options))
    try:
        configure(read_arguments(_parser().parse_args(line)))
    except ClepError:
        return None  # its corpora are not the demo's
    return line


LINES = list(dict.fromkeys(line for words in lines_of("clep-dg") if (line := in_the_demo(words))))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with the demo's outputs, and the reader's files beside them."""
    folder = tmp_path_factory.mktemp("documented")
    noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    for name in ("a.wav", "b.flac"):
        soundfile.write(folder / name, noise, 16000)
    for seed in (0, 1):  # two versions of the classifier, for compare and promote
        run(folder, "clep-dg", "run", "--preset", "demo", *quick(), "--set", f"clep_seeds={seed}")
    return folder


def run(home: Path, program: str, *words: str, code: int = 0) -> str:
    environment = {**os.environ, "CLEPDG_HOME": str(home / "state"), "CLEPDG_DEVICE": "cpu"}
    command = [str(BIN / program), *words]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def versions(home: Path) -> list[str]:
    """Return the numbers of the versions that can be served, which promote's error lists."""
    text = run(home, "clep-dg", "promote", "1", "--why", "x", "--preset", "demo", code=2)
    return re.findall(r"\d+", text.partition("expected:")[2].partition("\n")[0])


@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(line)[:60])
def test_every_line_runs(home: Path, versions: list[str], line: tuple[str, ...]) -> None:
    numbers = iter(versions)  # a page's numbers are examples
    assert "Traceback" not in run(home, "clep-dg", *(next(numbers) if word.isdigit() else word for word in line))


def test_most_commands_are_run() -> None:
    assert {line[0] for line in LINES} == {"run", *ANYWHERE}


def test_the_notebook_of_the_readme_runs(home: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert "angry" in run(
        home, "python", "-c", re.sub(r"^(model\.predict\(.*?\))(?=\s|$)", r"print(\1)", code, flags=re.M)
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_are_python(page: Path) -> None:
    for code in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        compile(code, str(page), "exec")
