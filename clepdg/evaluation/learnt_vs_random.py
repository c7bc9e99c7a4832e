"""Compare learnt contexts with random ones: paired UAR, fold by fold.

An independent study of PromptStyler found random styles about as good as learnt ones: the report says which way it goes
here, whatever the credit rule can decide.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from clepdg.config.conditions import CLEAN
from clepdg.config.folds import SUPERVISED
from clepdg.config.rows import MAIN_ROW
from clepdg.evaluation import intervals
from clepdg.evaluation.targets import Target

if TYPE_CHECKING:
    import pandas as pd

RANDOM: Final = "text-random"


def against_random(
    predictions: "pd.DataFrame", labels: tuple[str, ...], *, confidence: float, test_only: Collection[str] = ()
) -> dict[str, dict[str, intervals.Interval]]:
    """Return fold -> UAR with learnt contexts minus UAR with random ones.

    On the whole target, or on the test part of fold supervised: "clean" and, where the fold has corruptions,
    "corrupted", the mean over families of all conditions but clean. Folds without one of the two rows have no entry.

    Args:
        labels: the label set, in the order of the probabilities.
        confidence: of the intervals.
        test_only: rows that are evaluated on the test part of a left-out target alone.
    """
    rows = (MAIN_ROW, RANDOM)
    found: dict[str, dict[str, intervals.Interval]] = {}
    for fold, own in predictions[predictions["row"].isin(rows)].groupby("fold", sort=False, observed=True):
        target = Target(str(fold), own, labels, rows if fold == SUPERVISED else test_only)
        if target.rows != sorted(rows):
            continue
        for words, conditions in (("clean", [CLEAN]), ("corrupted", target.conditions(MAIN_ROW))):
            if not conditions:
                continue
            ours, theirs = (target.heard(row, conditions, test=target.on_test_part(rows)) for row in rows)
            keep = ours[conditions[0]].kept
            if keep.any():
                found.setdefault(str(fold), {})[words] = intervals.paired(ours, theirs, keep, confidence=confidence)
    return found
