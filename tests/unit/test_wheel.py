"""Protects the installed package: its data is in the wheel, and its state lies in none of its own folders."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = (
    "clepdg",
    "tasks",
    "flows",
    "data_manifests",
    "pyproject.toml",
    "prefect.yaml",
    "README.md",
    "LICENSE",
    "NOTICE",
)
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
FACTS = """
import json
from clepdg.config.manifests import MANIFESTS
from clepdg.corpora.cards import corpus_names, load_card, published
from clepdg.config.model_pins import pins
from clepdg_tasks.engine.versions import RECORD
from clepdg_tasks.host.settings import PREFECT_YAML, PROJECT, load_settings
assert published(load_card("crema-d")) and pins()
facts = {"cards": MANIFESTS, "versions": RECORD, "deployments": PREFECT_YAML, "servers": PROJECT}
facts |= {"home": load_settings().home, "corpora": " ".join(corpus_names()), "licence": load_card("tess").licence}
print(json.dumps({name: str(fact) for name, fact in facts.items()}))
"""
ENTRYPOINTS = """
import yaml
from prefect.flows import load_flow_from_entrypoint
from clepdg_tasks.host.settings import PREFECT_YAML
for deployment in yaml.safe_load(PREFECT_YAML.read_text())["deployments"]:
    assert load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False).name == "clep-dg"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the checkout, and unpack it as pip does."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
        copy(PROJECT / name, folder / name)
    subprocess.run([sys.executable, "-c", BUILD, folder], cwd=folder, check=True, capture_output=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site-packages")
    return folder / "site-packages"


@pytest.fixture
def run(installed: Path, tmp_path: Path):
    """Return a function that runs Python with the installed package in an empty folder."""
    empty = tmp_path / "an empty folder"
    empty.mkdir()
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("CLEPDG_", "PREFECT_", "XDG_", "PYTEST_"))}

    def python(*words: str, timeout: float = 120, **environment: str) -> str:
        paths = {"PYTHONPATH": str(installed), "HOME": str(tmp_path / "user"), "PYTHONDONTWRITEBYTECODE": "1"}
        command, env = [sys.executable, *words], {**kept, **paths, **environment}
        done = subprocess.run(command, cwd=empty, env=env, capture_output=True, text=True, timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not list(empty.iterdir())
        return done.stdout

    return python


def test_nothing_has_a_name_that_others_use(installed: Path) -> None:
    names = {path.name for path in installed.iterdir() if path.suffix != ".dist-info"}
    assert names == {"clepdg", "clepdg_tasks", "clepdg_flows"}


def test_its_data_is_in_it_and_its_state_is_not(installed: Path, run, tmp_path: Path) -> None:
    facts = json.loads(run("-c", FACTS))
    assert facts["corpora"].split() == sorted(path.stem for path in (PROJECT / "data_manifests").glob("*.toml"))
    assert facts["licence"]
    for name in ("cards", "versions", "deployments"):
        assert Path(facts[name]).exists() and installed in Path(facts[name]).parents
    assert Path(facts["deployments"]).read_text() == (PROJECT / "prefect.yaml").read_text()
    assert Path(facts["home"]) == Path(facts["servers"]) == tmp_path / "user/.local/share/clep-dg"
    moved = json.loads(run("-c", FACTS, CLEPDG_HOME=str(tmp_path / "mine")))
    assert Path(moved["home"]) == Path(moved["servers"]) == tmp_path / "mine"


def test_the_command_line_works_in_an_empty_folder(installed: Path, run) -> None:
    before = sorted(path for path in installed.rglob("*"))
    assert "0 of 214 stages" in run("-m", "clepdg_flows.cli.main", "status", "--preset", "demo")
    assert sorted(path for path in installed.rglob("*")) == before


def test_its_deployments_find_the_flow(run) -> None:
    run("-c", ENTRYPOINTS)


def test_it_runs(run) -> None:
    fold = ("--preset", "demo", "--folds", "leave-out-synthetic-5")
    run("-m", "clepdg_flows.cli.main", "run", *fold, timeout=1500)
    assert ": 0 " not in run("-m", "clepdg_flows.cli.main", "status", *fold)
