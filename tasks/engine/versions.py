"""Keep stage versions, and map modules to the stages that they affect.

A stage's version is in its key: raise it when the stage's results change. tests/unit/test_versions.py fails when a
module's code changed and neither a version was raised nor the change acknowledged; comments, docstrings and formatting
do not count. `python -m clepdg_tasks.engine.versions` records raised versions; with --same-results it acknowledges the
change.
"""

import ast
import hashlib
import json
import sys
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[2]
RECORD: Final = Path(__file__).with_name("versions.json")

VERSIONS: Final[dict[str, int]] = {
    "source": 3,
    "index": 7,
    "shard": 2,
    "backbone": 5,
    "features": 1,
    "clep": 5,
    "acpt": 4,
    "text_embeddings": 3,
    "audio_embeddings": 4,
    "classifier": 2,
    "evaluate": 11,
    "report": 17,
}

_TRAINED: Final = ("backbone", "features", "clep", "acpt", "text_embeddings", "audio_embeddings", "classifier")
# Stages whose results depend on a module, by its own path or else its folder. No results depend on how outputs are
# stored, on the checks of models, or on the configuration's code: its values are in the keys themselves.
RULES: Final[dict[str, tuple[str, ...]]] = {
    "clepdg/": (),
    "clepdg/audio/": ("index", "shard", "backbone", "features", "clep", "audio_embeddings", "evaluate"),
    "clepdg/config/folds.py": ("classifier", "evaluate"),
    "clepdg/config/rows.py": ("classifier", "evaluate"),
    "clepdg/corpora/": ("index",),
    "clepdg/corpora/synthetic.py": ("source",),
    "clepdg/corpora/voice.py": ("source",),
    "clepdg/dataset/": ("index", "shard", "features", "clep", "audio_embeddings"),
    "clepdg/dataset/validate.py": ("report",),
    "clepdg/download/": ("source",),
    "clepdg/download/check/": (),
    "clepdg/download/hub.py": ("backbone",),
    "clepdg/evaluation/": ("evaluate", "report"),
    "clepdg/evaluation/utterances.py": ("clep", "classifier", "evaluate"),
    "clepdg/hashing.py": ("clep", "audio_embeddings"),
    "clepdg/method/": _TRAINED,
    "clepdg/method/fold/": ("classifier", "evaluate"),
    "clepdg/models/": _TRAINED,
    "clepdg/prompts.py": _TRAINED,
    "clepdg/report/": ("report",),
    "clepdg/text_files.py": ("source", "index"),
    "clepdg/training/": _TRAINED,
    "tasks/stages/": tuple(VERSIONS),
}


def stages_of(module: str) -> tuple[str, ...]:
    """Return the stages whose results depend on a module.

    The longest rule that the module's path begins with applies.
    """
    rule = max((rule for rule in RULES if module.startswith(rule)), key=len, default="")
    return RULES.get(rule, ())


def modules() -> list[str]:
    """Return the sorted paths of all modules that results depend on."""
    paths = [path for folder in ("clepdg", "tasks/stages") for path in (PROJECT / folder).rglob("*.py")]
    names = (path.relative_to(PROJECT).as_posix() for path in paths if path.name != "__init__.py")
    return sorted(name for name in names if stages_of(name))


def normalised_digest(path: Path) -> str:
    """Return a digest of a module's syntax tree without docstrings.

    Changes of comments and layout keep it.
    """
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def current() -> dict[str, dict[str, object]]:
    """Return module -> its digest and the versions of its stages."""
    return {
        module: {
            "digest": normalised_digest(PROJECT / module),
            "versions": {stage: VERSIONS[stage] for stage in stages_of(module)},
        }
        for module in modules()
    }


def unacknowledged() -> dict[str, tuple[str, ...]]:
    """Return changed module -> the stages that use it and kept their version."""
    recorded = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    changed: dict[str, tuple[str, ...]] = {}
    for module, now in current().items():
        before = recorded.get(module, {"digest": None, "versions": {}})
        kept = tuple(s for s in stages_of(module) if before["versions"].get(s, 0) >= VERSIONS[s])
        if now["digest"] != before["digest"] and kept:
            changed[module] = kept
    return changed


def main() -> None:
    """Record the current digests.

    Exit with an error for changed modules whose stages kept their version, unless --same-results is given.
    """
    changed = unacknowledged()
    if changed and "--same-results" not in sys.argv:
        lines = [f"  {module}: used by {', '.join(stages)}" for module, stages in changed.items()]
        message = "These modules changed. Raise the versions of the stages whose results change, then run this again."
        sys.exit(
            "\n".join(
                [
                    message,
                    f"The versions are in {__file__}, VERSIONS.",
                    "If no results change, run it with --same-results.",
                    *lines,
                ]
            )
        )
    RECORD.write_text(json.dumps(current(), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
