"""The method's defaults are frozen: the tables of docs/results.md are of these, and of no others.

Whoever changes one writes the record anew, `python -m tests.unit.test_frozen`, in a commit of its own, and computes the
tables again after it. Settings are tuned on leave-one-source-out alone: on a fold's sources, one of them left out.
"""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from clepdg.audio import corruptions, noise, rooms
from clepdg.config import conditions
from clepdg.config.presets import MADE, build
from clepdg.config.rows import ACPT_VARIANTS, CLEP_VARIANTS, CONTEXTS, CORE_ROWS, ROWS
from clepdg.config.schema import ClepConfig
from clepdg.dataset import shards
from clepdg.evaluation import cells, credit, intervals, marks, predictions
from clepdg.hashing import plain

MODULES = (conditions, corruptions, credit, cells, intervals, marks, predictions, noise, rooms, shards)
FILE = Path(__file__).with_name("frozen_defaults.json")


def _defaults() -> dict[str, object]:
    standard, clep = plain(build("open")), ClepConfig()
    return {
        "open": standard,
        "with backbone": {name: _changes(standard, plain(build("open", backbone=name))) for name in MADE},
        "rows": {name: {k: v for k, v in plain(row).items() if k != "title"} for name, row in ROWS.items()},
        "core rows": list(CORE_ROWS),
        "variants of CLEP": {
            name: _changes(plain(clep), plain(variant(clep))) for name, variant in CLEP_VARIANTS.items()
        },
        "variants of ACPT": plain(ACPT_VARIANTS),
        "contexts": plain(CONTEXTS),
        "constants": {module.__name__: _constants(module) for module in MODULES},
    }


def _changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of one configuration that are others in the other."""
    changed = {name: value for name, value in after.items() if value != before[name]}
    return {n: _changes(before[n], v) if isinstance(v, dict) else v for n, v in changed.items()}


def _constants(module: ModuleType) -> dict[str, Any]:
    """Return a module's numbers and tuples: its functions are held by the stages' versions."""
    named = {name: value for name, value in vars(module).items() if name.isupper() and not isinstance(value, bool)}
    return {name: plain(value) for name, value in named.items() if isinstance(value, int | float | tuple)}


def test_defaults_are_the_frozen_ones() -> None:
    frozen = json.loads(FILE.read_text("utf-8"))
    assert _defaults() == frozen, f"a default of the method changed: read {Path(__file__).name} on what that asks for"


if __name__ == "__main__":
    FILE.write_text(json.dumps(_defaults(), indent=1, sort_keys=True) + "\n", "utf-8")
