"""Protects dual-context: heads learn environments from source audio alone, and its contexts are compared in words."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from clepdg import prompts
from clepdg.config.presets import build
from clepdg.method.audio_embeddings import load_audio_embeddings
from clepdg.models.dual import load_dual
from clepdg_flows.graph.pipeline import graph
from clepdg_tasks.host.model_checks import check_backbone
from tests.encoders import save_encoders
from tests.flow.small import SMALL, run_nodes

CORPORA = ("synthetic-1", "synthetic-3")
SETTINGS = {
    **SMALL, "clep.batch_size": 4, "synthetic.utterances": 20, "pretrain.utterances": 4, "pretrain.steps": 3,
    "rows": ("clap-zero-shot", "clep-zero-shot", "text-hand-written"), "evaluate.conditions": ("white-0dB", "hum-0dB"),
}  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    encoders = save_encoders(tmp_path_factory.mktemp("encoders"))
    config = build("open", backbone="dual-context:" + "+".join(map(str, encoders)), overrides=SETTINGS)
    check_backbone(config)
    return replace(config, corpora=CORPORA)


@pytest.fixture(scope="module")
def nodes(config):
    return graph(config, {})


@pytest.fixture(scope="module")
def ran(nodes, tmp_path_factory):
    return run_nodes(nodes, tmp_path_factory.mktemp("home"))


def test_each_fold_has_heads_of_its_sources_and_states_in_environments_are_computed_once(nodes):
    by_id = {node.id: node for node in nodes}
    for corpus in CORPORA:
        environments = by_id[f"features/{corpus}.environments"]
        assert {ref.id: ref.part for ref in environments.inputs.values()} == {
            f"shard/{corpus}": "learning", "backbone/backbone": "encoder",
        }  # fmt: skip
        source = next(other for other in CORPORA if other != corpus)
        heads = by_id[f"backbone/leave-out-{corpus}.backbone"]
        assert {ref.id for ref in heads.inputs.values()} == {"backbone/backbone", f"features/{source}.environments"}
        assert by_id[f"clep/leave-out-{corpus}.c0"].inputs["backbone"].id == heads.id


def test_up_to_the_backbone_a_run_has_all_that_its_heads_need(config):
    nodes = graph(config, {}, until="backbone")
    known = {node.id for node in nodes}
    assert {ref.id for node in nodes for ref in node.inputs.values()} <= known
    assert {node.stage for node in nodes} == {"source", "index", "shard", "backbone", "features"}
    assert {node.name for node in nodes if node.stage == "features"} == {f"{name}.environments" for name in CORPORA}


def test_states_are_of_the_learning_parts_in_every_environment(ran):
    _, _, folders = ran
    split = pd.read_parquet(folders[f"shard/{CORPORA[0]}"] / "offsets.parquet").set_index("utterance_id").split
    states = load_audio_embeddings(folders[f"features/{CORPORA[0]}.environments"], dimensions=3)
    names = [name.split("/", 2) for name in states.utterance_ids]
    assert {split[utterance] for _, _, utterance in names} == {"train", "validation"}
    assert all(split[utterance] == part for part, _, utterance in names)
    for part, count in (("train", 4), ("validation", 1)):
        assert [environment for own, environment, _ in names if own == part] == count * [*prompts.CONTEXT_OF]
    clean = {name[2]: x for name, x in zip(names, states.embeddings, strict=True) if name[1] == "clean"}
    plain = load_audio_embeddings(folders[f"features/{CORPORA[0]}"], dimensions=3)
    for name, x in zip(plain.utterance_ids, plain.embeddings, strict=True):
        if name in clean:
            np.testing.assert_allclose(clean[name], x, atol=1e-4)


def test_only_heads_are_pretrained_and_the_text_side_stays_so_in_clep(ran):
    _, records, folders = ran
    fold = f"leave-out-{CORPORA[0]}"
    start, heads, clep = (
        load_dual(folders[name]).model.state_dict()
        for name in ("backbone/backbone", f"backbone/{fold}.backbone", f"clep/{fold}.c0")
    )
    moved = {name for name, tensor in heads.items() if not tensor.equal(start[name])}
    assert {name.partition(".")[0] for name in moved} == {"audio_projection", "text_projection", "logit_scale_a"}
    moved = {name for name, tensor in clep.items() if not tensor.equal(heads[name])}
    assert {name.partition(".")[0] for name in moved} == {"audio_projection", "logit_scale_a"}
    figures = records[f"backbone/{fold}.backbone"].figures
    assert {"environment_accuracy_heard", "environment_accuracy_left_out"} < set(figures)


def test_the_report_names_the_environments_that_no_pretraining_taught(ran):
    _, _, folders = ran
    text = (folders["report/report"] / "results.md").read_text()
    found = set(re.findall(r"(\w+) \d+ \(never taught\)", text))
    assert found == {"hum"} and re.search(r"white \d+[,\s|]", text)
    assert "Backbone dual-context is dual" in text
    assert "heads of environments, zero-shot" in text
