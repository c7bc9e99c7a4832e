"""Compute the results of a fold from its predictions."""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clepdg.config.conditions import CLEAN
from clepdg.evaluation.blocks import CHUNK, coded, starts
from clepdg.evaluation.cells import POOLED, cells
from clepdg.evaluation.marks import annotate
from clepdg.evaluation.predictions import PROBABILITY

if TYPE_CHECKING:
    import pandas as pd

HEADLINE = ("uar", "low", "high", "war", "macro_f1", "nll", "ece", "n", "chance")


def result_cells(
    predictions: "pd.DataFrame",
    labels: tuple[str, ...],
    *,
    confidence: float,
    split_units: Mapping[str, str],
    new_labels: Mapping[str, str],
    ceilings: Collection[str],
    transductive: Collection[str] = (),
) -> "pd.DataFrame":
    """Compute the cells of a fold, with the columns and marks of special rows.

    Args:
        labels: the label set, in the order of the probabilities.
        confidence: of the intervals, for example 0.95.
        split_units: corpus -> unit of its split, of targets and sources.
        new_labels: row -> the label that its CLEP has never met.
        ceilings: rows that learn from the target's own labels.
        transductive: rows that use the target's test audio, without labels.

    Returns:
        As `cells.cells` and `marks.annotate` say; `recalls` has every label, None where it is left out of UAR,
        since Parquet has no place for a cell without any.

    Raises:
        ClepError: the predictions contradict themselves or the label set.
    """
    test_only = {*ceilings, *transductive}
    found = cells(predictions, labels, confidence=confidence, split_units=split_units, test_only=test_only)
    found = annotate(found, new_labels, ceilings, transductive)
    found["recalls"] = found.recalls.map(lambda recalls: {label: recalls.get(label) for label in labels})
    return found


def headline_figures(cells: "pd.DataFrame") -> dict[str, dict[str, float]]:
    """Return row -> figures of a fold's headline target, clean.

    The target is all of supervised pooled, or the corpus left out.
    """
    cells = cells[cells.condition == CLEAN]
    targets = list(cells.target.unique())
    chosen = cells[cells.target == (POOLED if POOLED in targets else targets[0])]
    return {
        str(cell["row"]): {
            name: float(cell[name]) for name in HEADLINE if cell[name] is not None and cell[name] == cell[name]
        }
        for cell in chosen.to_dict(orient="records")
    }


def digest_results(predictions: "pd.DataFrame", cells: "pd.DataFrame") -> str:
    """Return the content digest of a fold's predictions and cells."""
    total = hashlib.sha256()
    predictions = coded(predictions)
    probabilities = [name for name in predictions.columns if name.startswith(PROBABILITY)]
    places = [*starts(predictions).tolist(), len(predictions)]
    for name in predictions.columns.drop(probabilities):
        for text in _texts(predictions[name], places):
            total.update(text)
        total.update(b"\0")
    for start in range(0, len(predictions), CHUNK):
        part = [predictions[name].to_numpy(np.float64)[start : start + CHUNK] for name in probabilities]
        total.update(np.stack(part, axis=1).data)
    total.update(cells.to_json(orient="records", double_precision=15).encode())
    return total.hexdigest()


def _texts(column: "pd.Series[str]", places: Sequence[int]) -> Iterator[bytes]:
    """Yield the texts of a column, joined by line feeds, block by block.

    Args:
        places: where the blocks start, and the number of lines.
    """
    codes, names = column.cat.codes.to_numpy(), np.array([name.encode() for name in column.cat.categories], object)
    last, said = codes[:0], b""
    for start, end in pairwise(places):
        part = codes[start:end]
        if not np.array_equal(part, last):  # utterances come again and again, in the same order
            last, said = part, _joined(names, part)
        yield said if start == 0 else b"\n" + said


def _joined(names: NDArray[Any], codes: NDArray[Any]) -> bytes:
    """Return names joined by line feeds; few different ones four at a time."""
    if len(names) > 8:
        return b"\n".join(names[codes].tolist())
    whole, n = len(codes) // 4 * 4, len(names)
    fours = np.array([b"\n".join(four) for four in product(names, repeat=4)], object)
    groups = codes[:whole].reshape(-1, 4).astype(np.int64) @ np.array([n**3, n**2, n, 1])
    return b"\n".join([*fours[groups].tolist(), *names[codes[whole:]].tolist()])


def write_predictions(predictions: "pd.DataFrame", path: Path) -> None:
    """Write predictions as Parquet, a few million lines at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.Schema.from_pandas(predictions, preserve_index=False)
    texts = [name for name in predictions if predictions[name].dtype == "category"]
    compression = {name: "snappy" if name in texts else "none" for name in predictions}
    with pq.ParquetWriter(path, schema, use_dictionary=texts, compression=compression) as file:
        for start in range(0, max(1, len(predictions)), CHUNK):
            part = predictions.iloc[start : start + CHUNK]
            file.write_table(pa.Table.from_pandas(part, schema, preserve_index=False))
