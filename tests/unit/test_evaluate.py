"""Protects the result cells: every number comes from the predictions alone, and what weakens it is said beside it."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, recall_score

from clepdg.errors import ClepError
from clepdg.evaluation.cells import CORRUPTED, cells, rows_on_test_part, speaker_uars
from clepdg.evaluation.predictions import probability_columns, to_arrays

LABELS = ("angry", "happy", "neutral", "sad")
P = probability_columns(LABELS)
UNITS = {"alpha": "speaker", "beta": "text"}


def corpus(name: str, speakers: int, counts: tuple[int, ...], split: str = "test") -> pd.DataFrame:
    """Utterances of a corpus: counts per label, dealt to the speakers in turn."""
    emotions = np.repeat(LABELS, counts)
    return pd.DataFrame(
        {
            "utterance_id": [f"{name}/{split}{number}" for number in range(len(emotions))],
            "corpus": name,
            "speaker": [f"{name}/{split}{number % speakers}" for number in range(len(emotions))],
            "split": split,
            "true": emotions,
        }
    )


def answer(utterances: pd.DataFrame, fold: str, row: str, seeds: tuple[str, ...], hits: float = 0.6) -> pd.DataFrame:
    """Predictions for the utterances: the truth with rate hits, otherwise any label."""
    parts = []
    for number, seed in enumerate(seeds):
        rng = np.random.default_rng([number, len(row), len(fold)])
        guess = rng.choice(LABELS, size=len(utterances))
        label = np.where(rng.random(len(utterances)) < hits, utterances["true"], guess)
        probabilities = 0.1 * rng.dirichlet(np.ones(4), size=len(label)) + 0.9 * (label[:, None] == np.array(LABELS))
        parts.append(
            utterances.assign(
                fold=fold,
                row=row,
                condition="clean",
                seed=seed,
                predicted=label,
                **dict(zip(P, probabilities.T, strict=True)),
            )
        )
    return pd.concat(parts, ignore_index=True)


def compute(predictions: pd.DataFrame) -> pd.DataFrame:
    table = cells(predictions, LABELS, confidence=0.95, split_units=UNITS)
    return table.set_index(["fold", "target", "row", "condition"])


ALPHA = corpus("alpha", 24, (30, 25, 40, 22))
BETA = corpus("beta", 2, (30, 2, 10, 21))
SEEDS = ("c0.l0", "c1.l0")


@pytest.fixture(scope="module")
def predictions() -> pd.DataFrame:
    whole = pd.concat([ALPHA, corpus("alpha", 9, (50, 50, 50, 50), split="train")])
    parts = [
        *(answer(pd.concat([ALPHA, BETA]), "supervised", row, SEEDS) for row in ("text-acpt", "majority-like")),
        answer(whole, "leave-out-alpha", "text-acpt", SEEDS),
    ]
    return pd.concat(parts).sample(frac=1, random_state=0).reset_index(drop=True)


@pytest.fixture(scope="module")
def table(predictions: pd.DataFrame) -> pd.DataFrame:
    return compute(predictions)


def test_there_is_one_cell_per_fold_target_row_and_condition(table: pd.DataFrame) -> None:
    rows = ("majority-like", "text-acpt")
    supervised = [("supervised", target, row, "clean") for target in ("alpha", "beta", "pooled") for row in rows]
    assert list(table.index) == [*supervised, ("leave-out-alpha", "alpha", "text-acpt", "clean")]


def test_every_cell_is_scikit_learns_figure_on_its_targets_predictions(
    predictions: pd.DataFrame, table: pd.DataFrame
) -> None:
    for (fold, target, row, _), cell in table.iterrows():
        own = predictions[(predictions[["fold", "row"]] == [fold, row]).all(axis=1)]
        own = own if target == "pooled" else own[own["corpus"] == target]
        assert cell["part"] == ("test" if fold == "supervised" else "whole")
        kept = list(cell["recalls"])
        seeds = [part for _, part in own.groupby("seed")]
        recalls = [recall_score(p["true"], p["predicted"], labels=kept, average="macro") for p in seeds]
        f1s = [f1_score(p["true"], p["predicted"], labels=kept, average="macro") for p in seeds]
        losses = [log_loss(p["true"], p[P], labels=LABELS) for p in seeds]
        assert cell["nll"] == pytest.approx(np.mean(losses))
        assert cell["uar"] == pytest.approx(np.mean(recalls))
        assert cell["macro_f1"] == pytest.approx(np.mean(f1s))
        assert cell["war"] == pytest.approx(accuracy_score(own["true"], own["predicted"]))
        assert cell["low"] < cell["uar"] < cell["high"]
        assert (cell["n"], cell["seeds"], cell["speakers"]) == (len(own) // 2, 2, own["speaker"].nunique())
        assert np.sum(cell["confusion"]) == len(own)
        assert np.mean(list(cell["recalls"].values())) == pytest.approx(cell["uar"])


def test_a_left_out_target_counts_whole_and_its_test_part_is_a_second_column(
    predictions: pd.DataFrame, table: pd.DataFrame
) -> None:
    test = predictions.query("fold == 'leave-out-alpha' and split == 'test'")
    cell = table.loc[("leave-out-alpha", "alpha", "text-acpt", "clean")]
    assert cell["uar_test"] == pytest.approx(recall_score(test["true"], test["predicted"], average="macro"))
    assert (cell["n"], cell["n_test"]) == (len(ALPHA) + 200, len(ALPHA))
    assert table.loc["supervised", ["uar_test", "n_test"]].isna().all(axis=None)


def test_a_row_that_learns_from_the_target_or_hears_its_test_part_keeps_to_that_part(predictions: pd.DataFrame) -> None:
    left_out = predictions.query("fold == 'leave-out-alpha'")
    both = pd.concat([left_out, left_out.assign(row="target-probe")])
    table = cells(both, LABELS, confidence=0.95, split_units=UNITS, test_only=["target-probe"]).set_index("row")
    of_test = table.loc["target-probe"]
    assert (of_test["part"], of_test["n"], of_test["uar"]) == ("test", len(ALPHA), of_test["uar_test"])
    assert of_test["uar_test"] == table.loc["text-acpt", "uar_test"] != table.loc["text-acpt", "uar"]
    assert rows_on_test_part(table.reset_index()) == {"target-probe"}


@pytest.fixture(scope="module")
def by_text() -> pd.DataFrame:
    """A corpus that is split by text and left out: two speakers are in every part, "happy" is rare in test alone."""
    train = corpus("beta", 2, (9, 40, 25, 16), split="train")
    train = train.assign(speaker=train["speaker"].str.replace("train", "test"))
    return answer(pd.concat([BETA, train]), "leave-out-beta", "text-acpt", SEEDS)


def test_a_class_is_left_out_where_the_part_that_counts_lacks_it(by_text: pd.DataFrame) -> None:
    cell = compute(by_text).loc[("leave-out-beta", "beta", "text-acpt", "clean")]
    assert list(cell["recalls"]) == list(LABELS)
    test = by_text[by_text["split"] == "test"]
    kept, seeds = ["angry", "neutral", "sad"], [part for _, part in test.groupby("seed")]
    recalls = [recall_score(p["true"], p["predicted"], labels=kept, average="macro") for p in seeds]
    assert cell["uar_test"] == pytest.approx(np.mean(recalls))
    assert cell["n_test"] == len(test) // 2


def test_a_pair_is_a_cell_of_its_own_after_the_others(predictions: pd.DataFrame, table: pd.DataFrame) -> None:
    pair = answer(ALPHA, "from-beta-to-alpha", "text-acpt", SEEDS)
    found = compute(pd.concat([pair, predictions]))
    assert list(found.index) == [*table.index, ("from-beta-to-alpha", "alpha", "text-acpt", "clean")]
    with pytest.raises(ClepError, match="fold from-alpha-to-beta holds other corpora: alpha"):
        compute(answer(ALPHA, "from-alpha-to-beta", "text-acpt", SEEDS))


def test_a_class_with_two_utterances_is_left_out_and_said(table: pd.DataFrame) -> None:
    cell = table.loc[("supervised", "beta", "text-acpt", "clean")]
    assert "without happy (2 utterances)" in cell["marks"]
    assert list(cell["recalls"]) == ["angry", "neutral", "sad"]
    assert cell["chance"] == pytest.approx(1 / 3)
    assert table.loc[("supervised", "alpha", "text-acpt", "clean"), "chance"] == 0.25


def test_a_class_with_few_utterances_or_one_speaker_stays_and_is_marked() -> None:
    few = corpus("alpha", 24, (30, 19, 20, 20))
    few.loc[few["true"] == "sad", "speaker"] = "alpha/1"
    marks = compute(answer(few, "supervised", "text-acpt", SEEDS)).iloc[0]["marks"]
    (mark,) = [mark for mark in marks if mark.startswith("few")]
    assert mark == "few: happy (19 utterances), sad (1 speaker)"


def test_what_is_not_split_by_speaker_is_marked_also_in_the_pool(table: pd.DataFrame) -> None:
    mark = "not speaker-disjoint: beta's own split is by text"
    marked = {target for (_, target, _, _), cell in table.iterrows() if mark in cell["marks"]}
    assert marked == {"beta", "pooled"}


def test_a_left_out_corpus_is_marked_by_its_sources_split_not_by_its_own() -> None:
    made = pd.concat(answer(part, f"leave-out-{part['corpus'].iloc[0]}", "text-acpt", SEEDS) for part in (ALPHA, BETA))
    units = {"alpha": "speaker", "beta": "text"}
    table = cells(made, LABELS, confidence=0.95, split_units=units).set_index("target")
    mark = "selected on speakers that it may have learnt from: beta"
    assert mark in table.loc["alpha", "marks"]
    assert not any("speakers that" in said or "disjoint" in said for said in table.loc["beta", "marks"])


def test_a_corpus_with_a_split_of_its_own_is_marked(predictions: pd.DataFrame) -> None:
    units = {"alpha": "speaker", "beta": "official"}
    table = cells(predictions, LABELS, confidence=0.95, split_units=units)
    marked = {
        cell["target"]
        for cell in table[table.fold == "supervised"].to_dict("records")
        if any("beta" in mark for mark in cell["marks"])
    }
    assert marked == {"beta", "pooled"}
    assert "the corpus's own split, speakers may cross: beta" in table[table.target == "beta"].iloc[0]["marks"]


def test_too_few_speakers_mean_no_test_and_a_listing_by_speaker(predictions: pd.DataFrame, table: pd.DataFrame) -> None:
    cell = table.loc[("supervised", "beta", "text-acpt", "clean")]
    assert "2 speakers: no test" in cell["marks"] and cell["interval"] == "ignores speakers"
    listed = speaker_uars(predictions, table.reset_index())
    assert set(listed["target"]) == {"beta"} and len(listed) == 2 * 2
    for line in listed.to_dict("records"):
        own = predictions.query("fold == 'supervised' and row == @line['row'] and speaker == @line['speaker']")
        kept = ["angry", "neutral", "sad"]
        by_seed = [
            recall_score(p["true"], p["predicted"], labels=kept, average="macro") for _, p in own.groupby("seed")
        ]
        assert line["uar"] == pytest.approx(np.mean(by_seed))
        assert line["n"] == len(own) // 2


def test_speakers_are_listed_by_what_they_say_in_the_part_that_counts(by_text: pd.DataFrame) -> None:
    listed = speaker_uars(by_text, compute(by_text).reset_index()).set_index("speaker")
    assert set(listed.index) == set(by_text["speaker"]) and len(listed) == 2
    for speaker, own in by_text.groupby("speaker"):
        by_seed = [recall_score(p["true"], p["predicted"], average="macro") for _, p in own.groupby("seed")]
        assert listed.uar[speaker] == pytest.approx(np.mean(by_seed))
        assert listed.n[speaker] == len(own) // 2


def test_a_label_of_another_label_set_is_told() -> None:
    answers = answer(ALPHA, "supervised", "text-acpt", ("c0.l0",))
    answers.loc[3, "predicted"] = "disgusted"
    with pytest.raises(ClepError, match="disgusted"):
        to_arrays(answers, LABELS)


def test_where_sessions_are_what_is_independent_few_of_them_are_listed(predictions: pd.DataFrame) -> None:
    of_alpha = predictions[predictions["corpus"] == "alpha"]
    sessions = of_alpha["speaker"].map({name: f"s{place % 2}" for place, name in enumerate(of_alpha.speaker.unique())})
    of_alpha = of_alpha.assign(cluster=sessions)
    listed = speaker_uars(of_alpha, compute(of_alpha).reset_index())
    assert set(listed["speaker"]) == {"s0", "s1"}
    of_beta = predictions[predictions["corpus"] == "beta"].assign(cluster="one session")
    assert set(speaker_uars(of_beta, compute(of_beta).reset_index())["speaker"]) == set(of_beta["speaker"])
    by_speaker = of_alpha.drop(columns="cluster")
    assert by_speaker["speaker"].nunique() >= 6
    assert speaker_uars(by_speaker, compute(by_speaker).reset_index()).empty


def test_the_mean_over_families_of_corruptions_has_an_interval(predictions: pd.DataFrame) -> None:
    test = predictions[(predictions["fold"] == "supervised") & (predictions["row"] == "text-acpt")]
    heard, swapped = [test], dict(zip(LABELS, LABELS[1:] + LABELS[:1], strict=True))
    for step, condition in ((3, "white-0dB"), (4, "hum-0dB"), (2, "room-long")):
        wrong = np.arange(len(test)) % step == 0
        heard.append(
            test.assign(condition=condition, predicted=test["predicted"].where(~wrong, test["predicted"].map(swapped)))
        )
    table = compute(pd.concat(heard, ignore_index=True)).reset_index()
    for target, own in table.groupby("target"):
        of = own.set_index("condition")
        expected = (of.uar["white-0dB"] + of.uar["hum-0dB"]) / 4 + of.uar["room-long"] / 2
        assert of.loc["clean", "uar_corrupted"] == pytest.approx(expected), target
        assert of.loc["clean", "low_corrupted"] < of.loc["clean", "uar_corrupted"] < of.loc["clean", "high_corrupted"]
        assert of.loc[["white-0dB", "room-long"], list(CORRUPTED)].isna().all(axis=None)
    # conditions of equal weight as later seeds of one condition are the same statistic
    renamed = [
        part.assign(condition="clean", seed=part["seed"].str.replace("l0", f"l{number}"))
        for number, part in enumerate((heard[1], heard[3]))
    ]
    seeds = compute(pd.concat(renamed, ignore_index=True)).reset_index().set_index("target")
    table = compute(pd.concat([heard[0], heard[1], heard[3]], ignore_index=True)).reset_index()
    both = table[table.condition == "clean"].set_index("target")
    for ours, theirs in zip(CORRUPTED, ("uar", "low", "high"), strict=True):
        assert both[ours].to_dict() == pytest.approx(seeds[theirs].to_dict())


@pytest.mark.parametrize(
    ("clep", "later", "mark"),
    [(1, 5, "conditional on one CLEP"), (2, 5, "conditional on 2 CLEPs"), (3, 1, "1 later seed"), (3, 5, None)],
)
def test_a_table_from_few_seeds_says_so(clep: int, later: int, mark: str | None) -> None:
    seeds = tuple(f"c{c}.l{number}" for c in range(clep) for number in range(later))
    marks = compute(answer(ALPHA, "supervised", "text-acpt", seeds)).iloc[0]["marks"]
    assert marks == ([mark] if mark else [])


def test_a_collapse_of_one_seed_is_not_averaged_away() -> None:
    predictions = answer(ALPHA, "supervised", "text-acpt", SEEDS)
    assert not any("collapsed" in marks for marks in compute(predictions)["marks"])
    predictions.loc[predictions["seed"] == "c1.l0", "predicted"] = "sad"
    cell = compute(predictions).iloc[0]
    assert "collapsed" in cell["marks"] and cell["largest_share"] == 1.0


def test_clusters_are_what_a_column_cluster_says() -> None:
    predictions = answer(ALPHA, "supervised", "text-acpt", SEEDS)
    predictions["cluster"] = "session " + predictions["speaker"].str[-1]
    cell = compute(predictions).iloc[0]
    assert (cell["speakers"], cell["interval"]) == (24, "over clusters")


def test_a_few_speakers_who_say_most_are_few_and_are_said_so() -> None:
    leads = corpus("alpha", 2, (200, 200, 200, 200))
    others = corpus("alpha", 20, (20, 20, 20, 20), split="others").assign(split="test")
    cell = compute(answer(pd.concat([leads, others]), "supervised", "text-acpt", SEEDS)).iloc[0]
    assert cell["speakers"] == 22 and cell["effective"] == pytest.approx(880**2 / (2 * 400**2 + 20 * 4**2))
    assert "22 speakers, effectively 2.4: no test" in cell["marks"] and cell["interval"] == "ignores speakers"


def test_the_same_predictions_give_the_same_cells_in_any_order(predictions: pd.DataFrame, table: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(compute(predictions.iloc[::-1].reset_index(drop=True)), table)


def test_a_target_without_test_utterances_is_a_cell_that_says_so() -> None:
    train = corpus("alpha", 9, (5, 5, 5, 5), split="train")
    answers = answer(train, "leave-out-alpha", "text-acpt", SEEDS)
    assert compute(answers).iloc[0]["n"] == 20
    cell = cells(answers, LABELS, confidence=0.95, split_units=UNITS, test_only=["text-acpt"]).iloc[0]
    assert np.isnan([cell["uar"], cell["low"], cell["nll"], cell["ece"], cell["chance"]]).all()
    assert cell["n"] == 0 and "without angry (0 utterances)" in cell["marks"]


def test_probabilities_of_another_label_set_are_refused(predictions: pd.DataFrame) -> None:
    with pytest.raises(ClepError, match="column p_fearful"):
        compute(predictions.assign(p_fearful=0.0))


def test_all_faults_of_the_predictions_are_told_at_once(predictions: pd.DataFrame) -> None:
    broken = predictions.drop(predictions.query("fold == 'supervised' and seed == 'c0.l0'").index[0])
    broken = pd.concat([broken, broken.iloc[[3]]], ignore_index=True)
    broken.loc[5, "predicted"] = "furious"
    broken.loc[6, P] = [0.5, 0.5, 0.5, float("nan")]
    broken.loc[7, P] = [0.5, 0.5, 0.5, -0.5]
    broken.loc[10, P] = [0.5, 0.5, 0.5, 0.5]
    broken.loc[8, "seed"] = "seven"
    broken.loc[9, "speaker"] = "alpha/other"
    with pytest.raises(ClepError) as error:
        compute(broken)
    for fault in (
        "predicted furious",
        "3 lines have probabilities",
        "1 lines stand twice",
        "more than one speaker",
        "same utterances",
        "seed seven",
    ):
        assert fault in str(error.value)


@pytest.mark.parametrize("column", ["true", "seed", "p_sad"])
def test_a_missing_column_is_named(predictions: pd.DataFrame, column: str) -> None:
    with pytest.raises(ClepError, match=f"no column {column}"):
        compute(predictions.drop(columns=column))
