"""Compute result cells: the report's numbers, from predictions alone.

A cell is (fold, target, row, condition). Its figures are those of the target's test part, so that supervised and
leave-out are about the same utterances.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from clepdg.audio.corruptions import CLEAN
from clepdg.config.folds import SUPERVISED, order
from clepdg.evaluation import intervals, metrics
from clepdg.evaluation.metrics import Bools, Floats
from clepdg.evaluation.predictions import Predictions, check, coded, to_arrays

if TYPE_CHECKING:
    import pandas as pd

POOLED = "pooled"
CELL = (
    "fold",
    "target",
    "row",
    "condition",
    "uar",
    "low",
    "high",
    "interval",
    "war",
    "n",
    "labels",
    "recalls",
    "marks",
)
LEFT_OUT = 3  # a class with fewer utterances in the test part is left out of UAR
FEW = 20  # a class with fewer utterances stays and is marked
COLLAPSED = 0.9
NO_WIDTH = 1e-9
CORRUPTED = ("uar_corrupted", "low_corrupted", "high_corrupted")
CLEP_SEEDS, LATER_SEEDS = 3, 5  # fewer are marked


def cells(
    predictions: "pd.DataFrame",
    labels: tuple[str, ...],
    *,
    resamples: int,
    confidence: float,
    seed: int = 0,
    split_units: Mapping[str, str],
) -> "pd.DataFrame":
    """Compute one cell per (fold, target, row, condition).

    A cell has UAR with its interval, other figures, and marks of what weakens it.

    Columns: fold, target (a corpus, or "pooled": all test utterances of fold supervised), row, condition, uar, low,
    high, interval (how it was found), redrawn, war, macro_f1, nll, ece, largest_share (of the worst seed), n
    (utterances), speakers, seeds, chance (1 / kept classes), labels, recalls (of the kept classes), confusion (N x N,
    rows are the truth, summed over seeds), uar_whole and n_whole (the whole target of a leave-out fold, clean),
    uar_corrupted, low_corrupted and high_corrupted (of the mean over all other conditions, clean), marks.
    Figures are means over seeds; uar, macro_f1 and recalls are over the kept classes, the others over all utterances.

    Args:
        labels: the label set, in the order of the probabilities.
        resamples: of the bootstraps.
        confidence: of the intervals, for example 0.95.
        seed: of the resamples: each cell starts from it, so that rows on the same utterances share their resamples.
        split_units: corpus -> unit of its split, of targets and sources; all but "speaker" are marked.

    Raises:
        ClepError: the predictions contradict themselves or the label set; all faults are listed.
    """
    import pandas as pd

    predictions = coded(predictions)
    check(predictions, labels)
    found: list[dict[str, Any]] = []
    for fold, target, part in _targets(predictions):
        corpora = sorted(part["corpus"].unique())
        by_condition = part.groupby(["row", "condition"])
        tests = {key: to_arrays(whole[whole["split"] == "test"], labels) for key, whole in by_condition}
        for (row, condition), whole in by_condition:
            test = tests[row, condition]
            keep = np.bincount(test.truth, minlength=len(labels)) >= LEFT_OUT
            cell: dict[str, Any] = {"fold": fold, "target": target, "row": row, "condition": condition}
            cell |= _figures(test, labels, keep, resamples, confidence, seed)
            cell |= {"uar_whole": None, "n_whole": None, **dict.fromkeys(CORRUPTED)}
            if fold != "supervised" and condition == CLEAN:
                arrays = to_arrays(whole, labels)
                cell |= {"uar_whole": _uar(arrays, keep), "n_whole": arrays.truth.size}
            others = [arrays.predicted for (of, heard), arrays in tests.items() if of == row and heard != CLEAN]
            if others and condition == CLEAN:  # conditions are averaged like seeds
                mean = _interval(replace(test, predicted=np.concatenate(others)), keep, resamples, confidence, seed)
                cell |= dict(zip(CORRUPTED, (mean.value, mean.low, mean.high), strict=True))
            collapsed = ["collapsed"] if cell["largest_share"] > COLLAPSED else []
            if not collapsed and cell["high"] - cell["low"] < NO_WIDTH:
                collapsed = ["interval without width: each class is all right or all wrong"]
            cell["marks"] = [
                *_disjoint(fold, corpora, split_units),
                *_class_marks(test, labels),
                *_cluster_marks(test),
                *seed_marks(whole["seed"].unique()),
                *collapsed,
            ]
            found.append(cell)
    sometimes = {"uar_whole": "float64", "n_whole": "Int64", **dict.fromkeys(CORRUPTED, "float64")}
    return pd.DataFrame(found).astype(sometimes)


def speaker_uars(predictions: "pd.DataFrame", cells: "pd.DataFrame") -> "pd.DataFrame":
    """List UAR per speaker for cells with too few speakers for an interval.

    Returns:
        Columns fold, target, row, condition, speaker (or the cluster, where only those are few), uar (mean over seeds,
        over the cell's kept classes that the speaker has), n (utterances of the speaker in the test part).
    """
    import pandas as pd

    found = []
    rows = dict(list(predictions[predictions["split"] == "test"].groupby(["fold", "row", "condition"])))
    for cell in cells[cells["interval"] == intervals.UTTERANCES].to_dict("records"):
        labels = tuple(cell["labels"])
        # a table read back from Parquet has None where a class was left out
        keep = np.isin(labels, [name for name, recall in cell["recalls"].items() if recall is not None])
        where = {name: cell[name] for name in ("fold", "target", "row", "condition")}
        part = rows.get((cell["fold"], cell["row"], cell["condition"]), predictions.iloc[:0])
        part = part if cell["target"] == POOLED else part[part["corpus"] == cell["target"]]
        counted = {name: part[name].nunique() for name in ("speaker", "cluster") if name in part}
        few = [name for name, count in counted.items() if count < intervals.JACKKNIFE_SPEAKERS]
        for speaker, own in part.groupby(few[0]) if few else ():
            arrays = to_arrays(own, labels)
            found.append({**where, "speaker": speaker, "uar": _uar(arrays, keep), "n": arrays.truth.size})
    return pd.DataFrame(found, columns=["fold", "target", "row", "condition", "speaker", "uar", "n"])


def _targets(predictions: "pd.DataFrame") -> "Iterator[tuple[str, str, pd.DataFrame]]":
    """Yield (fold, target, predictions).

    Fold supervised comes first: its corpora by name, then pooled.
    """
    for fold in sorted(predictions["fold"].unique(), key=order):
        part = predictions[predictions["fold"] == fold]
        for corpus, of_corpus in part.groupby("corpus"):
            yield fold, str(corpus), of_corpus
        if fold == "supervised":
            yield fold, POOLED, part


def _uar(arrays: Predictions, keep: Bools) -> float:
    counts = metrics.confusion(arrays.truth, arrays.predicted, len(keep))
    return _mean(metrics.uar(counts, keep))


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else float("nan")


def _figures(
    arrays: Predictions,
    labels: tuple[str, ...],
    keep: Bools,
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, Any]:
    truth, predicted = arrays.truth, arrays.predicted
    counts = metrics.confusion(truth, predicted, len(labels))  # (S, N, N)
    found = _interval(arrays, keep, resamples, confidence, seed)
    top = arrays.probabilities.max(axis=-1, initial=0.0)
    eces = [metrics.ece(confident, hit) for confident, hit in zip(top, predicted == truth, strict=True)]
    recalls = metrics.recalls(counts.sum(axis=0))
    return {
        "uar": found.value,
        "low": found.low,
        "high": found.high,
        "interval": found.method,
        "redrawn": found.redrawn,
        "war": _mean(metrics.war(counts)),
        "macro_f1": _mean(metrics.macro_f1(counts, keep)),
        "nll": _mean(metrics.nll(arrays.probabilities, truth)),
        "ece": _mean(np.array(eces)),
        "largest_share": max(metrics.largest_share(counts).tolist(), default=float("nan")),
        "n": truth.size,
        "speakers": len(np.unique(arrays.speakers)),
        "seeds": len(predicted),
        "chance": 1 / keep.sum() if keep.any() else np.nan,
        "labels": list(labels),
        "recalls": {label: float(recalls[number]) for number, label in enumerate(labels) if keep[number]},
        "confusion": counts.sum(axis=0).tolist(),
    }


def _interval(arrays: Predictions, keep: Bools, resamples: int, confidence: float, seed: int) -> intervals.Interval:
    """Return UAR with its interval; NaN where no class is kept."""
    if not keep.any():
        return intervals.Interval(value=np.nan, low=np.nan, high=np.nan, method="none")
    return intervals.interval(
        arrays.truth, arrays.predicted, arrays.clusters, keep, resamples=resamples, confidence=confidence, seed=seed
    )


def _class_marks(arrays: Predictions, labels: tuple[str, ...]) -> list[str]:
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


def _cluster_marks(arrays: Predictions) -> list[str]:
    count = len(np.unique(arrays.clusters))
    kind = "speaker" if np.array_equal(arrays.clusters, arrays.speakers) else "cluster"
    return [f"{_count(count, kind)}: no test"] if count < intervals.JACKKNIFE_SPEAKERS else []


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _disjoint(fold: str, corpora: list[str], split_units: Mapping[str, str]) -> list[str]:
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
