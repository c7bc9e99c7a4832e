"""The table of a fold's predictions: columns, check, arrays.

A table of predictions has one line per (utterance, fold, row, seed, condition), with columns

    utterance_id, corpus, speaker, split
    cluster         optional: what is independent where speakers are not (sessions, dialogues)
    fold            "supervised": the test parts of all corpora; "leave-out-<corpus>" and "from-<corpus>-to-<corpus>":
                    all utterances of their target
    row             a method of the results table
    seed            "c0.l0": CLEP's seed and the later seed; "c0" or "-" where a row has none
    condition       "clean" or a corruption
    true, predicted the labels
    p_<label>       the probability of each label of the label set
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clepdg.config.folds import LEAVE_OUT, PAIR, SUPERVISED, kind
from clepdg.errors import ClepError
from clepdg.evaluation.metrics import Floats, Ints

if TYPE_CHECKING:
    import pandas as pd

KEY = ["fold", "row", "condition", "seed", "utterance_id"]
COLUMNS = [*KEY, "corpus", "speaker", "split", "true", "predicted"]
PROBABILITY = "p_"  # before the label


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions of one row as arrays: S seeds, U utterances, N labels.

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


def probability_columns(labels: Sequence[str]) -> list[str]:
    """Return the columns of probabilities, in the order of the labels."""
    return [f"{PROBABILITY}{label}" for label in labels]


def coded(predictions: "pd.DataFrame") -> "pd.DataFrame":
    """Convert the columns of texts to categories, which group faster."""
    texts = [column for column in (*COLUMNS, "cluster") if column in predictions]
    return predictions.astype(dict.fromkeys(texts, "category"))


def to_arrays(part: "pd.DataFrame", labels: tuple[str, ...]) -> Predictions:
    """Convert the predictions of one cell to arrays.

    The cell is a fold, target, row and condition; utterances are in the order of their ids.

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
    speakers = pd.factorize(first["speaker"])[0]
    return Predictions(
        truth=numbers(first["true"]),
        predicted=numbers(ordered["predicted"]).reshape(shape),
        probabilities=ordered[probability_columns(labels)].to_numpy(np.float64).reshape(*shape, len(labels)),
        speakers=speakers,
        clusters=pd.factorize(first["cluster"])[0] if "cluster" in first else speakers,
    )


def check(predictions: "pd.DataFrame", labels: tuple[str, ...]) -> None:
    """Check that predictions agree with themselves and with the label set.

    Raises:
        ClepError: they do not; all faults are listed.
    """
    expected, own = [*COLUMNS, *probability_columns(labels)], [str(column) for column in predictions]
    faults = [f"no column {column}" for column in expected if column not in own]
    others = [column for column in own if column.startswith(PROBABILITY) and column not in expected]
    faults += [f"column {column} is not of one of {', '.join(labels)}" for column in others]
    faults = faults or list(_faults(predictions, labels))
    if predictions.empty or faults:
        raise ClepError("The predictions can't be evaluated.", got=faults or "no predictions", where="predictions")


def _faults(predictions: "pd.DataFrame", labels: tuple[str, ...]) -> Iterator[str]:
    for column in ("true", "predicted"):
        unknown = sorted(set(predictions[column]) - set(labels))
        if unknown:
            yield f"{column} {', '.join(map(str, unknown))} is not one of {', '.join(labels)}"
    seeds = predictions["seed"].unique()
    misnamed = [str(seed) for seed in seeds if not re.fullmatch(r"-|c\d+(\.l\d+)?", str(seed))]
    if misnamed:
        yield f"seed {', '.join(misnamed)} is not of the form c0.l0, c0 or -"
    values = predictions[probability_columns(labels)].to_numpy(np.float64)
    wrong = ~((values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) < 1e-3))
    repeated = predictions.duplicated(KEY)
    for rows, fault in ((wrong, "lines have probabilities whose sum is not 1"), (repeated, "lines stand twice")):
        if rows.any():
            yield f"{rows.sum()} {fault}, first of {predictions['utterance_id'][rows].iloc[0]}"
    for column in ("corpus", "speaker", "split", "true"):
        several = predictions.groupby("utterance_id")[column].nunique() != 1
        if several.any():
            yield f"{several.sum()} utterances have more than one {column}, first {several.idxmax()}"
    test = predictions[predictions["split"] == "test"]
    for of, part in [*test.groupby(["fold"]), *predictions.groupby(["fold", "row", "condition"])]:
        utterances = part.groupby(["row", "condition", "seed"])["utterance_id"].agg(frozenset)
        odd = utterances[utterances != utterances.iloc[0]]
        if len(odd):
            where = ", ".join(map(str, odd.index))
            yield f"not all predictions of {', '.join(of)} are about the same utterances: {where}"
    for fold, part in predictions.groupby("fold"):
        others = sorted(corpus for corpus in set(part["corpus"]) if not _is_target(corpus, str(fold)))
        if fold != SUPERVISED and others:
            yield f"fold {fold} holds other corpora: {', '.join(others)}"


def _is_target(corpus: str, fold: str) -> bool:
    return fold.endswith(f"-to-{corpus}") if kind(fold) == PAIR else fold == LEAVE_OUT + corpus
