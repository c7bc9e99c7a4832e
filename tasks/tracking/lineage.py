"""Derive the fold, seeds, corpora and licences of a node from the graph."""

import re
import subprocess
from collections.abc import Mapping

from clepdg.corpora.cards import load_card
from clepdg.store.record import Record
from tasks.engine.node import Node
from tasks.host.settings import PROJECT

FOLD_STAGES = ("clep", "acpt", "text_embeddings", "audio_embeddings", "classifier", "evaluate")


def fold_tags(node: Node) -> dict[str, str]:
    """Return fold, row, variant of CLEP and seeds of a node's name.

    A classifier's name is "<fold>.<row>.<seeds>"; others are "<fold>[.<variant of CLEP>].<seed>.<what>.<seed>".
    """
    if node.stage not in FOLD_STAGES:
        return {}
    fold, *rest = node.name.split(".")
    seeds = [part for part in rest if re.fullmatch(r"-|[cl]\d+", part)]
    tags = {"fold": fold, "seed": ".".join(seeds) or "-"}
    if node.stage == "classifier":
        return {**tags, "row": rest[0]}
    of_clep = rest.index(seeds[0]) if seeds and seeds[0].startswith("c") else 0
    of = [part for part in rest[of_clep:] if part not in seeds]
    return {**tags, **({"variant": rest[0]} if of_clep else {}), **({"of": of[0]} if of else {})}


def seeds_of(node: Node, kind: str) -> list[int]:
    """Return the CLEP seeds (kind "c") or later seeds ("l") of an evaluation."""
    seeds = {part for head in node.config["heads"] for part in head["seed"].split(".") if part[:1] == kind}
    return [int(part[1:]) for part in seeds if part[1:].isdigit()]


def first_seed(node: Node) -> str:
    """Return an evaluation's first seed, as "c0.l0"; only it can be champion."""
    return f"c{min(seeds_of(node, 'c'))}.l{min(seeds_of(node, 'l'))}"


def clep_id(node: Node) -> str:
    """Return the id of the CLEP whose audio embeddings a classifier reads."""
    ref = next(ref for name, ref in node.inputs.items() if name.startswith("audio/"))
    return "clep/" + ref.removeprefix("audio_embeddings/").rsplit(".", 1)[0]


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
        stage, _, name = node_id.partition("/")
        if stage == "index":
            corpora.add(name)
        elif stage == "clep":
            inputs = records[node_id].inputs
            corpora |= {name.removeprefix("index/") for name in inputs if name.startswith("index/")}
            waiting += [  # a CLEP that was mixed with the backbone: add the original
                other
                for other, record in records.items()
                if other.startswith("clep/") and record.digests["content"] == inputs.get("clep")
            ]
        elif stage == "acpt":
            waiting.append("clep/" + name.rsplit(".", 2)[0])
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
