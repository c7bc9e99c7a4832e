"""Protects what a node's name says: fold, row, variant of CLEP and seeds, as MLflow's tags have them."""

import pytest

from clepdg.config.presets import build
from flows.graph.pipeline import graph
from tasks.tracking.lineage import clep_id, fold_tags

NODES = {node.id: node for node in graph(build("demo", overrides={"rows": "all"}), {})}


@pytest.mark.parametrize(
    ("node_id", "tags"),
    [
        ("clep/supervised.c0", {"fold": "supervised", "seed": "c0"}),
        ("clep/supervised.frozen-text.c0", {"fold": "supervised", "seed": "c0", "variant": "frozen-text"}),
        ("acpt/supervised.c0.random.l0", {"fold": "supervised", "seed": "c0.l0", "of": "random"}),
        (
            "text_embeddings/supervised.lora.c0.acpt.l0",
            {"fold": "supervised", "seed": "c0.l0", "variant": "lora", "of": "acpt"},
        ),
        ("text_embeddings/supervised.c0.none", {"fold": "supervised", "seed": "c0", "of": "none"}),
        ("audio_embeddings/supervised.c0.synthetic-1", {"fold": "supervised", "seed": "c0", "of": "synthetic-1"}),
        ("classifier/supervised.log-mel.-", {"fold": "supervised", "seed": "-", "row": "log-mel"}),
        ("classifier/supervised.text-acpt.c0.l0", {"fold": "supervised", "seed": "c0.l0", "row": "text-acpt"}),
        ("evaluate/supervised", {"fold": "supervised", "seed": "-"}),
        ("shard/synthetic-1", {}),
    ],
)
def test_tags_of_names(node_id, tags):
    assert fold_tags(NODES[node_id]) == tags


def test_a_classifier_knows_its_clep():
    for node in NODES.values():
        if node.stage == "classifier" and "text-acpt" in node.name:
            assert clep_id(node) == f"clep/{node.name.partition('.')[0]}.c0"
        if node.stage == "classifier" and ".clep-lora." in node.name:
            assert clep_id(node) == f"clep/{node.name.partition('.')[0]}.lora.c0"
