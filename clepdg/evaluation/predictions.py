"""The table of a fold's predictions: columns, check, arrays.

A table of predictions has one line per (utterance, fold, row, seed, condition), with columns

    utterance_id, corpus, speaker, split
    cluster         optional: what is independent where speakers are not, such as sessions
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
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from clepdg.audio.corruptions import CLEAN
from clepdg.config.folds import LEAVE_OUT, PAIR, SUPERVISED, kind
from clepdg.errors import ClepError
from clepdg.evaluation.metrics import Bools, Floats, Ints

if TYPE_CHECKING:
    import pandas as pd

KEY = ["fold", "row", "condition", "seed", "utterance_id"]
COLUMNS = [*KEY, "corpus", "speaker", "split", "true", "predicted"]
PROBABILITY = "p_"  # before the label
LEFT_OUT = 3  # a class with fewer utterances is left out of UAR


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions of one row as arrays: S seeds, U utterances, N labels.

    Attributes:
        truth: label indices (U,).
        predicted: label indices (S, U).
        probabilities: (S, U, N).
        speakers: (U,), 0 ... number of speakers - 1.
        clusters: (U,), the same where speakers are the clusters.
        cleps: the CLEP seed of each seed (S,), such as "c0"; "-" where a row has none.
        test: the utterances of the test part (U,).
    """

    truth: Ints
    predicted: Ints
    probabilities: Floats
    speakers: Ints
    clusters: Ints
    cleps: tuple[str, ...]
    test: Bools

    @property
    def labels(self) -> int:
        """Number of labels N."""
        return int(self.probabilities.shape[-1])

    @property
    def kept(self) -> Bools:
        """The classes that UAR is taken over (N,)."""
        return np.bincount(self.truth, minlength=self.labels) >= LEFT_OUT

    def test_part(self) -> "Predictions":
        """Return the predictions of the test part."""
        return replace(
            self,
            truth=self.truth[self.test],
            predicted=self.predicted[:, self.test],
            probabilities=self.probabilities[:, self.test],
            speakers=_renumber(self.speakers[self.test]),
            clusters=_renumber(self.clusters[self.test]),
            test=self.test[self.test],
        )


def _renumber(codes: Ints) -> Ints:
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)


def probability_columns(labels: Sequence[str]) -> list[str]:
    """Return the columns of probabilities, in the order of the labels."""
    return [f"{PROBABILITY}{label}" for label in labels]


def coded(predictions: "pd.DataFrame") -> "pd.DataFrame":
    """Convert the columns of texts to categories, which group faster."""
    texts = [column for column in (*COLUMNS, "cluster") if column in predictions]
    return predictions.astype(dict.fromkeys(texts, "category"))


def to_arrays(part: "pd.DataFrame", labels: tuple[str, ...]) -> Predictions:
    """Convert the predictions of one cell to arrays, as `by_cell` does."""
    found = by_cell(part, labels)
    if len(found) > 1:
        raise ValueError(f"Predictions of several cells: {sorted(found)}.")
    return next(iter(found.values())) if found else _slice(_Columns(part, labels), slice(0, 0))


def by_cell(predictions: "pd.DataFrame", labels: tuple[str, ...]) -> dict[tuple[str, str], Predictions]:
    """Convert predictions of a fold's target to arrays by row and condition.

    Utterances are in the order of their ids, seeds in that of their names.

    Raises:
        ClepError: a label is not of the label set.
    """
    columns = _Columns(predictions, labels)
    row, condition = columns.codes("row"), columns.codes("condition")
    starts = np.flatnonzero(np.diff(row, prepend=-1) | np.diff(condition, prepend=-1))
    return {
        (columns.name("row", start), columns.name("condition", start)): _slice(columns, slice(start, end))
        for start, end in pairwise([*starts.tolist(), len(row)])
    }


class _Columns:
    """Columns as numbers, sorted by row, condition, seed and utterance."""

    def __init__(self, predictions: "pd.DataFrame", labels: tuple[str, ...]) -> None:
        self.labels, self._table = labels, coded(predictions)
        keys = ("utterance_id", "seed", "condition", "row")
        self._order = np.lexsort([self._table[name].cat.codes.to_numpy() for name in keys])
        self.truth, self.predicted = self._numbers("true"), self._numbers("predicted")
        self.probabilities = self._table[probability_columns(labels)].to_numpy()[self._order]
        self.seeds, self.speakers = self.codes("seed"), self.codes("speaker")
        self.clusters = self.codes("cluster") if "cluster" in self._table else self.speakers
        self.test = (self._table["split"] == "test").to_numpy()[self._order]

    def codes(self, column: str) -> Ints:
        """Return a column's places among its categories."""
        found: Ints = self._table[column].cat.codes.to_numpy().astype(np.int64)[self._order]
        return found

    def name(self, column: str, place: int) -> str:
        """Return a column's text at a place of the order."""
        return str(self._table[column].iloc[self._order[place]])

    def _numbers(self, column: str) -> Ints:
        """Return a column's places in the label set."""
        names = self._table[column].cat.categories
        places = np.array([self.labels.index(name) if name in self.labels else -1 for name in names], np.int64)
        codes: Ints = places[self.codes(column)] if len(places) else self.codes(column)
        if (codes < 0).any():
            unknown = sorted(set(map(str, names)) - set(self.labels))
            raise ClepError("The predictions can't be evaluated.", got=unknown, expected=self.labels, where=column)
        return codes


def _slice(columns: _Columns, cell: slice) -> Predictions:
    """Return the arrays of one cell."""
    seeds = columns.seeds[cell]
    starts = np.flatnonzero(np.diff(seeds, prepend=-1))
    shape = (len(starts), len(seeds) // max(len(starts), 1))
    first = slice(cell.start, cell.start + shape[1])
    speakers = _renumber(columns.speakers[first])
    return Predictions(
        truth=columns.truth[first],
        predicted=columns.predicted[cell].reshape(shape),
        probabilities=columns.probabilities[cell].astype(np.float64).reshape(*shape, len(columns.labels)),
        speakers=speakers,
        clusters=_renumber(columns.clusters[first]),
        cleps=tuple(columns.name("seed", cell.start + int(start)).partition(".")[0] for start in starts),
        test=columns.test[first],
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
    corrupted = (predictions["condition"] != CLEAN).map({False: CLEAN, True: "corrupted"})
    for of, part in [*test.groupby(["fold"]), *predictions.groupby(["fold", corrupted])]:
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
