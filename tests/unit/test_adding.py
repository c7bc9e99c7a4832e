"""Protects the adding of a corpus as docs/contributing.md shows it: a card, or a file, a card and a line."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of what holds cards, grammars and their tests."""
    for name in ("clepdg", "tasks", "data_manifests"):
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tests/__init__.py", "tests/conftest.py", "tests/tiers.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(PROJECT / name, tmp_path / name)
    (tmp_path / "clepdg_tasks").symlink_to("tasks")  # before the installed name
    (tmp_path / "tests/unit").mkdir()
    for name in ("__init__", "test_cards", "test_versions"):
        shutil.copy(PROJECT / f"tests/unit/{name}.py", tmp_path / "tests/unit")
    run(tmp_path, "-m", "clepdg_tasks.engine.versions", "--same-results")  # what changed before is not the matter here
    return tmp_path


def shown_card() -> str:
    """Return the card that docs/contributing.md shows."""
    text = (PROJECT / "docs" / "contributing.md").read_text()
    shown = re.search(r'^```toml\n(name = "my-corpus"\n.*?)^```', text, re.MULTILINE | re.DOTALL)
    assert shown, "docs/contributing.md shows no card any more"
    return shown[1]


def run(project: Path, *command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=project, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_card_alone_is_a_corpus(project: Path) -> None:
    (project / "data_manifests/my-corpus.toml").write_text(shown_card())
    assert "passed" in run(project, "-m", "pytest", "tests/unit/test_cards.py", "tests/unit/test_versions.py")


def test_a_grammar_of_its_own_is_a_file_a_card_and_a_line(project: Path) -> None:
    shutil.copy(project / "clepdg/corpora/savee.py", project / "clepdg/corpora/my_calls.py")
    (project / "data_manifests/my-corpus.toml").write_text(shown_card().replace('"table"', '"my-calls"'))
    table = project / "clepdg/corpora/__init__.py"
    table.write_text(table.read_text().replace('    "savee",\n', '    "savee",\n    "my-calls",\n'))
    asked = "from clepdg.corpora import CORPORA; print(CORPORA['my-calls'].__module__)"
    assert run(project, "-c", asked).strip() == "clepdg.corpora.my_calls"
    assert "passed" in run(project, "-m", "pytest", "tests/unit/test_cards.py", "tests/unit/test_versions.py")
