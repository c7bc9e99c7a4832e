"""Derive the fold, seeds, corpora and licences of a node from the graph, and keep them with model versions."""

import contextlib
import json
import subprocess
from collections.abc import Mapping
from typing import Any

from clepdg.config.manifests import CHECKOUT
from clepdg.corpora.cards import load_card
from clepdg.store.record import Record
from clepdg_tasks.engine.node import Node

LINEAGE = "lineage"  # the tag of a version that holds what programs read, so that pages show few tags
UNKNOWN = "not evaluated yet"
FOLD_STAGES = ("clep", "acpt", "text_embeddings", "audio_embeddings", "classifier", "evaluate")


def fold_tags(node: Node) -> dict[str, str]:
    """Return the tags of a node that belongs to a fold, else none.

    They are fold, row, model, variant, contexts, corpus, condition and seed, as far as the node has them.
    """
    return {"seed": "-", **node.tags} if node.stage in FOLD_STAGES else {}


def stage_run_name(node: Node) -> str:
    """Return the name of a stage's MLflow run, as "clep supervised.c0"."""
    return node.stage if node.name == node.stage else f"{node.stage} {node.name}"


def version_tags(version: Any) -> dict[str, str]:
    """Return a version's tags, those in its lineage included.

    Figures that are not known yet are left out. Versions of earlier releases have a tag for each.
    """
    shown, kept = dict(version.tags), {}
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        kept = {str(name): str(value) for name, value in json.loads(shown.pop(LINEAGE, "{}")).items()}
    if {"low", "high"} <= {*shown}:
        shown["interval"] = f"[{shown['low']}, {shown['high']}]"
    return kept | {name: value for name, value in shown.items() if value not in (UNKNOWN, "")}


def clep_id(node: Node) -> str:
    """Return the id of the CLEP whose audio embeddings a classifier reads."""
    return f"clep/{node.tags['model']}"


def licences_of(node: Node) -> str:
    """Return the licences of the corpora that an output was trained on."""
    return "; ".join(f"{corpus}: {load_card(corpus).licence}" for corpus in sorted(node.trained_on)) or "none"


def incomplete(node: Node, records: Mapping[str, Record]) -> str:
    """Return how the training corpora differ from their cards, or "no"."""
    from clepdg.dataset.validate import copy_differences

    found = {}
    for corpus in sorted(node.trained_on):
        if record := records.get(f"index/{corpus}"):
            found[corpus] = ", ".join(copy_differences(record.figures, load_card(corpus)))
    return "; ".join(f"{corpus}: {difference}" for corpus, difference in found.items() if difference) or "no"


def git_commit() -> str:
    """Return the checkout's commit, "-dirty" with changed files, or "unknown"."""
    if CHECKOUT is None:
        return "unknown"
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip() or "unknown"
