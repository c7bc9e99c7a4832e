"""Remarks on what weakens a result cell."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from clepdg.config.folds import SUPERVISED
from clepdg.evaluation.intervals import EFFECTIVE_SPEAKERS
from clepdg.evaluation.predictions import LEFT_OUT, Predictions

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
