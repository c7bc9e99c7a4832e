"""Protects the credit rule: what it credits, what it does not, and what it refuses to decide."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind
from sklearn.metrics import balanced_accuracy_score

from clepdg.evaluation import credit
from clepdg.evaluation.credit import CLEAN_WORDS, CORRUPTED_WORDS, RIVALS, _holm
from clepdg.evaluation.metrics import confusion, uar
from clepdg.evaluation.predictions import probability_columns

LABELS = ("angry", "happy", "neutral", "sad")
SWEEP = ("white-0dB", "hum-5dB")


def predictions(accuracy, speakers=10, targets=2, conditions=("clean", *SWEEP), seed=0, per_speaker=24, spread=0.1):
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


def verdict(table, labels=LABELS, corpora=("t0", "t1"), sweep=SWEEP):
    return credit.verdict(table, labels, corpora, sweep=sweep)


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


def test_intervals_and_p_are_those_of_welchs_test_on_pseudo_values():
    """The mean of two targets is half of what Welch's test of the first's values and minus the second's looks at."""
    seeds = []
    for seed in range(2):
        many = predictions({"*": 0.5, "text-acpt": 0.54}, speakers=11, seed=seed, spread=0.05)
        few = predictions({"*": 0.5, "text-acpt": 0.54}, speakers=6, seed=seed + 5, spread=0.3)
        both = pd.concat([many[many.corpus == "t0"], few[few.corpus == "t1"]])
        seeds.append(both.assign(seed=f"c0.l{seed}"))
    table = pd.concat(seeds, ignore_index=True)
    said = verdict(table)
    for words, conditions in ((CLEAN_WORDS, ["clean"]), (CORRUPTED_WORDS, list(SWEEP))):
        (found,) = (difference for difference in said.differences[words] if difference.rival == "text-random")
        first, second = (pseudo_values(own, "text-random", conditions) for _, own in table.groupby("fold"))
        welch = ttest_ind(first, np.negative(second), equal_var=False)
        low, high = welch.confidence_interval(0.95)
        assert (found.low, found.high, found.p) == pytest.approx((low / 2, high / 2, welch.pvalue))


def test_what_is_not_of_the_test_part_has_no_part_in_the_rule():
    clear, rest = predictions({"*": 0.5, "text-acpt": 0.75}), predictions({"*": 0.9, "text-acpt": 0.1}, seed=1)
    for split in ("train", "validation"):
        rest["split"] = split
        for name in ("utterance_id", "speaker"):
            rest[name] = split + "-" + rest[name]
        assert verdict(pd.concat([clear, rest])) == verdict(clear)


def test_too_few_speakers_are_not_decidable_and_no_interval_is_given():
    said = verdict(predictions({"*": 0.5, "text-acpt": 0.9}, speakers=5), LABELS)
    assert said.says == "not decidable" and "leave-out-t1 has 5 of the 6 speakers" in said.why
    assert all(d.low is None and d.p is None for found in said.differences.values() for d in found)
    assert "not tested" in said.parts()[CLEAN_WORDS]


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
    more = verdict(clear, corpora=("t0", "t1", "t2"))
    assert (more.says, more.why) == ("not decidable", "t2 was not left out")


def test_conditions_beside_the_sweep_change_nothing():
    clear = predictions({"*": 0.5, "text-acpt": 0.75})
    own = clear[clear.condition == "white-0dB"].assign(condition="own-10dB", predicted="angry")
    assert verdict(pd.concat([clear, own])) == verdict(clear)


def test_a_target_of_few_speakers_has_no_part_in_the_average_and_is_named():
    clear = predictions({"*": 0.5, "text-acpt": 0.75})
    few = predictions({"*": 0.9, "text-acpt": 0.1}, speakers=2, targets=1, seed=1)
    for name in ("utterance_id", "corpus", "speaker", "fold"):
        few[name] = few[name].str.replace("t0", "t2")
    both = verdict(pd.concat([clear, few]), corpora=("t0", "t1", "t2"))
    assert (both.says, both.differences) == ("credited", verdict(clear).differences)
    assert "over 2 of 3 targets: leave-out-t2 has 2 of the 6 speakers" in both.why
    one = verdict(pd.concat([clear[clear.corpus == "t0"], few]), corpora=("t0", "t2"))
    assert one.says == "not decidable"


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


def test_a_class_of_one_speaker_is_not_decidable():
    table = predictions({"*": 0.5})
    only = (table.true != "sad") | (table.speaker == "t0/0") | (table.corpus == "t1")
    assert "one speaker of sad" in verdict(table[only], LABELS).why


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
