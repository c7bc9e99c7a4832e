"""Predictions as codes of categories, in blocks of one fold, row, condition and seed.

A block lists its utterances in the order of their ids. Tables that the stage evaluate writes are in blocks already, and
nothing of their size is copied; others are sorted once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

BLOCK: Final = ("fold", "row", "condition", "seed")
KEY: Final = [*BLOCK, "utterance_id"]
COLUMNS: Final = [*KEY, "corpus", "speaker", "split", "true", "predicted"]
TEXTS: Final = (*COLUMNS, "cluster")
CHUNK: Final = 1 << 22  # lines that are looked at together
Codes = NDArray[np.integer[Any]]


def coded(predictions: "pd.DataFrame") -> "pd.DataFrame":
    """Convert the columns of texts to categories in the order of their names."""
    texts = [name for name in TEXTS if name in predictions]
    others = {name: "category" for name in texts if predictions[name].dtype != "category"}
    found = predictions.astype(others) if others else predictions.copy(deep=False)
    for name in texts:
        if not found[name].cat.categories.is_monotonic_increasing:
            found[name] = found[name].cat.reorder_categories(sorted(found[name].cat.categories))
    return found


def join(parts: "Sequence[pd.DataFrame]") -> "pd.DataFrame":
    """Concatenate predictions by their codes; the parts are emptied."""
    import pandas as pd
    from pandas.api.types import union_categoricals

    found: dict[str, Any] = {}
    for name in map(str, list(parts[0])):
        columns = [part.pop(name) for part in parts]
        texts = columns[0].dtype == "category"
        found[name] = union_categoricals(columns, sort_categories=True) if texts else np.concatenate(columns)
    return pd.DataFrame(found, copy=False)


def starts(predictions: "pd.DataFrame") -> NDArray[np.int64]:
    """Return the lines of coded predictions at which a block starts."""
    return _starts([predictions[name].cat.codes.to_numpy() for name in BLOCK])


def _starts(codes: Sequence[Codes]) -> NDArray[np.int64]:
    changes = [np.flatnonzero(of[1:] != of[:-1]) + 1 for of in codes]
    return np.unique(np.concatenate([np.arange(min(1, len(codes[0]))), *changes]))


@dataclass(frozen=True, kw_only=True)
class Block:
    """Lines of one fold, row, condition and seed."""

    fold: str
    row: str
    condition: str
    seed: str
    lines: slice


class Blocks:
    """The blocks of a table of predictions, sorted by their names."""

    def __init__(self, predictions: "pd.DataFrame") -> None:
        table = coded(predictions)
        self._order: NDArray[np.int64] | None = None
        self._codes: dict[str, Codes] = {name: table[name].cat.codes.to_numpy() for name in TEXTS if name in table}
        self._table = table
        self.categories = {name: table[name].cat.categories.to_numpy(object) for name in self._codes}
        places = starts(table)
        keys = [tuple(int(self._codes[name][at]) for name in BLOCK) for at in places]
        falls = np.flatnonzero(self._codes["utterance_id"][1:] <= self._codes["utterance_id"][:-1]) + 1
        if len(set(keys)) < len(keys) or not np.isin(falls, places).all():
            self._order = np.lexsort([self._codes[name] for name in reversed(KEY)])
            self._codes = {name: codes[self._order] for name, codes in self._codes.items()}
            places = _starts([self._codes[name] for name in BLOCK])
            keys = [tuple(int(self._codes[name][at]) for name in BLOCK) for at in places]
        lines = pairwise([*places.tolist(), len(table)])
        found = sorted(zip(keys, lines, strict=True), key=lambda block: block[0])
        self.blocks = [self._block(key, slice(*own)) for key, own in found]

    def _block(self, key: tuple[int, ...], lines: slice) -> Block:
        fold, row, condition, seed = (str(self.categories[name][code]) for name, code in zip(BLOCK, key, strict=True))
        return Block(fold=fold, row=row, condition=condition, seed=seed, lines=lines)

    def __contains__(self, column: str) -> bool:
        """Return whether there is a column of texts."""
        return column in self._codes

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self._table)

    def codes(self, column: str, lines: slice = slice(None)) -> Codes:
        """Return a column's places among its categories; -1 where it has none."""
        return self._codes[column][lines]

    def numbers(self, column: str, lines: slice) -> NDArray[Any]:
        """Return a part of a column of numbers."""
        values: NDArray[Any] = self._table[column].to_numpy()
        return values[lines] if self._order is None else values[self._order[lines]]

    def chunks(self) -> Iterator[slice]:
        """Yield slices that cover all lines."""
        return (slice(start, start + CHUNK) for start in range(0, len(self), CHUNK))

    def used(self, column: str, lines: slice = slice(None)) -> list[str]:
        """Return the names that occur in a column, sorted; nan for none."""
        names, codes = self.categories[column], self._codes[column][lines]
        found = np.zeros(len(names) + 1, bool)
        for start in range(0, len(codes), CHUNK):
            found[codes[start : start + CHUNK]] = True  # -1 is the last
        return [*map(str, names[found[:-1]]), *(["nan"] if found[-1] else [])]

    def of_fold(self, fold: str) -> list[Block]:
        """Return the blocks of a fold."""
        return [block for block in self.blocks if block.fold == fold]

    def by_utterance(self, column: str) -> Mapping[str, Codes]:
        """Return each utterance's code of a column, and which have several.

        Keys "codes" (-1: it has none) and "several".
        """
        codes = np.full(len(self.categories["utterance_id"]), -1, np.int64)
        for lines in self.chunks():
            utterances, own = self.codes("utterance_id", lines), self.codes(column, lines)
            codes[utterances[own >= 0]] = own[own >= 0]
        several = np.zeros(len(codes), bool)
        for lines in self.chunks():
            utterances, own = self.codes("utterance_id", lines), self.codes(column, lines)
            several[utterances[(own >= 0) & (own != codes[utterances])]] = True
        return {"codes": codes, "several": several}
