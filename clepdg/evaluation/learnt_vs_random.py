"""Compare learnt contexts with random ones: paired UAR, fold by fold.

An independent study of PromptStyler found random styles about as good as learnt ones: the report says which way it goes
here, whatever the credit rule can decide.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from clepdg.audio.corruptions import CLEAN
from clepdg.config.rows import MAIN_ROW
from clepdg.evaluation import intervals
from clepdg.evaluation.cells import LEFT_OUT
from clepdg.evaluation.metrics import Ints
from clepdg.evaluation.predictions import to_arrays

if TYPE_CHECKING:
    import pandas as pd

RANDOM: Final = "text-random"


def against_random(
    predictions: "pd.DataFrame", labels: tuple[str, ...], *, resamples: int, confidence: float
) -> dict[str, dict[str, intervals.Interval]]:
    """Return fold -> UAR with learnt contexts minus UAR with random ones.

    On the fold's test part: "clean" and, where the fold has corruptions, "corrupted".

    Corrupted is the mean over all conditions but clean. Folds without one of the two rows have no entry.

    Args:
        labels: the label set, in the order of the probabilities.
        resamples: of the bootstraps.
        confidence: of the intervals.
    """
    test = predictions[(predictions["split"] == "test") & predictions["row"].isin((MAIN_ROW, RANDOM))]
    found: dict[str, dict[str, intervals.Interval]] = {}
    for fold, own in test.groupby("fold", sort=False):
        rows = {
            str(row): {str(condition): heard for condition, heard in part.groupby("condition", sort=False)}
            for row, part in own.groupby("row")
        }
        if set(rows) != {MAIN_ROW, RANDOM}:
            continue
        one = to_arrays(rows[MAIN_ROW][CLEAN], labels)
        keep = np.bincount(one.truth, minlength=len(labels)) >= LEFT_OUT
        if not keep.any():
            continue
        corrupted = [condition for condition in rows[MAIN_ROW] if condition != CLEAN]
        found[str(fold)] = {
            words: intervals.paired(
                one.truth,
                _predicted(rows[MAIN_ROW], conditions, labels),
                _predicted(rows[RANDOM], conditions, labels),
                one.clusters,
                keep,
                resamples=resamples,
                confidence=confidence,
                seed=0,
            )
            for words, conditions in (("clean", [CLEAN]), ("corrupted", corrupted))
            if conditions
        }
    return found


def _predicted(parts: "dict[str, pd.DataFrame]", conditions: list[str], labels: tuple[str, ...]) -> Ints:
    """Return label indices (conditions x seeds, U).

    The mean over conditions is taken as that over seeds.
    """
    return np.concatenate([to_arrays(parts[condition], labels).predicted for condition in conditions])
