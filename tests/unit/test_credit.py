"""Protects the credit rule: what it credits, what it does not, and what it refuses to decide."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp
from sklearn.metrics import balanced_accuracy_score

from clepdg.evaluation import credit
from clepdg.evaluation.credit import CLEAN_WORDS, CORRUPTED_WORDS, RIVALS, _holm
from clepdg.evaluation.metrics import confusion, uar
from clepdg.evaluation.predictions import probability_columns

LABELS = ("angry", "happy", "neutral", "sad")
SWEEP = ("white-0dB", "hum-5dB")


def predictions(accuracy, speakers=10, targets=3, conditions=("clean", *SWEEP), seed=0, per_speaker=24, spread=0.1):
    """Predictions of all rows; accuracy: row (or "*") -> chance of a right answer, or by (row, condition)."""
    rng = np.random.default_rng(seed)
    parts = []
    for target in range(targets):
        n = speakers * per_speaker
        truth = np.tile(np.arange(4), n // 4)
        speaker = np.repeat(np.arange(speakers), per_speaker)
        ability = rng.normal(0, spread, speakers)[speaker]  # what makes utterances of a speaker alike
        for row in ("text-acpt", *RIVALS):
            for condition in conditions:
                chance = accuracy.get((row, condition), accuracy.get(row, accuracy["*"])) + ability
                right = rng.random(n) < chance
                label = np.where(right, truth, (truth + rng.integers(1, 4, n)) % 4)
                parts.append(
                    pd.DataFrame(
                        {
                            "utterance_id": [f"t{target}/{i:04d}" for i in range(n)],
                            "corpus": f"t{target}",
                            "speaker": [f"t{target}/{s}" for s in speaker],
                            "split": "test",
                            "fold": f"leave-out-t{target}",
                            "row": row,
                            "condition": condition,
                            "seed": "c0.l0",
                            "true": np.array(LABELS)[truth],
                            "predicted": np.array(LABELS)[label],
                            **dict.fromkeys(probability_columns(LABELS), 0.25),
                        }
                    )
                )
    return pd.concat(parts, ignore_index=True)


def uar_difference(table, rival, conditions):
    """UAR of text-acpt minus a rival's in one fold, averaged over conditions and seeds one by one."""
    scores = {
        key: balanced_accuracy_score(own.true, own.predicted)
        for key, own in table.groupby(["row", "condition", "seed"])
    }
    of_row = {
        row: [v for (r, c, _), v in scores.items() if r == row and c in conditions] for row in ("text-acpt", rival)
    }
    return float(np.mean(of_row["text-acpt"]) - np.mean(of_row[rival]))


def pseudo_values(table, rival, conditions):
    """The difference's jackknife pseudo-values in one fold, one for each speaker that is left out."""
    table = table[table.row.isin(("text-acpt", rival)) & table.condition.isin(conditions)]
    speakers = sorted(set(table.speaker))
    whole = len(speakers) * uar_difference(table, rival, conditions)
    without = [uar_difference(table[table.speaker != speaker], rival, conditions) for speaker in speakers]
    return [whole - (len(speakers) - 1) * value for value in without]


def verdict(table, labels=LABELS, corpora=("t0", "t1", "t2"), sweep=SWEEP, test_only=()):
    return credit.verdict(table, labels, corpora, sweep=sweep, test_only=test_only)


def test_a_clear_effect_in_both_parts_is_credited():
    said = verdict(predictions({"*": 0.5, "text-acpt": 0.75}), LABELS)
    assert said.says == "credited"
    assert all(d.low > 0 for found in said.differences.values() for d in found)
    assert set(said.parts()) == {CLEAN_WORDS, CORRUPTED_WORDS}


def test_one_strong_rival_is_enough_to_deny_it():
    said = verdict(predictions({"*": 0.5, "text-acpt": 0.75, "text-random": 0.75}), LABELS)
    assert said.says == "not credited"
    assert "text-random" in said.parts()[CLEAN_WORDS]


def test_pairs_of_corpora_credit_nothing_and_deny_nothing():
    clear, pair = predictions({"*": 0.5, "text-acpt": 0.75}), predictions({"*": 0.9, "text-acpt": 0.1}, seed=1)
    together = pd.concat([clear, pair.assign(fold="from-x-to-" + pair.corpus)])
    assert verdict(together, LABELS) == verdict(clear, LABELS)


def test_an_effect_in_the_clean_part_alone_is_not_credited():
    said = verdict(predictions({"*": 0.5, ("text-acpt", "clean"): 0.8}), LABELS)
    assert (said.says, said.why) == ("not credited", f"above every rival only {CLEAN_WORDS}; conditional on one CLEP")


def test_the_value_is_the_mean_over_targets_of_uar_differences():
    table = predictions({"*": 0.5, "text-acpt": 0.7}, conditions=("clean", *SWEEP))
    said = verdict(table, LABELS)
    index = {label: n for n, label in enumerate(LABELS)}

    def score(row, condition, fold):
        own = table[(table.row == row) & (table.condition == condition) & (table.fold == fold)]
        return float(uar(confusion(own.true.map(index).to_numpy(), own.predicted.map(index).to_numpy(), 4)))

    folds = sorted(set(table.fold))
    for words, conditions in ((CLEAN_WORDS, ["clean"]), (CORRUPTED_WORDS, list(SWEEP))):
        for found in said.differences[words]:
            expected = np.mean([score("text-acpt", c, f) - score(found.rival, c, f) for f in folds for c in conditions])
            assert found.value == pytest.approx(expected)


def test_intervals_and_p_are_those_of_a_t_test_of_the_targets_differences():
    """Of one CLEP, a target of many speakers and targets of few are three values."""
    seeds = []
    for seed in range(2):
        sizes = ((11, 0.05), (6, 0.3), (2, 0.1))
        parts = [
            predictions({"*": 0.5, "text-acpt": 0.54}, speakers=speakers, seed=seed + 5 * place, spread=spread)
            for place, (speakers, spread) in enumerate(sizes)
        ]
        each = pd.concat([part[part.corpus == f"t{place}"] for place, part in enumerate(parts)])
        seeds.append(each.assign(seed=f"c0.l{seed}"))
    table = pd.concat(seeds, ignore_index=True)
    said = verdict(table)
    for words, conditions in ((CLEAN_WORDS, ["clean"]), (CORRUPTED_WORDS, list(SWEEP))):
        (found,) = (difference for difference in said.differences[words] if difference.rival == "text-random")
        values = [uar_difference(own, "text-random", conditions) for _, own in table.groupby("fold")]
        test = ttest_1samp(values, 0)
        low, high = test.confidence_interval(0.95)
        assert (found.low, found.high, found.p) == pytest.approx((low, high, test.pvalue))


def test_a_corrupted_part_is_the_mean_over_families_and_not_over_conditions():
    table = predictions({"*": 0.5, ("text-acpt", "telephone"): 0.9}, conditions=("clean", *SWEEP, "telephone"))
    said = verdict(table, sweep=(*SWEEP, "telephone"))
    (found,) = (d for d in said.differences[CORRUPTED_WORDS] if d.rival == "text-none")
    by_condition = [
        np.mean([uar_difference(own, "text-none", [name]) for _, own in table.groupby("fold")])
        for name in (*SWEEP, "telephone")
    ]
    assert found.value == pytest.approx((by_condition[0] + by_condition[1]) / 4 + by_condition[2] / 2)


def test_seeds_are_random_so_that_a_difference_of_one_of_three_is_not_credited():
    clear, none = predictions({"*": 0.5, "text-acpt": 0.75}), predictions({"*": 0.5}, seed=1)
    table = pd.concat([part.assign(seed=f"c{n}.l0") for n, part in enumerate((clear, none, none))])
    assert verdict(clear.assign(seed="c0.l0")).says == "credited"
    assert verdict(table).says == "not credited"


def test_the_whole_target_counts_but_where_a_row_keeps_to_the_test_part():
    clear, rest = predictions({"*": 0.5, "text-acpt": 0.75}), predictions({"*": 0.9, "text-acpt": 0.1}, seed=1)
    for split in ("train", "validation"):
        rest["split"] = split
        for name in ("utterance_id", "speaker"):
            rest[name] = split + "-" + rest[name]
        both = pd.concat([clear, rest])
        assert verdict(both).says == "not credited"
        assert verdict(both, test_only=("text-acpt",)) == verdict(clear)


def test_fewer_than_three_targets_are_not_decidable_and_no_interval_is_given():
    said = verdict(predictions({"*": 0.5, "text-acpt": 0.9}, targets=2), corpora=("t0", "t1"))
    assert (said.says, said.why) == ("not decidable", "2 of the 3 left-out targets that a test needs")
    assert all(d.low is None and d.p is None for found in said.differences.values() for d in found)
    assert "not tested" in said.parts()[CLEAN_WORDS]


def test_five_targets_of_any_size_are_decidable():
    sizes = (1, 2, 3, 9, 20)
    parts = [predictions({"*": 0.5, "text-acpt": 0.8}, speakers=n, targets=5, per_speaker=40) for n in sizes]
    table = pd.concat([part[part.corpus == f"t{place}"] for place, part in enumerate(parts)])
    said = verdict(table, corpora=[f"t{n}" for n in range(5)])
    assert (said.says, said.why) == ("credited", "above every rival in both parts; conditional on one CLEP")


def test_what_was_not_run_is_named():
    table = predictions({"*": 0.5}, conditions=("clean",))
    said = verdict(table[table.row != "text-noise"], LABELS)
    assert said.says == "not decidable"
    assert "text-noise" in said.why and "2 of 2 conditions of the sweep were not heard" in said.why
    assert verdict(table[table.row != "text-acpt"], LABELS).says == "not decidable"
    assert verdict(table.assign(fold="supervised"), LABELS).says == "not decidable"


def test_the_whole_sweep_and_every_corpus_are_needed():
    clear = predictions({"*": 0.5, "text-acpt": 0.75})
    some = verdict(clear[clear.condition != "hum-5dB"])
    assert (some.says, some.why) == ("not decidable", "1 of 2 conditions of the sweep were not heard")
    assert set(some.parts()) == {CLEAN_WORDS, "averaged over 1 of the sweep's 2 corruptions"}
    more = verdict(clear, corpora=("t0", "t1", "t2", "t3"))
    assert (more.says, more.why) == ("not decidable", "t3 was not left out")


def test_conditions_beside_the_sweep_change_nothing():
    clear = predictions({"*": 0.5, "text-acpt": 0.75})
    own = clear[clear.condition == "white-0dB"].assign(condition="own-10dB", predicted="angry")
    assert verdict(pd.concat([clear, own])) == verdict(clear)


def test_too_few_seeds_are_said():
    clear = predictions({"*": 0.5, "text-acpt": 0.75})
    assert verdict(clear).why == "above every rival in both parts; conditional on one CLEP"
    seeds = [clear.assign(seed=f"c{c}.l{later}") for c in range(3) for later in range(5)]
    assert verdict(pd.concat(seeds)).why == "above every rival in both parts"


def test_the_rival_that_decides_stands_first_and_every_rival_is_told():
    said = verdict(predictions({"*": 0.55, "text-acpt": 0.63}, seed=33, speakers=8))
    for words, found in said.differences.items():
        told = said.parts()[words]
        assert [told.count(f"against {rival} (") for rival in RIVALS] == [1] * len(RIVALS)
        decides = max(found, key=lambda d: 1.0 if d.value <= 0 else d.p)
        assert told.startswith(f"{decides.value:+.3f} against {decides.rival} ([")


def test_equal_predictions_are_not_credited():
    table = predictions({"*": 0.5})
    own = table[table.row == "text-acpt"]
    same = pd.concat([own.assign(row=row) for row in ("text-acpt", *RIVALS)], ignore_index=True)
    said = verdict(same, LABELS)
    assert said.says == "not credited"
    assert {d.value for found in said.differences.values() for d in found} == {0.0}


def test_holm_stops_at_the_first_that_fails():
    assert _holm({"a": 0.02, "b": 0.04}, 0.05) == {"a": True, "b": True}
    assert _holm({"a": 0.03, "b": 0.04}, 0.05) == {"a": False, "b": False}
    assert _holm({"a": 0.001, "b": 0.06}, 0.05) == {"a": True, "b": False}


def test_without_an_effect_credit_is_rare_and_intervals_cover_zero():
    trials, credited, covered, looked = 60, 0, 0, 0
    for seed in range(trials):
        said = verdict(predictions({"*": 0.5}, speakers=8, seed=seed, per_speaker=12), LABELS)
        credited += said.says == "credited"
        for found in said.differences.values():
            covered += sum(d.low <= 0 <= d.high for d in found)
            looked += len(found)
    assert credited <= 2  # against every rival in both parts: far below 5 %
    assert covered / looked > 0.90  # nominal .95 with 600 looks, ten of each trial dependent
