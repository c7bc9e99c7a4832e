"""Protects the report's headline: means over targets, differences to the floor, and words that say which is ahead."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp
from sklearn.metrics import balanced_accuracy_score

from clepdg.evaluation.cells import cells
from clepdg.evaluation.targets import average, left_out, supervised
from clepdg.report.headline import Headline, _verdict, headline, signed
from clepdg.report.report import headline_table, write_report
from tests.unit.test_credit import LABELS, predictions

ROWS = {"log-mel": "floor", "text-none": "no contexts", "text-acpt": "ACPT <contexts>"}


def table(floor: float, ours: float = 0.6, seeds: int = 3, targets: int = 3) -> pd.DataFrame:
    """Predictions of all rows and of a floor without seeds; a fifth of the utterances is of the test part."""
    parts = [
        predictions({"*": 0.5, "text-acpt": ours}, seed=seed, targets=targets).assign(seed=f"c{seed}.l0")
        for seed in range(seeds)
    ]
    at_floor = predictions({"*": floor}, seed=9, targets=targets)
    parts.append(at_floor[at_floor.row == "text-none"].assign(row="log-mel", seed="-"))
    found = pd.concat(parts, ignore_index=True)
    return found.assign(split=np.where(found.utterance_id.str.endswith(("0", "5")), "test", "train"))


def compute(found: pd.DataFrame, test_only: tuple[str, ...] = ()) -> Headline:
    return headline(left_out(found, LABELS, test_only), supervised(found, LABELS), ROWS, confidence=0.95)


def scores(found: pd.DataFrame, row: str) -> np.ndarray:
    """Clean UAR of a row by target and seed, on all utterances."""
    own = found[(found.row == row) & (found.condition == "clean")]
    uars = own.groupby(["fold", "seed"]).apply(lambda part: balanced_accuracy_score(part.true, part.predicted))
    return uars.unstack().to_numpy()


def record(found: Headline, row: str, where: str = "3 left-out targets, clean") -> dict:
    (line,) = (line for line in found.records if line["row"] == row and line["where"] == where)
    return line


def test_a_row_is_the_mean_over_whole_targets_and_over_seeds() -> None:
    found = table(0.5)
    line, ours, floor = record(compute(found), "text-acpt"), scores(found, "text-acpt"), scores(found, "log-mel")
    assert line["uar"] == pytest.approx(ours.mean())
    assert line["minus_floor"] == pytest.approx(ours.mean() - floor.mean())
    assert line["low"] < line["uar"] < line["high"] and line["targets"] == 3
    assert line["low_minus_floor"] < line["minus_floor"] < line["high_minus_floor"]


def test_of_a_row_without_seeds_the_interval_is_that_of_a_t_test_over_targets() -> None:
    found = table(0.5)
    low, high = ttest_1samp(scores(found, "log-mel")[:, 0], 0).confidence_interval(0.95)
    line = record(compute(found), "log-mel")
    assert (line["low"], line["high"]) == pytest.approx((low, high))
    assert "minus_floor" not in line


def test_a_row_that_keeps_to_the_test_part_is_compared_with_the_floor_there() -> None:
    found = table(0.5)
    line = record(compute(found, ("text-acpt",)), "text-acpt")
    of_test = found[found.split == "test"]
    assert line["uar"] == pytest.approx(scores(of_test, "text-acpt").mean())
    assert line["minus_floor"] == pytest.approx(line["uar"] - scores(of_test, "log-mel").mean())
    assert "3, test parts" in headline_table(compute(found, ("text-acpt",)))


def test_supervised_has_a_mean_over_the_test_parts_of_its_corpora() -> None:
    found = table(0.5).assign(fold="supervised")
    line = record(compute(found), "text-acpt", "3 supervised corpora, clean")
    of_test = found[found.split == "test"].assign(fold=found.corpus)
    assert line["uar"] == pytest.approx(scores(of_test, "text-acpt").mean())


@pytest.mark.parametrize(
    ("floor", "said"),
    [
        (0.9, "3 left-out targets, clean: The floor beats ACPT <contexts>"),
        (0.1, "3 left-out targets, clean: ACPT <contexts> beats the floor"),
    ],
)
def test_words_say_which_is_ahead_and_on_which_targets_the_floor_is(floor: float, said: str) -> None:
    (sentence,) = (each for each in compute(table(floor)).sentences if each.startswith(said))
    assert sentence.endswith("; the floor is ahead on t0, t1, t2.") == (floor == 0.9)
    assert "over targets" in sentence and "on these corpora alone" in sentence


def test_the_best_rival_is_the_one_that_the_main_row_is_least_above() -> None:
    found = table(0.5)
    found.loc[(found.row == "text-none"), "predicted"] = found.true
    said = [each for each in compute(found).sentences if "best rival" in each]
    assert len(said) == 2 and all("Its best rival (no contexts) beats ACPT" in each for each in said)


def test_one_target_has_no_table_and_no_interval_over_targets() -> None:
    found = compute(table(0.5, targets=1))
    assert found.tables == [] and found.records == []
    assert found.sentences[0].startswith("1 left-out target, clean") and "–" not in "".join(found.sentences)
    assert average([], "text-acpt", ["clean"]) is None


def test_a_difference_has_its_sign() -> None:
    assert [signed(value) for value in (0.1234, -0.0124, 0.0, float("nan"))] == ["+.123", "-.012", "+.000", "–"]


def test_it_stands_at_the_top_of_every_form_of_the_report(tmp_path: Path) -> None:
    found = table(0.9)
    own = found[found.row.isin(ROWS)]
    of_cells = cells(own, LABELS, confidence=0.95, split_units={f"t{n}": "speaker" for n in range(3)})
    means = compute(own)
    write_report(tmp_path, of_cells, own, {"caption": "said first"}, ROWS, headline=means)
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "results.md").read_text()
    for written, mean, last in (
        (page, "UAR of methods by target", "was-run-title"),
        (text, "Mean over 3 left-out targets, clean", "What was run"),
    ):
        places = [written.index(words) for words in ("said first", mean, last)]
        assert places == sorted(places)
        assert "The floor beats ACPT &lt;contexts&gt;" in written
    lines = pd.read_csv(tmp_path / "headline.csv")
    assert lines.uar.tolist() == [line["uar"] for line in means.records]
    assert "These corpora alone: over speakers" in text and "One may include 0 and the other not" in text
    terminal = headline_table(means).splitlines()
    assert max(map(len, terminal)) <= 120 and terminal[1] == "Mean over 3 left-out targets, clean"


def test_the_best_row_is_compared_with_the_next_and_the_main_row_with_its_best_rival() -> None:
    found = table(0.5)
    pairs = compute(found).comparisons["left-out targets"]
    uars = {row: scores(found, row) for row in ("text-none", "text-acpt")}
    assert set(pairs) == {("text-acpt", "text-none")}
    value, low, high = pairs["text-acpt", "text-none"]
    assert value == pytest.approx(uars["text-acpt"].mean() - uars["text-none"].mean()) and low < value < high
    own = compute(found, ("text-acpt",)).comparisons["left-out targets"]  # on the test part alone: no candidate
    assert ("text-acpt", "text-none") in own and len({pair[0] for pair in own} & {"text-none", "log-mel"}) == 1


@pytest.mark.parametrize(
    ("value", "over", "these", "said"),
    [
        (0.2, (0.1, 0.3), (0.05, 0.35), "A beats B"),
        (-0.2, (-0.3, -0.1), (math.nan, math.nan), "B beats A"),
        (0.2, (-0.1, 0.5), (0.1, 0.3), "A is ahead of B, but within the interval over targets"),
        (0.2, (0.19, 0.21), (-0.1, 0.5), "A is ahead of B, but within the interval on these corpora alone"),
        (0.0, (-0.1, 0.1), (-0.1, 0.1), "A ties with B"),
    ],
)
def test_one_beats_another_only_beyond_both_intervals(value: float, over: tuple, these: tuple, said: str) -> None:
    means = (SimpleNamespace(interval=lambda confidence, own=own: own) for own in (over, these))
    difference = SimpleNamespace(value=value, **dict(zip(("sample", "these"), means, strict=True)))
    assert _verdict("A", "B", difference, 0.95) == said  # type: ignore[arg-type]
