"""Protects pyproject.toml: every package that the product imports is named, not left to others to bring."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OWN = {"clepdg", "clepdg_tasks", "clepdg_flows"}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported() -> set[str]:
    found = set[str]()
    for path in (path for folder in ("clepdg", "tasks", "flows") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - OWN - set(sys.stdlib_module_names)


def test_what_is_imported_is_a_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [each for name, listed in project["optional-dependencies"].items() if name != "dev" for each in listed]
    named = {plain(re.split(r"[<>=!~\[; ]", each)[0]) for each in [*project["dependencies"], *extras]}
    brought = packages_distributions()
    missing = {name for name in imported() if not named & {plain(each) for each in brought.get(name, [name])}}
    assert missing == set()
