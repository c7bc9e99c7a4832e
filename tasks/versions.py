"""Stage versions, and which stages each module computes for.

A stage's version is in its key: raise it when the stage's results change. tests/unit/test_versions.py fails when a
module's code changed and neither a version was raised nor the change acknowledged; comments, docstrings and formatting
do not count. `python -m tasks.versions` records raised versions; with --same-results it acknowledges the change.
"""

import ast
import hashlib
import json
import sys
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[1]
RECORD: Final = Path(__file__).with_name("versions.json")

VERSIONS: Final[dict[str, int]] = {
    "source": 2,
    "index": 5,
    "shard": 2,
    "backbone": 3,
    "clep": 3,
    "acpt": 3,
    "text_embeddings": 3,
    "audio_embeddings": 2,
    "classifier": 2,
    "evaluate": 9,
    "report": 9,
}

_MODELS: Final = ("clep", "acpt", "text_embeddings", "audio_embeddings")
USED_BY: Final[dict[str, tuple[str, ...]]] = {
    "clepdg/acoustics.py": ("evaluate",),
    "clepdg/acpt.py": ("acpt", "text_embeddings"),
    "clepdg/addresses.py": ("source",),
    "clepdg/answers.py": ("evaluate", "report"),
    "clepdg/archives.py": ("source",),
    "clepdg/attributes.py": ("clep",),
    "clepdg/audio.py": ("index", "shard", "clep", "audio_embeddings"),
    "clepdg/card_fields.py": ("index",),
    "clepdg/cards.py": ("index",),
    "clepdg/clap.py": ("backbone", *_MODELS),
    "clepdg/classifier.py": ("classifier", "evaluate"),
    "clepdg/clep.py": ("clep",),
    "clepdg/context_effect.py": ("backbone", "clep"),
    "clepdg/contrastive.py": ("clep",),
    **{f"clepdg/corpora/{path.name}": ("index",) for path in (PROJECT / "clepdg/corpora").glob("[!_]*.py")},
    "clepdg/corpora/speech.py": ("source",),
    "clepdg/corpora/synthetic.py": ("source",),
    "clepdg/corruptions.py": ("clep", "audio_embeddings", "evaluate"),
    "clepdg/credit.py": ("report",),
    "clepdg/distributed.py": ("clep",),
    "clepdg/downloads.py": ("source",),
    "clepdg/egemaps.py": ("audio_embeddings",),
    "clepdg/embeddings.py": ("text_embeddings", "audio_embeddings"),
    "clepdg/encoders.py": ("backbone", "audio_embeddings"),
    "clepdg/environments.py": ("backbone",),
    "clepdg/evaluate.py": ("evaluate",),
    "clepdg/fetching.py": ("source",),
    "clepdg/folders.py": ("source",),
    "clepdg/hub.py": ("backbone",),
    "clepdg/index.py": ("index",),
    "clepdg/manifests.py": ("index",),
    "clepdg/index_check.py": ("report",),
    "clepdg/index_table.py": ("index",),
    "clepdg/interpolation.py": ("clep",),
    "clepdg/intervals.py": ("evaluate", "report"),
    "clepdg/learnt.py": ("report",),
    "clepdg/laion.py": ("backbone",),
    "clepdg/listings.py": ("source",),
    "clepdg/lora.py": ("clep",),
    "clepdg/metrics.py": ("clep", "evaluate"),
    "clepdg/model_files.py": ("backbone",),
    "clepdg/model_pins.py": ("backbone",),
    "clepdg/noises.py": ("backbone", "clep", "audio_embeddings"),
    "clepdg/objects.py": ("source",),
    "clepdg/pickles.py": ("backbone",),
    "clepdg/probe.py": ("index",),
    "clepdg/prompts.py": ("backbone", "clep", "acpt", "text_embeddings"),
    "clepdg/protocols.py": ("classifier", "evaluate"),
    "clepdg/quality.py": ("index",),
    "clepdg/remote.py": ("source",),
    "clepdg/report.py": ("report",),
    "clepdg/report_cells.py": ("report",),
    "clepdg/report_conditions.py": ("report",),
    "clepdg/report_page.py": ("report",),
    "clepdg/rooms.py": ("clep", "audio_embeddings"),
    "clepdg/row_marks.py": ("evaluate",),
    "clepdg/seeds.py": ("clep", "audio_embeddings"),
    "clepdg/sharding.py": ("shard",),
    "clepdg/shards.py": ("shard", "clep", "audio_embeddings"),
    "clepdg/sources.py": ("source",),
    "clepdg/tensors.py": ("backbone", *_MODELS, "classifier"),
    "clepdg/text_side.py": ("clep",),
    "clepdg/trainable.py": ("clep",),
    "clepdg/training.py": ("clep", "acpt", "text_embeddings", "classifier"),
    "clepdg/twins.py": ("index",),
    "clepdg/verification.py": ("source",),
    "clepdg/web.py": ("source",),
    "tasks/context_look.py": ("evaluate",),
    "tasks/data.py": ("source", "index", "shard"),
    "tasks/embedding.py": ("text_embeddings", "audio_embeddings"),
    "tasks/evaluation.py": ("evaluate",),
    "tasks/reporting.py": ("report",),
    "tasks/training.py": ("backbone", *_MODELS, "classifier"),
}
# What every stage goes through, but no stage's results come from; config values are in the keys themselves.
NO_RESULTS: Final = (
    "clepdg/__init__.py",
    "clepdg/bucket.py",
    "clepdg/bucket_items.py",
    "clepdg/cache.py",
    "clepdg/card_check.py",
    "clepdg/checkpoints.py",
    "clepdg/config.py",
    "clepdg/corpora/__init__.py",  # only lists the grammars, each by its file's name
    "clepdg/documents.py",
    "clepdg/emotions.py",
    "clepdg/errors.py",
    "clepdg/items.py",
    "clepdg/model_check.py",
    "clepdg/pace.py",
    "clepdg/packing.py",
    "clepdg/pins.py",
    "clepdg/presets.py",
    "clepdg/ranges.py",
    "clepdg/reading.py",
    "clepdg/records.py",
    "clepdg/remote_store.py",
    "clepdg/reporting.py",
    "clepdg/source_check.py",
    "clepdg/store.py",
    "clepdg/upstream.py",
    "clepdg/variants.py",
)


def normalised_digest(path: Path) -> str:
    """Return a digest of a module's syntax tree without docstrings: equal for a changed comment or layout."""
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
    """Return module -> its digest and the versions of the stages that use it."""
    return {
        module: {
            "digest": normalised_digest(PROJECT / module),
            "versions": {stage: VERSIONS[stage] for stage in stages},
        }
        for module, stages in USED_BY.items()
    }


def unacknowledged() -> dict[str, tuple[str, ...]]:
    """Return the modules that changed while a stage that uses them kept its version, with those stages."""
    recorded = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    changed: dict[str, tuple[str, ...]] = {}
    for module, now in current().items():
        before = recorded.get(module, {"digest": None, "versions": {}})
        kept = tuple(s for s in USED_BY[module] if before["versions"].get(s, 0) >= VERSIONS[s])
        if now["digest"] != before["digest"] and kept:
            changed[module] = kept
    return changed


def main() -> None:
    """Record the current digests; refuse changed modules whose stages kept their version, unless --same-results."""
    changed = unacknowledged()
    if changed and "--same-results" not in sys.argv:
        lines = [f"  {module}: used by {', '.join(stages)}" for module, stages in changed.items()]
        message = "These modules changed. Raise the versions of the stages whose results change, then run this again;"
        sys.exit(
            "\n".join(
                [
                    message,
                    f"they stand in {__file__}, VERSIONS;",
                    "where results stay the same, run it with --same-results.",
                    *lines,
                ]
            )
        )
    RECORD.write_text(json.dumps(current(), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
