"""Protects heads and predictions of a fold: by plain loops over what is stored, on corpora with rare emotions."""

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clepdg.callbacks import Reporting
from clepdg.config.presets import build
from clepdg.config.schema import ClassifierConfig
from clepdg.corpora import synthetic
from clepdg.method.classifier import fit_text
from clepdg.method.text_embeddings import load_text_embeddings
from clepdg_flows.graph.pipeline import graph
from tests.flow.small import SMALL, run_nodes

SOURCES, TARGET = ("synthetic-1", "synthetic-2"), "synthetic-3"
FOLD = f"leave-out-{TARGET}"
CONDITIONS = ("clean", "white-0dB")
LABELS = ("angry", "happy", "neutral", "sad")
COSINE = ("clep-zero-shot-centred", "text-acpt", "text-acpt-target-centred", "text-acpt-redrawn")
ROWS = (*COSINE, "clep-probe")
SETTINGS = {**SMALL, "text.redraws": 2, "evaluate.conditions": CONDITIONS[1:], "rows": ROWS}


def write_unevenly(card, config, root, write=synthetic.write):
    """Write a corpus without a third of its files: were emotions equally frequent, weights of classes did nothing."""
    write(card, config, root)
    files = sorted(root.rglob("*.wav"))
    for place in np.random.default_rng(len(files)).choice(len(files), len(files) // 3, replace=False):
        files[place].unlink()


@pytest.fixture(scope="module")
def stood(tmp_path_factory):
    """Run every node once, in order; return the folder of each one's output."""
    config = build("demo", corpora=(*SOURCES, TARGET), overrides=SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "write", write_unevenly)
        nodes = graph(config, {}, folds=(FOLD,), allow_partial=True)
        return run_nodes(nodes, tmp_path_factory.mktemp("home"))[2]


def utterances(stood, corpus: str, split: str) -> pd.DataFrame:
    table = pd.read_parquet(stood[f"index/{corpus}"] / "utterances.parquet")
    return table[table.split == split]


def embedded(stood, corpus: str, condition: str = "clean") -> dict[str, np.ndarray]:
    """Return utterance -> CLEP's audio embedding (D,)."""
    folder = stood[f"audio_embeddings/{FOLD}.c0.{corpus}" + ("" if condition == "clean" else f".{condition}")]
    vectors = load_file(folder / "audio_embeddings.safetensors")["embeddings"].astype(np.float64)
    return dict(zip(json.loads((folder / "utterances.json").read_text()), vectors, strict=True))


def learnt_from(stood, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a part of the sources: embeddings (U, D), labels (U,), corpora (U,)."""
    x, y, corpora = [], [], []
    for corpus in SOURCES:
        vectors = embedded(stood, corpus)
        for utterance in utterances(stood, corpus, split).to_dict("records"):
            x.append(vectors[utterance["utterance_id"]])
            y.append(LABELS.index(utterance["emotion"]))
            corpora.append(corpus)
    return np.stack(x), np.array(y), np.array(corpora)


def head(stood, row: str) -> dict:
    """Return what is stored of a row's head."""
    seed = "c0.l0" if row.startswith("text") else "c0"
    folder = stood[f"classifier/{FOLD}.{row}.{seed}"]
    tensors = {name: part.astype(np.float64) for name, part in load_file(folder / "head.safetensors").items()}
    return {**tensors, **json.loads((folder / "head.json").read_text())}


def mean_of(x: np.ndarray, y: np.ndarray, corpora: np.ndarray) -> np.ndarray:
    """Return the mean over corpora of the mean over classes."""
    by_corpus = []
    for corpus in SOURCES:
        classes = [x[(corpora == corpus) & (y == label)] for label in range(len(LABELS))]
        by_corpus.append(np.mean([rows.mean(axis=0) for rows in classes if len(rows)], axis=0))
    return np.mean(by_corpus, axis=0)


def cosines(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(weight, axis=1)
    return x @ weight.T / lengths


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def best_temperature(cosine: np.ndarray, y: np.ndarray, corpora: np.ndarray) -> float:
    """Return log T with the least mean over corpora of the mean over classes of the mean loss."""

    def loss(log_temperature: float) -> float:
        p = softmax(np.exp(log_temperature) * cosine)
        losses = -np.log(p[np.arange(len(y)), y])
        return mean_of(losses[:, None], y, corpora)[0]

    return minimize_scalar(loss, bounds=(0, np.log(100)), method="bounded", options={"xatol": 1e-6}).x


@pytest.mark.parametrize("row", COSINE)
def test_a_text_head_has_its_mean_from_training_and_its_temperature_from_validation(stood, row):
    found = head(stood, row)
    assert tuple(found["labels"]) == LABELS
    np.testing.assert_allclose(found["mean"], mean_of(*learnt_from(stood, "train")), atol=1e-6)
    x, y, corpora = learnt_from(stood, "validation")
    best = best_temperature(cosines(x - found["mean"], found["weight"]), y, corpora)
    assert found["log_temperature"] == pytest.approx(best, abs=5e-4)
    assert 0.1 < best < np.log(100) - 0.1  # at a bound, that of another part would be the same


def test_contexts_that_are_redrawn_are_learnt_from_set_by_set(stood, tmp_path):
    text = load_text_embeddings(stood[f"text_embeddings/{FOLD}.c0.acpt-redrawn.l0"])
    drawn = text.context_index >= 0
    sets = torch.where(drawn, text.context_index // SMALL["acpt.contexts"], -1)
    assert sets.unique().tolist() == [-1, 0, 1]
    config = ClassifierConfig(steps=SMALL["classifier.steps"])
    x, y = text.embeddings, text.label_index
    weight, _ = fit_text(x, y, len(LABELS), config, 0, tmp_path, Reporting(), sets=sets)
    np.testing.assert_allclose(head(stood, "text-acpt-redrawn")["weight"], weight, atol=1e-6)


def test_the_probe_is_scikit_learns_on_what_sources_train_on(stood):
    x, y, _ = learnt_from(stood, "train")
    peer = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced")).fit(x, y)
    heard = np.stack([*embedded(stood, TARGET).values()])
    found = head(stood, "clep-probe")
    np.testing.assert_allclose(softmax(heard @ found["weight"].T + found["bias"]), peer.predict_proba(heard), atol=1e-3)


def test_predictions_are_those_of_the_heads_on_audio_without_its_mean(stood):
    predictions = pd.read_parquet(stood[f"evaluate/{FOLD}"] / "predictions.parquet")
    splits = {name: part.split.value_counts().to_dict() for name, part in predictions.groupby("condition")}
    assert set(splits["clean"]) == {"train", "validation", "test"}  # nothing was learnt from the target
    assert splits["white-0dB"] == splits["clean"]
    of = dict(list(predictions.groupby(["row", "condition"])))
    assert set(of) == set(product(ROWS, CONDITIONS))
    for (row, condition), own in of.items():
        vectors, found = embedded(stood, TARGET, condition), head(stood, row)
        x = np.stack([vectors[name] for name in own.utterance_id])
        mean = found["mean"]
        if row == "text-acpt-target-centred":
            test = utterances(stood, TARGET, "test").utterance_id
            mean = np.mean([vectors[name] for name in test if name in vectors], axis=0)
        logits = x @ found["weight"].T + found["bias"]
        if found["cosine"]:
            logits = np.exp(found["log_temperature"]) * cosines(x - mean, found["weight"])
        p = softmax(logits)
        np.testing.assert_allclose(own[[f"p_{label}" for label in LABELS]], p, atol=1e-5, err_msg=f"{row} {condition}")
        assert own.predicted.tolist() == [LABELS[place] for place in p.argmax(axis=1)]
