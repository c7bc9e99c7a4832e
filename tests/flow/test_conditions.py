"""Protects which utterances a condition holds: a left-out target whole, of other folds the test part."""

import shutil
from dataclasses import replace

import pandas as pd
import pytest

from clepdg.config.presets import build
from clepdg_flows.graph.pipeline import graph
from tests.flow.small import run_nodes

BOTH, SUPERVISED = ("supervised", "leave-one-corpus-out"), ("supervised",)
CORPORA = ("synthetic-1", "synthetic-2")
CONFIG = replace(
    build("demo", corpora=CORPORA, overrides={"synthetic.utterances": 20}),
    rows=("log-mel",),
)


def heard(protocols, conditions=("clipping", "babble-5dB"), rows=("log-mel", "clep-probe"), folds=None):
    """Return embedding node -> the setting that says which utterances of a corpus it holds."""
    evaluate = replace(CONFIG.evaluate, conditions=conditions)
    nodes = graph(replace(CONFIG, rows=rows, protocols=protocols, evaluate=evaluate), {}, folds=folds)
    return {node.name: node.config.get("utterances") for node in nodes if node.stage == "audio_embeddings"}


def test_a_condition_holds_all_of_a_left_out_target_and_what_supervised_alone_reads_the_test_part():
    found = heard(BOTH)
    assert {name: found[name] for name in found if "synthetic-1" in name.split(".")} == {
        "log-mel.synthetic-1": None,
        "log-mel.synthetic-1.clipping": "whole",
        "supervised.log-mel.synthetic-1.babble-5dB": "test",
        "leave-out-synthetic-1.log-mel.synthetic-1.babble-5dB": "whole",
        "supervised.c0.synthetic-1": None,
        "supervised.c0.synthetic-1.clipping": "test",
        "supervised.c0.synthetic-1.babble-5dB": "test",
        "leave-out-synthetic-1.c0.synthetic-1": None,
        "leave-out-synthetic-1.c0.synthetic-1.clipping": "whole",
        "leave-out-synthetic-1.c0.synthetic-1.babble-5dB": "whole",
        "leave-out-synthetic-2.c0.synthetic-1": None,
    }
    assert set(heard(SUPERVISED).values()) == {None, "test"}


@pytest.mark.parametrize("folds", [("supervised",), ("leave-out-synthetic-2",)])
def test_parts_of_a_run_hold_what_the_whole_run_does(folds):
    whole = heard(BOTH)
    assert heard(BOTH, folds=folds).items() <= whole.items()


def test_a_fold_that_is_added_later_has_the_results_that_it_would_have_had_from_the_start(tmp_path):
    def evaluated(protocols, home, until="evaluate"):
        config = replace(CONFIG, protocols=protocols, evaluate=replace(CONFIG.evaluate, conditions=("clipping",)))
        nodes = [node for node in graph(config, {}, until=until) if node.stage != "backbone"]
        _, _, folders = run_nodes(nodes, tmp_path / home)
        return {
            node: pd.read_parquet(folder / "predictions.parquet")
            for node, folder in folders.items()
            if node.startswith("evaluate/")
        }

    evaluated(BOTH, "a", until="shard")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first, later, at_once = evaluated(SUPERVISED, "a"), evaluated(BOTH, "a"), evaluated(BOTH, "b")
    assert set(first) < set(later) == set(at_once)
    for node, predictions in later.items():
        pd.testing.assert_frame_equal(predictions, at_once[node])
        splits = {"test"} if node == "evaluate/supervised" else {"train", "validation", "test"}
        assert {name: set(part.split) for name, part in predictions.groupby("condition")} == {
            "clean": splits, "clipping": splits,
        }  # fmt: skip
    pd.testing.assert_frame_equal(first["evaluate/supervised"], later["evaluate/supervised"])
