"""Protects the house's rules: imports go one way, starting is cheap, and the stage names agree."""

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

PROJECT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "torchaudio", "transformers", "mlflow", "pandas", "webdataset", "sklearn", "scipy", "matplotlib"}

STARTED = (
    *("clepdg.config.schema", "clepdg_tasks.engine.node", "clepdg_tasks.tracking.run_logger"),
    *("clepdg_flows.graph.pipeline", "clepdg_flows.run.plan", "clepdg_flows.cli.main"),
)
DEPLOYERS = {"tasks/admin/deploy.py", "tasks/admin/alerts.py"}  # they write what Prefect's server is to run


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module).split(".")[0])
    return names


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("clepdg", {"clepdg_tasks", "clepdg_flows", "prefect", "mlflow"}),
        ("tasks", {"clepdg_flows", "prefect"}),
        ("flows", {"mlflow"}),
    ],
)
def test_imports_go_one_way(package, forbidden):
    for path in (PROJECT / package).rglob("*.py"):
        spared = {"prefect"} if path.relative_to(PROJECT).as_posix() in DEPLOYERS else set()
        assert not imported(path) & (forbidden - spared), path


def test_only_the_registry_and_what_it_serves_speak_to_mlflow():
    speakers = {path.name for path in (PROJECT / "tasks").rglob("*.py") if "mlflow" in imported(path)}
    assert speakers == {
        *("run_logger.py", "model_registry.py", "client.py", "compare.py", "champion.py"),
        *("serving.py", "pyfunc_model.py", "scoring_app.py", "pyfunc_table.py", "run_data.py", "previews.py"),
    }


def test_starting_loads_nothing_heavy():
    heavy = HEAVY | {"prefect"}
    code = f"import sys\nfor name in {STARTED}: __import__(name); print(name, *({heavy} & {{*sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert loaded.stdout.splitlines() == [*STARTED]


def test_importing_the_flow_loads_nothing_heavy():
    code = f"import sys, clepdg_flows.clep_dg; print(sorted({HEAVY!r} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert loaded.stdout.strip() == "[]"


def test_status_of_the_demo_loads_no_numpy(tmp_path):
    code = "import sys; from clepdg_flows.cli.main import main; main(['status', '--preset', 'demo']); "
    code += "print('numpy' in sys.modules)"
    environment = {**os.environ, "CLEPDG_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment)
    assert done.stdout.splitlines()[-1:] == ["False"], done.stderr


def test_stage_names_are_the_same_everywhere():
    from clepdg_flows.clep_dg import StageName
    from clepdg_tasks.engine.node import STAGES

    assert get_args(StageName) == STAGES


def test_no_pickle_is_read():
    for package in ("clepdg", "tasks", "flows"):
        for path in (PROJECT / package).rglob("*.py"):
            text = path.read_text()
            assert "pickle" not in imported(path), path
            if path.name != "pickles.py":  # the one exception, and tests of its own hold it to weights
                assert "torch.load(" not in text, path
            assert "weights_only=False" not in text, path
            assert "allow_pickle=True" not in text, path


def test_clep_of_any_backbone_is_loaded_by_one_function():
    """`load_clap` reads a CLAP alone; an output may be a dual backbone."""
    users = {path.name for path in (PROJECT / "tasks").rglob("*.py") if "load_clap" in path.read_text()}
    assert not users
