"""Protects the table of predictions: built from codes, it gives the cells, digest and file that texts give."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from clepdg.errors import ClepError
from clepdg.evaluation import fold_results
from clepdg.evaluation.blocks import TEXTS, Blocks, join
from clepdg.evaluation.cells import cells
from clepdg.evaluation.consistency import check
from clepdg.evaluation.predictions import probability_columns
from clepdg.method.audio_embeddings import AudioEmbeddings
from clepdg.method.fold.predict import FoldHead, predict
from clepdg.method.heads import Head
from clepdg.store.readers import read_frame

LABELS = ("sad", "angry", "happy")  # not sorted
UNITS = {"b": "speaker", "a": "text"}
FOLDS = {"supervised": ("b", "a"), "leave-out-b": ("b",)}


def utterances(corpora: tuple[str, ...]) -> pd.DataFrame:
    rows = [
        (
            f"{corpus}/{n:02d}",
            corpus,
            f"{corpus}/s{n % 7}",
            f"{corpus}/s{n % 7}",
            ("train", "test")[n % 2],
            LABELS[n % 3],
        )
        for corpus in corpora
        for n in range(40)
    ]
    return pd.DataFrame(rows, columns=["utterance_id", "corpus", "speaker", "cluster", "split", "label"]).sort_values(
        "utterance_id", ignore_index=True
    )


def predictions(fold: str) -> pd.DataFrame:
    """Predict with rows and seeds that aren't sorted, in conditions that hold other utterances."""
    parts, generator = [], torch.Generator().manual_seed(0)
    heads = [
        FoldHead(row=row, seed=seed, model=row[-1], centred_on_target=False, head=Head(
            labels=LABELS, cosine=row != "probe-m", weight=torch.randn(3, 8, generator=generator),
            bias=torch.zeros(3), mean=torch.full((8,), 0.1), log_temperature=1.0))
        for row in ("text-m", "probe-m", "acpt-n") for seed in ("c1.l0", "c0.l0")
    ]  # fmt: skip
    for condition, splits in (("clean", ("train", "test")), ("telephone", ("test",)), ("babble-5dB", ("test",))):
        table = utterances(FOLDS[fold])
        table = table[table.split.isin(splits)].reset_index(drop=True)
        models = ("m", "n") if condition == "clean" else ("m",)
        x = np.random.default_rng(len(condition)).normal(size=(len(table), 8)).astype(np.float32)
        found = {model: [AudioEmbeddings(utterance_ids=tuple(table.utterance_id), embeddings=x)] for model in models}
        parts.append(predict(heads, table, found, fold=fold, condition=condition))
    return join(parts)


def in_texts(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype({name: "str" for name in TEXTS})


@pytest.mark.parametrize("fold", FOLDS)
def test_texts_in_any_order_give_the_cells_that_codes_give(fold: str) -> None:
    table = predictions(fold)
    asked = {"confidence": 0.95, "split_units": UNITS}
    expected = cells(table, LABELS, **asked)
    assert len(expected) == (1 if fold != "supervised" else 3) * (3 + 2 * 2)
    pd.testing.assert_frame_equal(cells(in_texts(table), LABELS, **asked), expected)
    pd.testing.assert_frame_equal(cells(in_texts(table).sample(frac=1, random_state=0), LABELS, **asked), expected)


def test_the_digest_is_of_the_texts_in_their_order(tmp_path: Path) -> None:
    table = predictions("supervised")
    found = cells(table, LABELS, confidence=0.95, split_units=UNITS)
    total, texts = hashlib.sha256(), in_texts(table)
    probabilities = probability_columns(LABELS)
    for name in texts.columns.drop(probabilities):
        total.update("\n".join(texts[name]).encode() + b"\0")
    total.update(np.ascontiguousarray(texts[probabilities].to_numpy()).tobytes())
    total.update(found.to_json(orient="records", double_precision=15).encode())
    assert fold_results.digest_results(table, found) == fold_results.digest_results(texts, found) == total.hexdigest()
    shuffled = texts.sample(frac=1, random_state=0)
    assert fold_results.digest_results(shuffled, found) != total.hexdigest()
    fold_results.write_predictions(table, tmp_path / "p.parquet")
    pd.testing.assert_frame_equal(in_texts(read_frame(tmp_path / "p.parquet", ())), texts)


def test_what_is_in_order_is_not_copied() -> None:
    table = predictions("leave-out-b")
    assert all(table[name].dtype == "category" and table[name].cat.codes.dtype == np.int8 for name in TEXTS)
    blocks = Blocks(table)
    assert np.shares_memory(blocks.numbers("p_sad", slice(0, 9)), table["p_sad"].to_numpy())
    assert len(blocks.blocks) == 6 + 2 * 4


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"predicted": "calm"}, "predicted calm is not one of sad, angry, happy"),
        ({"seed": "7"}, "seed 7 is not of the form"),
        ({"p_sad": -0.5}, "1 lines have probabilities whose sum is not 1, first of b/00"),
        ({"speaker": "b/s6"}, "1 utterances have more than one speaker, first b/00"),
        ({"utterance_id": "b/01"}, "1 lines stand twice, first of b/01"),
        ({"condition": "clipping"}, "not all predictions of leave-out-b, clean are about the same utterances: "),
    ],
)
def test_every_fault_is_found_and_named(change: dict[str, object], fault: str) -> None:
    table = in_texts(predictions("leave-out-b"))
    for name, value in change.items():
        table.loc[table.index[0], name] = value
    with pytest.raises(ClepError) as raised:
        check(table, LABELS)
    assert fault in str(raised.value)
