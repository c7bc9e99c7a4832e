"""Protects the plan of the code: imports run down the floors, in no circle, and rooms stay small."""

import ast
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
FOLDERS = {"clepdg_flows": "flows", "clepdg_tasks": "tasks", "clepdg": "clepdg"}  # package -> its folder
CARDS = "clepdg.data_manifests"  # a folder of package data
PACKAGES = tuple(FOLDERS)  # imports go this way alone
FLOORS = (  # of clepdg, from the top; a room may import from the floors below it
    ("api",),
    ("method",),
    ("download", "dataset", "report", "training"),
    ("corpora", "models", "evaluation"),
    ("audio", "store"),
    ("config", "hashing"),
    ("text_files",),
    ("prompts", "errors", "emotions", "callbacks", "processes"),
    ("redaction",),
)
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}
MOST_LINES, MOST_FILES = 250, 15


def files() -> list[Path]:
    return [path for folder in FOLDERS.values() for path in sorted((PROJECT / folder).rglob("*.py"))]


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted names of our own modules that a file imports, in functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
            for name in node.names:
                package, *rooms = node.module.split(".")
                place = PROJECT.joinpath(FOLDERS[package], *rooms, name.name)
                whole = place.with_suffix(".py").exists() or place.is_dir()
                yield f"{node.module}.{name.name}" if whole else node.module


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def of(path: Path) -> str:
    folder, *rooms = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join([next(name for name, place in FOLDERS.items() if place == folder), *rooms])


@pytest.mark.parametrize("path", files(), ids=of)
def test_imports_run_down(path: Path) -> None:
    package, own = of(path).split(".")[0], room(of(path))
    for name in imports(path):
        other = name.split(".")[0]
        assert PACKAGES.index(other) >= PACKAGES.index(package), f"{package} imports {name}"
        if package == other == "clepdg" and own not in ("__init__", room(name)):
            assert FLOOR[own] < FLOOR[room(name)], f"{own} imports {name}, which is not on a floor below"


def test_modules_import_one_another_in_no_circle() -> None:
    """Imports in functions count too: a circle that is broken by one is a circle."""
    graph = {of(path): {name for name in imports(path)} for path in files()}
    state: dict[str, int] = defaultdict(int)

    def visit(module: str, way: list[str]) -> None:
        assert state[module] != 1, f"a circle: {' -> '.join([*way[way.index(module) :], module])}"
        if state[module] == 0:
            state[module] = 1
            for name in graph.get(module, ()):
                visit(name, [*way, module])
            state[module] = 2

    for module in graph:
        visit(module, [])


@pytest.mark.parametrize("path", files(), ids=of)
def test_no_file_is_longer_than_a_reader_takes_in(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


def test_no_folder_holds_more_files_than_a_reader_overlooks() -> None:
    folders = {path.parent for path in files()}
    crowded = {str(f.relative_to(PROJECT)): n for f in folders
               if (n := len([p for p in f.glob("*.py") if p.name != "__init__.py"])) > MOST_FILES}  # fmt: skip
    assert not crowded


def test_the_build_knows_every_package() -> None:
    known = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert known["package-dir"] == {
        **{name: folder for name, folder in FOLDERS.items() if name != folder},
        CARDS: "data_manifests",
    }
    assert set(known["packages"]) == {CARDS, *(of(path.parent) for path in files() if path.name == "__init__.py")}
