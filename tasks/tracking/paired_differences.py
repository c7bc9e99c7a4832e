"""Compare two registered classifiers on the same test utterances."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clepdg.audio.corruptions import CLEAN
from clepdg.emotions import labels
from clepdg.store.record import Record
from clepdg.store.store import Store

if TYPE_CHECKING:
    from clepdg.evaluation.intervals import Interval

NOT_EVALUATED = "not evaluated yet"


def paired_difference(store: Store, new: Mapping[str, str], old: Mapping[str, str]) -> "Interval | str":
    """Return the difference of two versions' UAR, as `paired_differences`."""
    found = paired_differences(store, new, old, ("UAR",))
    return found if isinstance(found, str) else found["UAR"]


def paired_differences(
    store: Store, new: Mapping[str, str], old: Mapping[str, str], metrics: Sequence[str]
) -> "dict[str, Interval] | str":
    """Return a version's metrics minus those of another, with intervals.

    Args:
        new: tags of a version: row, seed, test_digest and evaluate_key.
        old: tags of the version to subtract.
        metrics: names in clepdg.evaluation.intervals.METRICS.

    Returns:
        Metric -> difference, or the reason why there is none.
    """
    import numpy as np

    from clepdg.evaluation.cells import LEFT_OUT
    from clepdg.evaluation.intervals import paired
    from clepdg.evaluation.predictions import COLUMNS, KEY, to_arrays
    from clepdg.store.readers import read_frame

    if "test_digest" not in new or "test_digest" not in old:
        return NOT_EVALUATED
    if new["test_digest"] != old["test_digest"]:
        return "not on the same test utterances"
    parts, settings = [], dict[str, Any]()
    for tags in (new, old):
        record = store.lookup("evaluate", tags["evaluate_key"])
        if not isinstance(record, Record):
            return f"its predictions are not in the store ({record})"
        table = read_frame(store.local("evaluate", record.key) / "predictions.parquet", KEY)
        if not set(COLUMNS) <= set(table):
            return f"its predictions have other columns: evaluated by an older version ({record.version})"
        chosen = (table.row == tags["row"]) & (table.seed == tags["seed"]) & (table.split == "test")
        chosen &= table.condition == CLEAN
        settings = record.config["evaluate"]
        parts.append(to_arrays(table[chosen], labels(record.config["label_set"])))
    a, b = parts
    if not len(a.truth) or len(a.truth) != len(b.truth):
        return "its predictions are not of the same test utterances"
    keep = np.bincount(a.truth, minlength=a.probabilities.shape[-1]) >= LEFT_OUT
    options = {name: settings[name] for name in ("resamples", "confidence")}
    return {
        metric: paired(
            a.truth,
            a.predicted,
            b.predicted,
            a.clusters,
            keep,
            metric=metric,
            seed=0,  # the same resamples for all metrics
            **options,
        )
        for metric in metrics
    }


def is_improvement(difference: "Interval | str") -> bool:
    """Return whether an interval over speakers lies wholly above 0.

    A version with such a difference becomes champion.
    """
    from clepdg.evaluation.intervals import UTTERANCES

    return not isinstance(difference, str) and difference.method != UTTERANCES and difference.low > 0


def format_difference(difference: "Interval | str") -> str:
    """Return a paired difference, or the reason why there is none, as text."""
    if isinstance(difference, str):
        return difference
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}], {difference.method}"
