"""The table of a fold's predictions: columns, arrays.

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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from clepdg.errors import ClepError
from clepdg.evaluation.blocks import COLUMNS as COLUMNS
from clepdg.evaluation.blocks import KEY as KEY
from clepdg.evaluation.blocks import Block, Blocks
from clepdg.evaluation.blocks import coded as coded
from clepdg.evaluation.metrics import Bools, Floats, Ints

if TYPE_CHECKING:
    import pandas as pd

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


def to_arrays(part: "pd.DataFrame", labels: tuple[str, ...]) -> Predictions:
    """Convert the predictions of one cell to arrays, as `by_cell` does."""
    found = by_cell(part, labels)
    if len(found) > 1:
        raise ValueError(f"Predictions of several cells: {sorted(found)}.")
    return next(iter(found.values())) if found else found.of_blocks([])


def by_cell(predictions: "pd.DataFrame", labels: tuple[str, ...]) -> "Cells":
    """Convert predictions of a fold's target to arrays by row and condition.

    Utterances are in the order of their ids, seeds in that of their names.

    Raises:
        ClepError: a label is not of the label set.
    """
    blocks = Blocks(predictions)
    return Cells(blocks, blocks.blocks, labels)


class Cells(Mapping[tuple[str, str], Predictions]):
    """The cells of a fold by row and condition, converted when asked for.

    Args:
        blocks: predictions as codes.
        own: the blocks of the fold.
        corpus: the target; None: all corpora.

    Raises:
        ClepError: a label is not of the label set.
    """

    def __init__(
        self, blocks: Blocks, own: Sequence[Block], labels: tuple[str, ...], corpus: str | None = None
    ) -> None:
        self._blocks, self._labels = blocks, labels
        self._places = {column: self._in_label_set(column) for column in ("true", "predicted")}
        self._corpus = None if corpus is None else blocks.categories["corpus"].tolist().index(corpus)
        splits = blocks.categories["split"].tolist()
        self._test = splits.index("test") if "test" in splits else -2
        self._own: dict[tuple[str, str], list[Block]] = {}
        for block in own:
            if self._corpus is None or (blocks.codes("corpus", block.lines) == self._corpus).any():
                self._own.setdefault((block.row, block.condition), []).append(block)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Iterate over (row, condition), sorted."""
        return iter(self._own)

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self._own)

    def __getitem__(self, cell: tuple[str, str]) -> Predictions:
        """Return the arrays of a cell."""
        return self.of_blocks(self._own[cell])

    def seeds(self, row: str) -> list[str]:
        """Return the seeds of a row."""
        return sorted({block.seed for (of, _), own in self._own.items() if of == row for block in own})

    def _in_label_set(self, column: str) -> Ints:
        """Return the place in the label set of each of a column's categories."""
        names = [str(name) for name in self._blocks.categories[column]]
        unknown = sorted(set(self._blocks.used(column)) - set(self._labels))
        if unknown:
            raise ClepError("The predictions can't be evaluated.", got=unknown, expected=self._labels, where=column)
        return np.array([self._labels.index(name) if name in self._labels else -1 for name in names], np.int64)

    def of_blocks(self, own: Sequence[Block]) -> Predictions:
        """Return the arrays of a cell's blocks, one of each seed."""
        first = own[0].lines if own else slice(0, 0)
        chosen: Any = slice(None)
        if self._corpus is not None:
            chosen = np.flatnonzero(self._blocks.codes("corpus", first) == self._corpus)

        def codes(column: str, lines: slice) -> Ints:
            found: Ints = self._blocks.codes(column, lines)[chosen].astype(np.int64)
            return found

        predicted = [self._places["predicted"][codes("predicted", block.lines)] for block in own]
        truth, names = self._places["true"][codes("true", first)], probability_columns(self._labels)
        probabilities = np.empty((len(own), len(truth), len(names)))
        for seed, block in enumerate(own):
            for n, name in enumerate(names):
                probabilities[seed, :, n] = self._blocks.numbers(name, block.lines)[chosen]
        clusters = "cluster" if "cluster" in self._blocks else "speaker"
        return Predictions(
            truth=truth,
            predicted=np.stack(predicted) if own else np.zeros((0, 0), np.int64),
            probabilities=probabilities,
            speakers=_renumber(codes("speaker", first)),
            clusters=_renumber(codes(clusters, first)),
            cleps=tuple(block.seed.partition(".")[0] for block in own),
            test=codes("split", first) == self._test,
        )
