"""Protects the tags of a fold's nodes, as MLflow has them: fold, row, variant of CLEP, contexts, corpus and seeds."""

import pytest

from clepdg.config.presets import build
from clepdg_flows.graph.pipeline import graph
from clepdg_tasks.tracking.lineage import clep_id, fold_tags, licences_of

NODES = {node.id: node for node in graph(build("demo", overrides={"rows": "all"}), {})}
OTHERS = set(build("demo").corpora) - {"synthetic-1"}
OF_CLEP = {"fold": "supervised", "model": "supervised.c0", "seed": "c0"}
OF_LORA = {"fold": "supervised", "model": "supervised.lora.c0", "seed": "c0", "variant": "lora"}


@pytest.mark.parametrize(
    ("node_id", "tags"),
    [
        ("clep/supervised.c0", OF_CLEP),
        ("clep/supervised.lora.c0", OF_LORA),
        ("acpt/supervised.c0.random.l0", {**OF_CLEP, "seed": "c0.l0", "contexts": "random"}),
        ("text_embeddings/supervised.lora.c0.acpt.l0", {**OF_LORA, "seed": "c0.l0", "contexts": "acpt"}),
        ("text_embeddings/supervised.c0.none", {**OF_CLEP, "contexts": "none"}),
        ("text_embeddings/backbone.none", {"model": "backbone", "seed": "-", "contexts": "none"}),
        ("audio_embeddings/supervised.c0.synthetic-1", {**OF_CLEP, "corpus": "synthetic-1", "condition": "clean"}),
        (
            "audio_embeddings/backbone-full-band.synthetic-1",
            {"model": "backbone-full-band", "seed": "-", "corpus": "synthetic-1", "condition": "clean"},
        ),
        (
            "classifier/supervised.log-mel.-",
            {"fold": "supervised", "model": "log-mel", "seed": "-", "row": "log-mel"},
        ),
        ("classifier/supervised.text-acpt.c0.l0", {**OF_CLEP, "seed": "c0.l0", "row": "text-acpt"}),
        ("evaluate/supervised", {"fold": "supervised", "seed": "-"}),
        ("shard/synthetic-1", {}),
    ],
)
def test_tags_of_nodes(node_id, tags):
    assert fold_tags(NODES[node_id]) == tags


@pytest.mark.parametrize("stage", ["source", "index", "shard"])
def test_a_data_stage_has_its_corpus(stage):
    assert NODES[f"{stage}/synthetic-1"].tags == {"corpus": "synthetic-1"}


def test_the_report_has_the_tags_of_its_models():
    refs = NODES["report/report"].inputs
    assert refs["clep/supervised.lora.c0"].tags["variant"] == "lora"
    assert refs["acpt/supervised.c0.random.l0"].tags["contexts"] == "random"


def test_a_reference_has_no_other_tags_than_its_node():
    """Beside row, seed and model of the contexts that an evaluation compares."""
    for node in NODES.values():
        for name, ref in node.refs.items():
            if not name.startswith("text/"):
                assert ref.tags.items() <= NODES[ref.id].tags.items(), (node.id, name)


@pytest.mark.parametrize(
    ("node_id", "corpora"),
    [
        ("clep/leave-out-synthetic-1.c0", OTHERS),
        ("clep/leave-out-synthetic-1.interpolated.c0", OTHERS),
        ("acpt/leave-out-synthetic-1.c0.acpt.l0", OTHERS),
        ("text_embeddings/leave-out-synthetic-1.c0.acpt.l0", OTHERS),
        ("text_embeddings/backbone.none", set()),
        ("classifier/leave-out-synthetic-1.text-acpt.c0.l0", OTHERS),
        ("classifier/leave-out-synthetic-1.target-probe.c0", {"synthetic-1", *OTHERS}),
    ],
)
def test_an_output_names_the_corpora_that_it_is_trained_on(node_id, corpora):
    assert set(NODES[node_id].trained_on) == corpora
    assert (licences_of(NODES[node_id]) == "none") == (not corpora)


def test_a_classifier_knows_its_clep():
    for node in NODES.values():
        if node.stage == "classifier" and "text-acpt" in node.name:
            assert clep_id(node) == f"clep/{node.name.partition('.')[0]}.c0"
        if node.stage == "classifier" and ".clep-lora." in node.name:
            assert clep_id(node) == f"clep/{node.name.partition('.')[0]}.lora.c0"
