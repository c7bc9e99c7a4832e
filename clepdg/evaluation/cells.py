"""Compute result cells: the report's numbers, from predictions alone.

A cell is (fold, target, row, condition). A target that was left out is evaluated whole, since nothing was learnt,
selected, centred or calibrated on it; its test part stands beside it, for comparison with supervised.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from clepdg.config.conditions import CLEAN
from clepdg.config.folds import SUPERVISED, order
from clepdg.evaluation import intervals, metrics
from clepdg.evaluation.blocks import Blocks
from clepdg.evaluation.consistency import check
from clepdg.evaluation.marks import class_marks, cluster_marks, disjoint_marks, seed_marks, width_marks
from clepdg.evaluation.metrics import Bools, Floats
from clepdg.evaluation.predictions import Cells, Predictions, to_arrays

if TYPE_CHECKING:
    import pandas as pd

POOLED = "pooled"
WHOLE, TEST = "whole", "test"
CELL = (
    "fold",
    "target",
    "row",
    "condition",
    "part",
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
CORRUPTED = ("uar_corrupted", "low_corrupted", "high_corrupted")


def cells(
    predictions: "pd.DataFrame",
    labels: tuple[str, ...],
    *,
    confidence: float,
    split_units: Mapping[str, str],
    test_only: Collection[str] = (),
) -> "pd.DataFrame":
    """Compute one cell per (fold, target, row, condition).

    A cell has UAR with its interval, other figures, and marks of what weakens it.

    Columns: fold, target (a corpus, or "pooled": all test utterances of fold supervised), row, condition, part ("whole"
    or "test": what of the target the figures are of), uar, low, high, interval (what it is over), war, macro_f1, nll,
    ece, largest_share (of the worst seed), n (utterances), speakers, effective (their effective number), seeds,
    clep_seeds, chance (1 / kept classes), labels, recalls (of the kept classes), confusion (N x N, rows are the truth,
    summed over seeds), uar_test and n_test (the test part of a target that was left out), uar_corrupted, low_corrupted
    and high_corrupted (of the mean over families of corruptions, clean), marks.
    Figures are means over seeds; uar, macro_f1 and recalls are over the kept classes, the others over all utterances.

    Args:
        labels: the label set, in the order of the probabilities.
        confidence: of the intervals, for example 0.95.
        split_units: corpus -> unit of its split, of targets and sources; all but "speaker" are marked.
        test_only: rows that learn from the rest of a left-out target, or use its test audio.

    Raises:
        ClepError: the predictions contradict themselves or the label set; all faults are listed.
    """
    import pandas as pd

    found: list[dict[str, Any]] = []
    for fold, target, corpora, cells_of in _targets(check(predictions, labels), labels):
        for row in sorted({row for row, _ in cells_of}):
            heard = {condition: cells_of[of, condition] for of, condition in cells_of if of == row}
            tests = {condition: arrays.test_part() for condition, arrays in heard.items()}
            name = TEST if fold == SUPERVISED or row in test_only else WHOLE
            used = tests if name == TEST else heard
            for condition, arrays in used.items():
                keep = arrays.kept
                cell: dict[str, Any] = {"fold": fold, "target": target, "row": row, "condition": condition}
                said = TEST if arrays.test.all() else name  # corruptions may hold the test part alone
                cell |= {"part": said, **_figures(arrays, labels, keep, confidence), "uar_test": None, "n_test": None}
                if fold != SUPERVISED:
                    cell |= {"uar_test": _uar(tests[condition]), "n_test": tests[condition].truth.size}
                cell |= dict.fromkeys(CORRUPTED)
                if condition == CLEAN:
                    cell |= _corrupted({name: each for name, each in used.items() if name != CLEAN}, confidence)
                cell["marks"] = [
                    *disjoint_marks(fold, corpora, split_units),
                    *class_marks(arrays, labels),
                    *cluster_marks(arrays, cell["effective"]),
                    *seed_marks(cells_of.seeds(row)),
                    *width_marks(cell["largest_share"], cell["high"] - cell["low"]),
                ]
                found.append(cell)
    sometimes = {"uar_test": "float64", "n_test": "Int64", **dict.fromkeys(CORRUPTED, "float64")}
    return pd.DataFrame(found).astype(sometimes)


def rows_on_test_part(cells: "pd.DataFrame") -> set[str]:
    """Return the rows that keep to the test part of left-out targets."""
    chosen = (cells["fold"] != SUPERVISED) & (cells["condition"] == CLEAN) & (cells["part"] == TEST)
    return set(cells["row"][chosen])


def speaker_uars(predictions: "pd.DataFrame", cells: "pd.DataFrame") -> "pd.DataFrame":
    """List UAR per speaker for cells with too few speakers for an interval.

    Returns:
        Columns fold, target, row, condition, speaker (or the cluster, where only those are few), uar (mean over seeds,
        over the cell's kept classes that the speaker has), n (utterances of the speaker).
    """
    import pandas as pd

    found = []
    rows = dict(list(predictions.groupby(["fold", "row", "condition"], observed=True)))
    for cell in cells[cells["interval"] == intervals.UTTERANCES].to_dict("records"):
        labels = tuple(cell["labels"])
        # a table read back from Parquet has None where a class was left out
        keep = np.isin(labels, [name for name, recall in cell["recalls"].items() if recall is not None])
        where = {name: cell[name] for name in ("fold", "target", "row", "condition")}
        part = rows.get((cell["fold"], cell["row"], cell["condition"]), predictions.iloc[:0])
        part = part if cell["target"] == POOLED else part[part["corpus"] == cell["target"]]
        part = part if cell["part"] == WHOLE else part[part["split"] == "test"]
        sizes = {name: part.drop_duplicates("utterance_id")[name].value_counts() for name in _units(part)}
        few = [name for name, n in sizes.items() if n.sum() ** 2 < intervals.EFFECTIVE_SPEAKERS * (n**2).sum()]
        for speaker, own in part.groupby(few[0], observed=True) if few else ():
            arrays = to_arrays(own, labels)
            found.append({**where, "speaker": speaker, "uar": _uar(arrays, keep), "n": arrays.truth.size})
    return pd.DataFrame(found, columns=["fold", "target", "row", "condition", "speaker", "uar", "n"])


def _units(part: "pd.DataFrame") -> list[str]:
    return [name for name in ("speaker", "cluster") if name in part]


def _targets(blocks: Blocks, labels: tuple[str, ...]) -> Iterator[tuple[str, str, list[str], Cells]]:
    """Yield (fold, target, its corpora, its cells).

    Fold supervised comes first: its corpora by name, then pooled.
    """
    for fold in sorted(blocks.used("fold"), key=order):
        own = blocks.of_fold(fold)
        corpora = sorted({corpus for block in own for corpus in blocks.used("corpus", block.lines)})
        for corpus in corpora:
            yield fold, corpus, [corpus], Cells(blocks, own, labels, corpus if len(corpora) > 1 else None)
        if fold == SUPERVISED:
            yield fold, POOLED, corpora, Cells(blocks, own, labels)


def _uar(arrays: Predictions, keep: Bools | None = None) -> float:
    """Return UAR over its own kept classes, or over those given."""
    counts = metrics.confusion(arrays.truth, arrays.predicted, arrays.labels)
    return _mean(metrics.uar(counts, arrays.kept if keep is None else keep))


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else float("nan")


def _figures(arrays: Predictions, labels: tuple[str, ...], keep: Bools, confidence: float) -> dict[str, Any]:
    truth, predicted = arrays.truth, arrays.predicted
    counts = metrics.confusion(truth, predicted, len(labels))  # (S, N, N)
    found = _interval({CLEAN: arrays}, keep, confidence)
    top = arrays.probabilities.max(axis=-1, initial=0.0)
    eces = [metrics.ece(confident, hit) for confident, hit in zip(top, predicted == truth, strict=True)]
    recalls = metrics.recalls(counts.sum(axis=0))
    return {
        "uar": found.value,
        "low": found.low,
        "high": found.high,
        "interval": found.method,
        "war": _mean(metrics.war(counts)),
        "macro_f1": _mean(metrics.macro_f1(counts, keep)),
        "nll": _mean(metrics.nll(arrays.probabilities, truth)),
        "ece": _mean(np.array(eces)),
        "largest_share": max(metrics.largest_share(counts).tolist(), default=float("nan")),
        "n": truth.size,
        "speakers": len(np.unique(arrays.speakers)),
        "effective": intervals.effective(intervals.count({CLEAN: arrays}), keep) if truth.size else 0.0,
        "seeds": len(predicted),
        "clep_seeds": found.cleps,
        "chance": 1 / keep.sum() if keep.any() else np.nan,
        "labels": list(labels),
        "recalls": {label: float(recalls[number]) for number, label in enumerate(labels) if keep[number]},
        "confusion": counts.sum(axis=0).tolist(),
    }


def _corrupted(heard: Mapping[str, Predictions], confidence: float) -> dict[str, float]:
    """Return the figures of the mean over families of corruptions, if any."""
    if not heard:
        return {}
    mean = _interval(heard, next(iter(heard.values())).kept, confidence)
    return dict(zip(CORRUPTED, (mean.value, mean.low, mean.high), strict=True))


def _interval(heard: Mapping[str, Predictions], keep: Bools, confidence: float) -> intervals.Interval:
    """Return UAR with its interval; NaN where no class is kept."""
    if not keep.any():
        return intervals.Interval(value=np.nan, low=np.nan, high=np.nan, method="none")
    return intervals.interval(heard, keep, confidence=confidence)
