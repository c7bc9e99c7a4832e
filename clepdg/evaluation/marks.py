"""Remarks on what weakens a result cell, and columns of special rows: new emotions, ceilings, transductive rows."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clepdg.config.folds import SUPERVISED
from clepdg.evaluation.intervals import EFFECTIVE_SPEAKERS
from clepdg.evaluation.predictions import LEFT_OUT, Predictions

if TYPE_CHECKING:
    import pandas as pd

CEILING = "learnt from the target's own labels: a ceiling, no result; on its test part alone"
TRANSDUCTIVE = "uses the target's unlabelled test audio: transductive; on its test part alone"
FEW = 20  # a class with fewer utterances stays and is marked
COLLAPSED = 0.9
NO_WIDTH = 1e-9
CLEP_SEEDS, LATER_SEEDS = 3, 5  # fewer are marked


def class_marks(arrays: Predictions, labels: Sequence[str]) -> list[str]:
    """Return the marks of classes with few utterances or one speaker."""
    without, few = [], []
    several = len(np.unique(arrays.speakers)) > 1  # where there is one speaker, that is said once, of the cell
    for number, label in enumerate(labels):
        own = arrays.truth == number
        n, speakers = int(own.sum()), len(np.unique(arrays.speakers[own]))
        said = [_count(n, "utterance")] * (n < FEW) + ["1 speaker"] * (several and speakers == 1)
        if n < LEFT_OUT:
            without.append(f"without {label} ({_count(n, 'utterance')})")
        elif said:
            few.append(f"{label} ({', '.join(said)})")
    return without + ([f"few: {', '.join(few)}"] if few else [])


def cluster_marks(arrays: Predictions, effective: float) -> list[str]:
    """Return the mark of too few effective speakers for an interval over them."""
    if effective >= EFFECTIVE_SPEAKERS:
        return []
    kind = "speaker" if np.array_equal(arrays.clusters, arrays.speakers) else "cluster"
    found = len(np.unique(arrays.clusters))
    return [f"{_count(found, kind)}{f', effectively {effective:.1f}' if found - effective >= 0.05 else ''}: no test"]


def disjoint_marks(fold: str, corpora: Sequence[str], split_units: Mapping[str, str]) -> list[str]:
    """Return the marks of speakers that cross the parts.

    Of a target's own parts where it was learnt from, else of the corpora that select a model.
    """
    if fold != SUPERVISED:
        crossing = [name for name in sorted(split_units) if name not in corpora and split_units[name] != "speaker"]
        return [f"selected on speakers that it may have learnt from: {', '.join(crossing)}"] if crossing else []
    by_text = [f"{corpus}'s own split is by text" for corpus in corpora if split_units[corpus] == "text"]
    official = [corpus for corpus in corpora if split_units[corpus] == "official"]
    marks = [f"not speaker-disjoint: {', '.join(by_text)}"] if by_text else []
    return marks + ([f"the corpus's own split, speakers may cross: {', '.join(official)}"] if official else [])


def seed_marks(seeds: Iterable[str]) -> list[str]:
    """Return the mark of too few seeds (names such as c0.l1, c0 or -)."""
    parts = [part for seed in seeds for part in seed.split(".")]
    clep, later = (len({part for part in parts if part.startswith(kind)}) for kind in "cl")
    if 0 < clep < CLEP_SEEDS:
        return ["conditional on one CLEP"] if clep == 1 else [f"conditional on {clep} CLEPs"]
    return [_count(later, "later seed")] if 0 < later < LATER_SEEDS else []


def width_marks(largest_share: float, width: float) -> list[str]:
    """Return the mark of a collapsed row, or of an interval without width."""
    if largest_share > COLLAPSED:
        return ["collapsed"]
    return ["interval without width: each class is all right or all wrong"] if width < NO_WIDTH else []


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


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
