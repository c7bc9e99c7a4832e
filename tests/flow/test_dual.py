"""Protects the dual backbone in a run: states are computed once, and CLEP sees the sources' learning parts alone."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from clepdg.config.presets import build
from clepdg.models.dual import load_dual
from clepdg_flows.graph.pipeline import graph
from tests.encoders import save_encoders
from tests.flow.small import SMALL, run_nodes

SOURCE, TARGET = "synthetic-1", "synthetic-3"
FOLD = f"leave-out-{TARGET}"
SETTINGS = {
    **SMALL, "clep.batch_size": 4, "synthetic.utterances": 16, "rows": ("clep-zero-shot", "text-acpt"),
    "evaluate.conditions": ("white-0dB", "babble-0dB"),
}  # fmt: skip


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    encoders = save_encoders(tmp_path_factory.mktemp("encoders"))
    config = build("open", backbone="dual:" + "+".join(map(str, encoders)), overrides=SETTINGS)
    return graph(replace(config, corpora=(SOURCE, TARGET)), {}, folds=(FOLD,))


@pytest.fixture(scope="module")
def ran(nodes, tmp_path_factory):
    return run_nodes(nodes, tmp_path_factory.mktemp("home"))


def test_states_are_computed_once_for_each_corpus_and_condition(nodes):
    names = [node.name for node in nodes if node.stage == "features"]
    assert sorted(names) == [
        f"{FOLD}.{TARGET}.babble-0dB", SOURCE, TARGET, f"{TARGET}.white-0dB",
    ]  # fmt: skip
    [clep] = [node for node in nodes if node.stage == "clep"]
    read = {name: (ref.id, ref.part) for name, ref in clep.inputs.items() if ref.stage == "features"}
    assert read == {f"features/{SOURCE}": (f"features/{SOURCE}", "learning")}
    [features] = [node for node in nodes if node.id == f"features/{SOURCE}"]
    assert features.inputs["backbone"].part == "encoder"  # other heads keep the states


def test_what_is_evaluated_is_what_clep_makes_of_the_states(ran):
    _, _, folders = ran
    clep = load_dual(folders[f"clep/{FOLD}.c0"])
    for condition in ("", ".white-0dB"):
        states = load_file(folders[f"features/{TARGET}{condition}"] / "audio_embeddings.safetensors")["embeddings"]
        found = load_file(folders[f"audio_embeddings/{FOLD}.c0.{TARGET}{condition}"] / "audio_embeddings.safetensors")
        with torch.no_grad():
            expected = clep.encode_inputs(torch.from_numpy(states)).numpy()
        np.testing.assert_allclose(found["embeddings"], expected, atol=1e-6)
    predictions = pd.read_parquet(folders[f"evaluate/{FOLD}"] / "predictions.parquet")
    assert {"white-0dB", "babble-0dB"} < set(predictions.condition)


def test_encoders_are_the_backbones_own_after_clep(ran):
    _, records, folders = ran
    before, after = (load_dual(folders[name]) for name in ("backbone/backbone", f"clep/{FOLD}.c0"))
    assert before.encoder.digest() == after.encoder.digest() == records["backbone/backbone"].digests["encoder"]
    assert before.digest() != after.digest()
