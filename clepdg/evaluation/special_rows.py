"""Extra columns and marks of special rows: added emotions, ceilings, transductive rows."""

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

CEILING = "learnt from the target's own labels: a ceiling, no result; on its test part alone"
TRANSDUCTIVE = "uses the target's unlabelled test audio: transductive; on its test part alone"


def new_emotion(recalls: Mapping[str, float | None], new: str) -> dict[str, float]:
    """Compute the figures of a label that was added by its word alone.

    Its recall, the other labels' UAR, and the harmonic mean of both.

    Args:
        recalls: label -> recall; None or NaN where a label is left out of UAR.
    """
    kept = {label: recall for label, recall in recalls.items() if recall is not None and not math.isnan(recall)}
    own = kept.pop(new, math.nan)
    others = float(np.mean(list(kept.values()))) if kept else math.nan
    harmonic = 2 * own * others / (own + others) if own + others > 0 else (0.0 if own + others == 0 else math.nan)
    return {"new_recall": own, "others_uar": others, "harmonic_mean": harmonic}


def annotate(
    cells: "pd.DataFrame", new: Mapping[str, str], ceilings: Collection[str], transductive: Collection[str] = ()
) -> "pd.DataFrame":
    """Add the columns and marks of special rows to result cells.

    Columns new_label, new_recall, others_uar, harmonic_mean (of rows with an emotion added by its word alone).

    Args:
        cells: as clepdg.evaluate.cells returns them.
        new: row -> the label that its CLEP has never met.
        ceilings: rows that learn from the target's own labels.
        transductive: rows that use the target's test audio.
    """
    found: list[dict[str, Any]] = []
    for record in cells.to_dict("records"):
        cell: dict[str, Any] = {str(name): value for name, value in record.items()}
        row, marks = cell["row"], list(cell["marks"])
        cell |= {"new_label": new.get(row), "new_recall": math.nan, "others_uar": math.nan, "harmonic_mean": math.nan}
        if row in new:
            figures = new_emotion(cell["recalls"], new[row])
            cell |= figures
            said = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items())
            marks.append(f"{new[row]} was added by its word alone: {said}")
        if row in ceilings:
            marks.append(CEILING)
        if row in transductive:
            marks.append(TRANSDUCTIVE)
        found.append({**cell, "marks": marks})
    return type(cells)(found).astype({"uar_test": "float64", "n_test": "Int64"})
