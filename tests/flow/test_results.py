"""Protects that a run's tables can be recomputed from its predictions alone, and what the probes beside CLEP hear."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, recall_score

from clepdg.config.presets import build
from clepdg.dataset import shards
from clepdg.emotions import labels
from clepdg.evaluation.cells import cells
from clepdg.report.tables import figure
from clepdg_tasks.host.settings import load_settings
from tests.flow.small import SMALL

pytestmark = pytest.mark.usefixtures("prefect_server")

CORPORA = ("synthetic-1", "synthetic-2")
EGEMAPS = importlib.util.find_spec("opensmile") is not None  # an extra: its licence allows research alone
ROWS = ["majority", "log-mel", *(["egemaps"] if EGEMAPS else []), "encoder", "clep-zero-shot", "text-acpt"]
FOLDS = ("supervised", "leave-out-synthetic-1", "leave-out-synthetic-2")
LABELS = labels("4")
SETTINGS = {
    **SMALL,
    "synthetic.utterances": 40,
    "later_seeds": "0,1",
    "evaluate.conditions": "telephone",
    "rows": ",".join(ROWS),
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    """Return a folder with a tiny random WavLM."""
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoders") / "a wavlm"
    config = WavLMConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                         conv_dim=[16, 16], conv_stride=[20, 16], conv_kernel=[40, 16], num_conv_pos_embeddings=8,
                         num_conv_pos_embedding_groups=2)  # fmt: skip
    WavLMModel(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def stood(encoder) -> dict[str, Path]:
    """Run once; return the folder of every node's output."""
    from clepdg_flows.clep_dg import clep_dg

    clep_dg(preset="demo", corpora=list(CORPORA), overrides={**SETTINGS, "encoder.name": encoder})
    store = load_settings().open_store()
    newest = max((store.root / "runs").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    stages = json.loads(newest.read_text())["stages"]
    return {name: store.local(name.partition("/")[0], facts["key"]) for name, facts in stages.items()}


def mean(
    metric: Callable[..., float], seeds: list[pd.DataFrame], of: str | list[str] = "predicted", **options
) -> float:
    """Return the mean over seeds of a metric of scikit-learn."""
    return float(np.mean([metric(part.true, part[of].to_numpy(), **options) for part in seeds]))


def test_every_number_is_scikit_learns_on_the_predictions(stood):
    told = pd.concat([pd.read_parquet(stood[f"evaluate/{fold}"] / "cells.parquet") for fold in FOLDS])
    assert set(told.row) == set(ROWS) and set(told.condition) == {"clean", "telephone"}
    assert {tuple(pair) for pair in told[["fold", "target"]].to_numpy()} == {
        *(("supervised", target) for target in (*CORPORA, "pooled")),
        *((f"leave-out-{corpus}", corpus) for corpus in CORPORA),
    }
    for cell in told.to_dict("records"):
        predictions = pd.read_parquet(stood[f"evaluate/{cell['fold']}"] / "predictions.parquet")
        own = predictions[(predictions.row == cell["row"]) & (predictions.condition == cell["condition"])]
        own = own if cell["target"] == "pooled" else own[own.corpus == cell["target"]]
        test = own[own.split == "test"]
        used = own if cell["part"] == "whole" else test
        assert cell["part"] == ("test" if cell["fold"] == "supervised" else "whole")
        seeds = [part for _, part in used.groupby("seed")]
        assert len(seeds) == cell["seeds"] == (2 if cell["row"] == "text-acpt" else 1)
        counts = seeds[0].true.value_counts()
        kept = [label for label in LABELS if counts.get(label, 0) >= 3]

        average = {"labels": kept, "average": "macro", "zero_division": 0}
        expected = {
            "uar": mean(recall_score, seeds, **average),
            "war": mean(accuracy_score, seeds),
            "macro_f1": mean(f1_score, seeds, **average),
            "nll": mean(log_loss, seeds, of=[f"p_{label}" for label in LABELS], labels=LABELS),
            "largest_share": max(part.predicted.value_counts().max() / len(part) for part in seeds),
            "n": len(seeds[0]),
            "speakers": seeds[0].speaker.nunique(),
            "chance": 1 / len(kept),
        }
        assert {name: cell[name] for name in expected} == pytest.approx(expected), cell
        recalls = recall_score(used.true, used.predicted, labels=kept, average=None, zero_division=0)
        assert [cell["recalls"][label] for label in kept] == pytest.approx(recalls)
        assert np.array_equal(
            np.stack(list(cell["confusion"])), confusion_matrix(used.true, used.predicted, labels=LABELS)
        )
        if cell["fold"] != "supervised":
            counts = test[test.seed == test.seed.iloc[0]].true.value_counts()
            average["labels"] = [label for label in LABELS if counts.get(label, 0) >= 3]
            of_test = mean(recall_score, [part for _, part in test.groupby("seed")], **average)
            assert (cell["uar_test"], cell["n_test"]) == (pytest.approx(of_test), len(test) // len(seeds))


def test_the_published_function_gives_the_stored_cells_and_the_reports_table(stood):
    config = build("demo", corpora=CORPORA, overrides=SETTINGS).evaluate
    parts = [pd.read_parquet(stood[f"evaluate/{fold}"] / "predictions.parquet") for fold in FOLDS]
    again = cells(
        pd.concat(parts, ignore_index=True),
        LABELS,
        confidence=config.confidence,
        split_units={"synthetic-1": "speaker", "synthetic-2": "speaker"},
    )
    key = ["fold", "target", "row", "condition"]
    numbers = [name for name in again.columns if pd.api.types.is_numeric_dtype(again[name])]
    assert {"uar", "low", "high", "ece", "effective"} <= set(numbers)
    told = pd.concat([pd.read_parquet(stood[f"evaluate/{fold}"] / "cells.parquet") for fold in FOLDS])
    results = pd.read_csv(stood["report/report"] / "results.csv")
    for stored in (told, results):
        pd.testing.assert_frame_equal(
            again.set_index(key)[numbers].sort_index().astype(float),
            stored.set_index(key)[numbers].sort_index().astype(float),
        )
    text = (stood["report/report"] / "table.txt").read_text()
    for uar in again[(again.condition == "clean") & (again.fold != "supervised")].uar:
        assert figure(uar) in text


def test_probes_beside_clep_hear_what_lies_in_the_shards(stood, encoder):
    from clepdg.method.audio_embeddings import load_audio_embeddings
    from clepdg.models import egemaps, speech_encoder

    heard = {
        "encoder": speech_encoder.load_encoder(encoder).encode,
        **({"egemaps": egemaps.functionals} if EGEMAPS else {}),
    }
    utterances = list(shards.stream(stood["shard/synthetic-1"]))[:5]
    for row, embed in heard.items():
        found = load_audio_embeddings(stood[f"audio_embeddings/{row}.synthetic-1"])
        assert found.utterance_ids[:5] == tuple(name for name, _, _ in utterances)
        expected = np.stack([embed(waveform, rate) for _, waveform, rate in utterances])
        np.testing.assert_allclose(found.embeddings[:5], expected, rtol=1e-4, atol=1e-4)
    assert "linear probe on speech encoder a wavlm" in (stood["report/report"] / "table.txt").read_text()
