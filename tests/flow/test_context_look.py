"""Protects the look at contexts and acoustics in a fold: of every model that reads contexts, by plain loops."""

import json

import numpy as np
import pandas as pd
import pytest

from clepdg.config.presets import build
from clepdg.evaluation.context_geometry import DIRECTIONS
from clepdg.method.audio_embeddings import load_audio_embeddings
from clepdg.method.text_embeddings import load_text_embeddings
from clepdg.prompts import CONTEXT_OF
from clepdg_flows.graph.pipeline import graph
from clepdg_tasks.stages.contexts import FILE
from tests.flow.small import SMALL, run_nodes

FOLD = "leave-out-synthetic-2"
CONDITIONS = {"white-10dB": "white", "white-0dB": "white", "telephone": "telephone"}
SETTINGS = {
    **SMALL,
    "synthetic.utterances": 40,
    "evaluate.conditions": ",".join(CONDITIONS),
    "rows": "clap-zero-shot,text-hand-written,text-acpt,clep-frozen-text",
}
MODELS = {
    "backbone": "backbone",
    "text-hand-written": f"{FOLD}.c0",
    "text-acpt": f"{FOLD}.c0",
    "clep-frozen-text": f"{FOLD}.frozen-text.c0",
}


@pytest.fixture(scope="module")
def config():
    return build("demo", corpora=("synthetic-1", "synthetic-2"), overrides=SETTINGS)


@pytest.fixture(scope="module")
def stood(config, tmp_path_factory):
    """Run every node once, in order; return the folder of each one's output."""
    return run_nodes(graph(config, {}, folds=(FOLD,)), tmp_path_factory.mktemp("home"))[2]


def moves_of_audio(stood, model: str) -> dict[str, list]:
    """Return kind of corruption -> a(noisy) - a(clean) of every test utterance, one after another."""
    found: dict[str, list] = {}
    clean = load_audio_embeddings(stood[f"audio_embeddings/{model}.synthetic-2"])
    at = {name: place for place, name in enumerate(clean.utterance_ids)}
    index = pd.read_parquet(stood["index/synthetic-2"] / "utterances.parquet")
    test = set(index.utterance_id[index.split == "test"])
    for condition, kind in CONDITIONS.items():
        heard = load_audio_embeddings(stood[f"audio_embeddings/{model}.synthetic-2.{condition}"])
        assert set(heard.utterance_ids) == set(clean.utterance_ids) > test
        for name, embedding in (
            (n, x) for n, x in zip(heard.utterance_ids, heard.embeddings, strict=True) if n in test
        ):
            found.setdefault(kind, []).append(np.float64(embedding) - np.float64(clean.embeddings[at[name]]))
    return found


def moves_of_text(stood, model: str, contexts: str) -> np.ndarray:
    """Return u_kn - c_n (K, N, D)."""
    text = load_text_embeddings(stood[f"text_embeddings/{model}.{contexts}"])
    places = {
        (int(k), int(n)): place
        for place, (k, n) in enumerate(zip(text.context_index, text.label_index, strict=True))
        if k >= 0
    }
    embedded, content = (part.numpy().astype(np.float64) for part in (text.embeddings, text.content))
    labels = range(len(text.labels))
    return np.stack(
        [[embedded[places[k, n]] - content[n] for n in labels] for k in range(len(places) // len(text.labels))]
    )


def mean_direction(vectors) -> np.ndarray:
    mean = np.mean([vector / np.linalg.norm(vector) for vector in vectors], axis=0)
    return mean / np.linalg.norm(mean)


def test_each_model_is_held_against_its_own_audio(stood, config):
    table = pd.read_parquet(stood[f"evaluate/{FOLD}"] / FILE).set_index("row")
    assert set(table.index) == {*MODELS}
    words = config.text.handwritten_contexts
    for row, model in MODELS.items():
        audio = moves_of_audio(stood, model)
        text = moves_of_text(stood, model, "acpt.l0" if row == "text-acpt" else "hand-written")
        every = np.concatenate([np.stack(vectors) for vectors in audio.values()])
        flat = text.reshape(-1, text.shape[-1])
        _, directions = np.linalg.eigh(flat.T @ flat)
        inside = np.square(every @ directions[:, -DIRECTIONS:]).sum() / np.square(every).sum()
        assert table.share[row] == pytest.approx(inside, rel=1e-6)
        if row == "text-acpt":
            assert pd.isna(table.p[row])
            continue
        by_context = np.stack([mean_direction(text[place]) for place in range(len(words))])
        by_context = by_context - by_context.mean(axis=0)
        by_context /= np.linalg.norm(by_context, axis=1, keepdims=True)
        ranks = {}
        for kind, vectors in audio.items():
            order = np.argsort(-(by_context @ mean_direction(vectors)))
            ranks[kind] = 1 + [words[place] for place in order].index(CONTEXT_OF[kind])
        assert json.loads(table.ranks[row]) == ranks
        assert table.mean_rank[row] == np.mean(list(ranks.values()))
    assert table.share["clep-frozen-text"] != table.share["text-hand-written"] != table.share["backbone"]


def test_the_report_tells_the_models_apart(stood):
    page = (stood["report/report"] / "report.html").read_text()
    for title in (
        "hand-written contexts, before CLEP",
        "hand-written contexts, CLEP&#x27;s text side frozen",
        "ACPT contexts",
    ):
        assert f"{FOLD}: {title}" in page.replace("&#39;", "&#x27;").replace("CLEP's", "CLEP&#x27;s"), title
