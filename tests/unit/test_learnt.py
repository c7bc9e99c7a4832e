"""Protects what the report says of learnt contexts against random ones: the value, its pairing, what it leaves out."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from clepdg.evaluation.learnt_vs_random import against_random
from clepdg.evaluation.metrics import confusion, uar
from tests.unit.test_credit import LABELS, predictions, pseudo_values

INDEX = {label: number for number, label in enumerate(LABELS)}


def score(table: pd.DataFrame, row: str, conditions: list[str]) -> float:
    values = []
    for condition in conditions:
        own = table[(table.row == row) & (table.condition == condition)]
        values.append(float(uar(confusion(own.true.map(INDEX).to_numpy(), own.predicted.map(INDEX).to_numpy(), 4))))
    return float(np.mean(values))


def test_the_difference_is_that_of_plain_uars_clean_and_over_corruptions() -> None:
    table = predictions({"*": 0.5, "text-acpt": 0.6, ("text-acpt", "hum-5dB"): 0.8}, targets=2)
    found = against_random(table, LABELS, confidence=0.95)
    assert list(found) == ["leave-out-t0", "leave-out-t1"]
    for fold, parts in found.items():
        own = table[table.fold == fold]
        for words, conditions in (("clean", ["clean"]), ("corrupted", ["white-0dB", "hum-5dB"])):
            expected = score(own, "text-acpt", conditions) - score(own, "text-random", conditions)
            assert parts[words].value == pytest.approx(expected)
            assert parts[words].low < expected < parts[words].high


def test_equal_answers_differ_by_nothing_since_one_resample_serves_both() -> None:
    table = predictions({"*": 0.5}, targets=1)
    own = table[table.row == "text-acpt"]
    found = against_random(pd.concat([own, own.assign(row="text-random")]), LABELS, confidence=0.95)
    assert {(d.value, d.low, d.high) for d in found["leave-out-t0"].values()} == {(0.0, 0.0, 0.0)}


def test_folds_without_one_of_the_rows_say_nothing() -> None:
    table = predictions({"*": 0.5}, targets=1)
    assert against_random(table[table.row != "text-random"], LABELS, confidence=0.95) == {}
    clean = against_random(table[table.condition == "clean"], LABELS, confidence=0.95)
    assert list(clean["leave-out-t0"]) == ["clean"]


def test_speakers_are_what_an_interval_is_over() -> None:
    table = predictions({"*": 0.5, "text-acpt": 0.6}, speakers=8, targets=1, spread=0.3)
    found = against_random(table, LABELS, confidence=0.9)["leave-out-t0"]
    for words, conditions in (("clean", ["clean"]), ("corrupted", ["white-0dB", "hum-5dB"])):
        low, high = ttest_1samp(pseudo_values(table, "text-random", conditions), 0).confidence_interval(0.9)
        assert (found[words].low, found[words].high) == pytest.approx((low, high))


@pytest.mark.parametrize(("count", "counted"), [(2, False), (3, True)])
def test_a_class_of_fewer_than_three_utterances_is_left_out(count: int, counted: bool) -> None:
    table = predictions({"*": 0.5}, targets=1)
    sad = sorted(set(table.utterance_id[table.true == "sad"]))
    table = table[~table.utterance_id.isin(sad[count:])].copy()
    sad_rows = table.true == "sad"  # where the two differ most, so that it matters whether they count
    table.loc[sad_rows, "predicted"] = np.where(table.row[sad_rows] == "text-acpt", "sad", "angry")
    found = against_random(table, LABELS, confidence=0.95)["leave-out-t0"]["clean"]
    clean = table[table.condition == "clean"]
    kept = [label for label in LABELS if label != "sad" or counted]
    means = {
        row: np.mean([(own.predicted == own.true)[own.true == label].mean() for label in kept])
        for row, own in clean.groupby("row")
    }
    assert found.value == pytest.approx(means["text-acpt"] - means["text-random"])


def test_the_whole_target_counts_but_where_a_row_keeps_to_the_test_part() -> None:
    table, rest = predictions({"*": 0.5}, targets=1), predictions({"*": 0.1, "text-acpt": 0.9}, targets=1, seed=1)
    rest = rest.assign(split="train", utterance_id="train-" + rest.utterance_id, speaker="train-" + rest.speaker)
    both = pd.concat([table, rest])
    alone = against_random(table, LABELS, confidence=0.95)
    assert against_random(both, LABELS, confidence=0.95, test_only=["text-acpt"]) == alone
    assert against_random(both.assign(fold="supervised"), LABELS, confidence=0.95) == {
        "supervised": alone["leave-out-t0"]
    }
    whole = against_random(both, LABELS, confidence=0.95)["leave-out-t0"]["clean"]
    assert whole.value == pytest.approx(score(both, "text-acpt", ["clean"]) - score(both, "text-random", ["clean"]))
