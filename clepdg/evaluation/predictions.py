"""Predictions: their contract, their check, and what one row of the results table answered, as arrays.

Predictions have one row per (utterance, fold, row, seed, condition), with columns utterance_id, corpus, speaker, split,
fold, row, seed ("c0.l0": CLEP seed, later seed; "c0" or "-" where a row has none), condition, emotion (true), label
(predicted) and probabilities (in the order of the labels). Fold "supervised" holds the test parts of all corpora,
"leave-out-<corpus>" and "from-<corpus>-to-<corpus>" all utterances of their target. Clusters are speakers, or what an
optional column `cluster` says where speakers are not what is independent (sessions, dialogues).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clepdg.config.folds import LEAVE_OUT, PAIR, SUPERVISED, kind
from clepdg.errors import ClepError
from clepdg.evaluation.metrics import Floats, Ints

if TYPE_CHECKING:
    import pandas as pd

KEY = ["fold", "row", "condition", "seed", "utterance_id"]
COLUMNS = [*KEY, "corpus", "speaker", "split", "emotion", "label", "probabilities"]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one row of the table answered: S seeds, U utterances, N labels.

    Attributes:
        truth: label indices (U,).
        predicted: label indices (S, U).
        probabilities: (S, U, N).
        speakers: (U,), 0 ... number of speakers - 1.
        clusters: (U,), the same where speakers are the clusters.
    """

    truth: Ints
    predicted: Ints
    probabilities: Floats
    speakers: Ints
    clusters: Ints


def coded(predictions: "pd.DataFrame") -> "pd.DataFrame":
    """Return predictions with categories for texts: they are sorted and grouped a thousand times."""
    texts = [column for column in (*COLUMNS, "cluster") if column in predictions and column != "probabilities"]
    return predictions.astype(dict.fromkeys(texts, "category"))


def read_answers(part: "pd.DataFrame", labels: tuple[str, ...]) -> Answers:
    """Return the predictions of one fold, target, row and condition as arrays, utterances in the order of their ids.

    Raises:
        ClepError: a label is not of the label set.
    """
    import pandas as pd

    def numbers(column: "pd.Series[str]") -> Ints:
        codes = pd.Categorical(column, categories=labels).codes.astype(np.int64)
        if (codes < 0).any():
            unknown = sorted({str(label) for label in column[codes < 0]})
            raise ClepError("The predictions can't be evaluated.", got=unknown, expected=labels, where=column.name)
        return codes

    ordered = part.sort_values(["seed", "utterance_id"])
    seeds = ordered["seed"].nunique()
    shape = (seeds, len(ordered) // max(seeds, 1))
    first = ordered.iloc[: shape[1]]
    predicted = numbers(ordered["label"]).reshape(shape)
    probabilities = np.array(ordered["probabilities"].tolist(), np.float64).reshape(*shape, len(labels))
    speakers = pd.factorize(first["speaker"])[0]
    return Answers(
        truth=numbers(first["emotion"]),
        predicted=predicted,
        probabilities=probabilities,
        speakers=speakers,
        clusters=pd.factorize(first["cluster"])[0] if "cluster" in first else speakers,
    )


def check(predictions: "pd.DataFrame", labels: tuple[str, ...]) -> None:
    """Check that predictions agree with themselves and with the label set.

    Raises:
        ClepError: they do not; all faults are listed.
    """
    missing = [column for column in COLUMNS if column not in predictions]
    faults = [f"no column {column}" for column in missing] or list(_faults(predictions, labels))
    if predictions.empty or faults:
        raise ClepError("The predictions can't be evaluated.", got=faults or "no predictions", where="predictions")


def _faults(predictions: "pd.DataFrame", labels: tuple[str, ...]) -> Iterator[str]:
    for column in ("emotion", "label"):
        unknown = sorted(set(predictions[column]) - set(labels))
        if unknown:
            yield f"{column} {', '.join(map(str, unknown))} is not one of {', '.join(labels)}"
    seeds = predictions["seed"].unique()
    misnamed = [str(seed) for seed in seeds if not re.fullmatch(r"-|c\d+(\.l\d+)?", str(seed))]
    if misnamed:
        yield f"seed {', '.join(misnamed)} is not of the form c0.l0, c0 or -"
    wrong = predictions["probabilities"].map(len) != len(labels)
    values = np.array(predictions["probabilities"][~wrong].tolist()).reshape(-1, len(labels))
    wrong[~wrong] = ~((values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) < 1e-3))
    repeated = predictions.duplicated(KEY)
    for rows, fault in ((wrong, f"probabilities are not {len(labels)} with sum 1"), (repeated, "rows stand twice")):
        if rows.any():
            yield f"{rows.sum()} {fault}, first of {predictions['utterance_id'][rows].iloc[0]}"
    for column in ("corpus", "speaker", "split", "emotion"):
        several = predictions.groupby("utterance_id")[column].nunique() != 1
        if several.any():
            yield f"{several.sum()} utterances have more than one {column}, first {several.idxmax()}"
    test = predictions[predictions["split"] == "test"]
    for of, part in [*test.groupby(["fold"]), *predictions.groupby(["fold", "row", "condition"])]:
        answered = part.groupby(["row", "condition", "seed"])["utterance_id"].agg(frozenset)
        odd = answered[answered != answered.iloc[0]]
        if len(odd):
            yield f"not all answers of {', '.join(of)} are about the same utterances: {', '.join(map(str, odd.index))}"
    for fold, part in predictions.groupby("fold"):
        others = sorted(corpus for corpus in set(part["corpus"]) if not _is_target(corpus, str(fold)))
        if fold != SUPERVISED and others:
            yield f"fold {fold} holds other corpora: {', '.join(others)}"


def _is_target(corpus: str, fold: str) -> bool:
    return fold.endswith(f"-to-{corpus}") if kind(fold) == PAIR else fold == LEAVE_OUT + corpus
