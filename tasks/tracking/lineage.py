"""Derive the fold, seeds, corpora and licences of a node from the graph."""

import subprocess
from collections.abc import Mapping

from clepdg.corpora.cards import load_card
from clepdg.store.record import Record
from clepdg_tasks.engine.node import Node, split_id
from clepdg_tasks.host.settings import PROJECT

FOLD_STAGES = ("clep", "acpt", "text_embeddings", "audio_embeddings", "classifier", "evaluate")


def fold_tags(node: Node) -> dict[str, str]:
    """Return the tags of a node that belongs to a fold, else none.

    They are fold, row, model, variant, contexts, corpus, condition and seed, as far as the node has them.
    """
    return {"seed": "-", **node.tags} if node.stage in FOLD_STAGES else {}


def seeds_of(node: Node, kind: str) -> list[int]:
    """Return the CLEP seeds (kind "c") or later seeds ("l") of an evaluation."""
    seeds = {part for head in node.config["heads"] for part in head["seed"].split(".") if part[:1] == kind}
    return [int(part[1:]) for part in seeds if part[1:].isdigit()]


def first_seed(node: Node) -> str:
    """Return an evaluation's first seed, as "c0.l0"; only it can be champion."""
    return f"c{min(seeds_of(node, 'c'))}.l{min(seeds_of(node, 'l'))}"


def clep_id(node: Node) -> str:
    """Return the id of the CLEP whose audio embeddings a classifier reads."""
    return f"clep/{node.tags['model']}"


def licences_of(node: Node, records: Mapping[str, Record]) -> str:
    """Return the licences of the corpora that an output was trained on."""
    return "; ".join(f"{corpus}: {load_card(corpus).licence}" for corpus in corpora_of(node, records)) or "none"


def incomplete(node: Node, records: Mapping[str, Record]) -> str:
    """Return how the training corpora differ from their cards, or "no"."""
    from clepdg.dataset.validate import copy_differences

    found = {}
    for corpus in corpora_of(node, records):
        if record := records.get(f"index/{corpus}"):
            found[corpus] = ", ".join(copy_differences(record.figures, load_card(corpus)))
    return "; ".join(f"{corpus}: {difference}" for corpus, difference in found.items() if difference) or "no"


def corpora_of(node: Node, records: Mapping[str, Record]) -> list[str]:
    """Return the corpora that an output was trained on, through its inputs."""
    corpora: set[str] = set()
    waiting, seen = list(node.needs), set[str]()
    while waiting:
        node_id = waiting.pop()
        if node_id in seen or node_id not in records:
            continue
        seen.add(node_id)
        stage, name = split_id(node_id)
        if stage == "index":
            corpora.add(name)
        elif stage in ("clep", "acpt"):
            inputs = records[node_id].inputs
            corpora |= {split_id(name)[1] for name in inputs if split_id(name)[0] == "index"}
            waiting += [  # the CLEP of contexts, or the one that was interpolated with the backbone
                other
                for other, record in records.items()
                if record.stage == "clep" and record.digests["content"] == inputs.get("clep")
            ]
    return sorted(corpora)


def git_commit() -> str:
    """Return the checkout's commit, "-dirty" with changed files, or "unknown"."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip() or "unknown"
