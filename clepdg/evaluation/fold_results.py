"""Compute the results of a fold from its predictions."""

import hashlib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from clepdg.audio.corruptions import CLEAN
from clepdg.evaluation.cells import POOLED, cells
from clepdg.evaluation.predictions import PROBABILITY
from clepdg.evaluation.special_rows import annotate

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
        As `cells.cells` and `special_rows.annotate` say; `recalls` has every label, None where it is left out of UAR,
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
    probabilities = [name for name in predictions.columns if name.startswith(PROBABILITY)]
    for name in predictions.columns.drop(probabilities):
        total.update("\n".join(predictions[name]).encode() + b"\0")
    total.update(np.ascontiguousarray(predictions[probabilities].to_numpy(np.float64)).tobytes())
    total.update(cells.to_json(orient="records", double_precision=15).encode())
    return total.hexdigest()
