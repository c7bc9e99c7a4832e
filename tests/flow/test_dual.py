"""Protects the dual backbone in a run: states are computed once, and CLEP sees the sources' learning parts alone."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from clepdg.config.presets import build
from clepdg.dataset.shards import read_offsets, stream
from clepdg.models.dual import load_dual
from clepdg_flows.graph.pipeline import graph
from tests.encoders import save_encoders
from tests.flow.small import SMALL, run_nodes

SOURCE, TARGET = "synthetic-1", "synthetic-3"
FOLD = f"leave-out-{TARGET}"
SETTINGS = {
    **SMALL, "clep.batch_size": 4, "synthetic.utterances": 20,
    "rows": (
        "encoder-probe", "clep-zero-shot", "clep-zero-shot-target-standardised", "text-acpt", "clep-zero-shot-lora"
    ),
    "evaluate.conditions": ("white-0dB", "babble-0dB"),
}  # fmt: skip


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    return "+".join(map(str, save_encoders(tmp_path_factory.mktemp("encoders"))))


def nodes_of(encoders, **changes):
    config = build("open", backbone=f"dual:{encoders}", overrides=SETTINGS | changes)
    return graph(replace(config, corpora=(SOURCE, TARGET)), {}, folds=(FOLD,), until="evaluate")


@pytest.fixture(scope="module")
def nodes(encoders):
    return nodes_of(encoders)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def ran(nodes, home):
    return run_nodes(nodes, home)


def embeddings(folders, name):
    return load_file(folders[name] / "audio_embeddings.safetensors")["embeddings"]


def waveforms(folders):
    return [(waveform, rate) for _, waveform, rate in stream(folders[f"shard/{TARGET}"])]


def in_test_part(folders):
    """Return which of the target's utterances, in the tars' order, are in its test part."""
    split = read_offsets(folders[f"shard/{TARGET}"]).set_index("utterance_id").split
    return [split[name] == "test" for name, _, _ in stream(folders[f"shard/{TARGET}"])]


def test_states_are_computed_once_for_each_corpus_and_condition(nodes):
    names = [node.name for node in nodes if node.stage == "features"]
    assert sorted(names) == [
        f"{FOLD}.{TARGET}.babble-0dB", SOURCE, TARGET, f"{TARGET}.white-0dB",
    ]  # fmt: skip
    for clep in [node for node in nodes if node.stage == "clep"]:
        read = {name: (ref.id, ref.part) for name, ref in clep.inputs.items() if ref.stage == "features"}
        assert read == {f"features/{SOURCE}": (f"features/{SOURCE}", "learning")}
    [features] = [node for node in nodes if node.id == f"features/{SOURCE}"]
    assert features.inputs["backbone"].part == "encoder"  # other heads keep the states


def test_what_is_evaluated_is_what_clep_makes_of_the_states(ran):
    _, _, folders = ran
    clep = load_dual(folders[f"clep/{FOLD}.c0"])
    for condition in ("", ".white-0dB"):
        states = embeddings(folders, f"features/{TARGET}{condition}")
        found = embeddings(folders, f"audio_embeddings/{FOLD}.c0.{TARGET}{condition}")
        with torch.no_grad():
            expected = clep.encode_inputs(torch.from_numpy(states)).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-6)
    predictions = pd.read_parquet(folders[f"evaluate/{FOLD}"] / "predictions.parquet")
    assert {"white-0dB", "babble-0dB"} < set(predictions.condition)


def test_rows_on_the_states_and_on_a_standardised_target_are_of_the_same_states(ran):
    _, _, folders = ran
    states = embeddings(folders, f"features/{TARGET}")
    np.testing.assert_array_equal(
        embeddings(folders, f"audio_embeddings/states.{TARGET}"), states.reshape(len(states), -1)
    )
    clep = load_dual(folders[f"clep/{FOLD}.c0"])
    shifted = clep.model.audio_projection.standardise(states, states[in_test_part(folders)])
    with torch.no_grad():
        expected = clep.encode_inputs(torch.from_numpy(shifted)).numpy()
    found = embeddings(folders, f"audio_embeddings/{FOLD}.c0.target-standardised.{TARGET}")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not np.allclose(found, embeddings(folders, f"audio_embeddings/{FOLD}.c0.{TARGET}"), atol=1e-3)


def test_encoders_are_the_backbones_own_after_clep(ran):
    _, records, folders = ran
    before, after = (load_dual(folders[name]) for name in ("backbone/backbone", f"clep/{FOLD}.c0"))
    assert before.encoder.digest() == after.encoder.digest() == records["backbone/backbone"].digests["encoder"]
    assert before.digest() != after.digest()


def test_a_clep_whose_encoder_learnt_embeds_audio_and_no_states_of_another_encoder(nodes, ran):
    _, records, folders = ran
    name = f"audio_embeddings/{FOLD}.lora.c0.{TARGET}"
    [node] = [node for node in nodes if node.id == name]
    assert {ref.stage for ref in node.inputs.values()} == {"shard", "clep"}
    clep = load_dual(folders[f"clep/{FOLD}.lora.c0"])
    assert clep.encoder.digest() != records["backbone/backbone"].digests["encoder"]
    np.testing.assert_allclose(embeddings(folders, name), clep.encode_waveforms(waveforms(folders)), atol=1e-6)


def test_its_own_states_are_standardised_on_a_target(encoders, home):
    rows = ("clep-zero-shot-target-standardised",)
    nodes = nodes_of(encoders, **{"clep.train_audio_encoder": "true", "rows": rows, "evaluate.conditions": ()})
    assert [node.name for node in nodes if node.stage == "features"] == [SOURCE]  # the target's would be for nothing
    _, _, folders = run_nodes(nodes, home)
    clep, heard = load_dual(folders[f"clep/{FOLD}.c0"]), waveforms(folders)
    states = clep.pool(heard)
    with torch.no_grad():
        own = clep.model.audio_projection.standardise(states, states[in_test_part(folders)])
        expected = clep.encode_inputs(torch.from_numpy(own))
    found = embeddings(folders, f"audio_embeddings/{FOLD}.c0.target-standardised.{TARGET}")
    np.testing.assert_allclose(found, expected, atol=1e-5)
