"""Compare two registered classifiers on the same utterances."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from clepdg.config.conditions import CLEAN
from clepdg.emotions import labels
from clepdg.store.record import Record
from clepdg.store.store import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clepdg.evaluation.intervals import Interval
    from clepdg.evaluation.metrics import Ints
    from clepdg.evaluation.predictions import Predictions

NOT_EVALUATED = "not evaluated yet"
NOT_VALIDATED = (
    "one of them has no predictions of validation utterances (an older version evaluated it); once a version that has "
    "some is promoted by hand, later ones are compared with it"
)
VALIDATION_UAR = "validation UAR"  # the mean over corpora
FILES: Final = {"test": "predictions.parquet", "validation": "validation.parquet"}


def paired_differences(
    store: Store, new: Mapping[str, str], old: Mapping[str, str], metrics: Sequence[str]
) -> "dict[str, Interval] | str":
    """Return a version's metrics minus another's on the test part.

    Args:
        new: tags of a version: row, seed, test_digest and evaluate_key.
        old: tags of the version to subtract.
        metrics: names in clepdg.evaluation.intervals.METRICS.

    Returns:
        Metric -> difference, or the reason why there is none.
    """
    from clepdg.evaluation.intervals import paired

    found = _read_pair(store, new, old, "test")
    if isinstance(found, str):
        return found
    _, (a, b), confidence = found
    return {metric: paired({CLEAN: a}, {CLEAN: b}, a.kept, metric=metric, confidence=confidence) for metric in metrics}


def validation_difference(store: Store, new: Mapping[str, str], old: Mapping[str, str]) -> "Interval | str":
    """Return a version's validation UAR minus another's, for the champion.

    The UAR is the mean over corpora, the interval over the speakers of all of them. No report shows validation
    utterances. Otherwise as `paired_differences`.
    """
    import numpy as np

    from clepdg.evaluation.intervals import SPEAKERS, UTTERANCES, Counts, Interval, estimate, testable
    from clepdg.evaluation.metrics import uar_weights

    found = _read_pair(store, new, old, "validation")
    if isinstance(found, str):
        return found
    corpora, (a, b), confidence = found
    weights, keep = uar_weights(corpora, a.truth), np.bincount(a.truth, minlength=a.labels) > 0

    def count(predictions: "Predictions", clusters: "Ints") -> Counts:
        confusions = np.zeros((len(set(clusters)), 1, a.labels, a.labels))
        np.add.at(confusions[:, 0], (clusters, a.truth, predictions.predicted[0]), weights)
        return Counts(confusions=confusions, cleps=predictions.cleps)

    over_speakers = testable(count(a, a.clusters), keep)
    clusters = a.clusters if over_speakers else np.arange(len(weights))
    mean = estimate([count(a, clusters), count(b, clusters)], keep, "WAR")  # of weighted utterances: the mean UAR
    low, high = mean.interval(confidence)
    return Interval(value=mean.value, low=low, high=high, method=SPEAKERS if over_speakers else UTTERANCES)


def _read_pair(
    store: Store, new: Mapping[str, str], old: Mapping[str, str], part: str
) -> "tuple[NDArray[Any], list[Predictions], float] | str":
    """Read two versions' predictions of the same test or validation part.

    Returns:
        Corpora of the utterances, predictions, and the confidence of intervals; or the reason why there are none.
    """
    from clepdg.evaluation.predictions import COLUMNS, KEY, to_arrays
    from clepdg.store.readers import read_frame

    digest = f"{part}_digest"
    if "evaluate_key" not in new or "evaluate_key" not in old:
        return NOT_EVALUATED
    if digest not in new or digest not in old:
        return NOT_VALIDATED
    if new[digest] != old[digest]:
        return f"not on the same {part} utterances"
    corpora, parts, confidence = None, [], 0.0
    for tags in (new, old):
        record = store.lookup("evaluate", tags["evaluate_key"])
        if not isinstance(record, Record):
            return f"its predictions are not in the store ({record})"
        table = read_frame(store.local("evaluate", record.key) / FILES[part], KEY)
        if not set(COLUMNS) <= set(table):
            return f"its predictions have other columns: evaluated by an older version ({record.version})"
        chosen = (table.row == tags["row"]) & (table.seed == tags["seed"]) & (table.split == part)
        table = table[chosen & (table.condition == CLEAN)].sort_values("utterance_id")
        corpora, confidence = table.corpus.to_numpy(), record.config["evaluate"]["confidence"]
        parts.append(to_arrays(table, labels(record.config["label_set"])))
    if corpora is None or not len(corpora) or len(parts[0].truth) != len(parts[1].truth):
        return f"its predictions are not of the same {part} utterances"
    return corpora, parts, float(confidence)


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
