"""Protects automatic champions: a difference over speakers that lies above 0 counts, on validation utterances alone."""

from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from clepdg.config.schema import EvaluateConfig
from clepdg.evaluation.intervals import CLUSTERS, SPEAKERS, UTTERANCES, Interval
from clepdg.evaluation.metrics import uar_weights
from clepdg.store.opening import open_store
from clepdg.store.record import Record
from clepdg_tasks.tracking.champion import _challenge
from clepdg_tasks.tracking.paired_differences import is_improvement, paired_differences, validation_difference

LABELS = ("angry", "happy", "neutral", "sad")


def difference(low, high, method):
    return Interval(value=(low + high) / 2, low=low, high=high, method=method)


@pytest.mark.parametrize(
    ("low", "high", "method", "expected"),
    [
        (0.01, 0.1, SPEAKERS, True),
        (0.01, 0.1, CLUSTERS, True),
        (0.01, 0.1, UTTERANCES, False),
        (-0.01, 0.1, SPEAKERS, False),
        (-0.2, -0.1, SPEAKERS, False),
    ],
)
def test_only_an_interval_over_speakers_above_zero_is_an_improvement(low, high, method, expected):
    assert is_improvement(difference(low, high, method)) is expected


def test_no_difference_is_no_improvement():
    assert not is_improvement("not on the same validation utterances")


def evaluated(opened, key, predictions, validation):
    """Store an evaluation with predictions of a test and a validation part."""
    with opened.lock("evaluate", key):
        predictions.to_parquet(opened.partial("evaluate", key) / "predictions.parquet")
        validation.to_parquet(opened.partial("evaluate", key) / "validation.parquet")
        opened.commit(
            Record(
                stage="evaluate",
                name="supervised",
                key=key,
                version=1,
                config={"label_set": "4", "evaluate": EvaluateConfig().__dict__},
                inputs={},
                digests={"content": key},
                figures={},
                files={},
                seconds=0.0,
            )
        )


def part(right, split, speakers=30, corpora=("c",)):
    """Return predictions of utterances (U,) of corpora in turn, where they are right; else they name another label."""
    count, truth = len(right), np.array([LABELS[n // len(corpora) % 4] for n in range(len(right))])
    wrong = np.array([LABELS[(LABELS.index(label) + 1) % 4] for label in truth])
    corpus = [corpora[n % len(corpora)] for n in range(count)]
    return pd.DataFrame(
        {
            "utterance_id": [f"{corpus[n]}/{n:03d}" for n in range(count)],
            "corpus": corpus,
            "speaker": [f"{corpus[n]}/{n // 8 % speakers}" for n in range(count)],
            "split": split,
            "fold": "supervised",
            "row": "text-acpt",
            "seed": "c0.l0",
            "condition": "clean",
            "true": truth,
            "predicted": np.where(right, truth, wrong),
            **{f"p_{label}": 0.25 for label in LABELS},
        }
    )


@pytest.fixture
def store(tmp_path):
    """Evaluations of 30 speakers, in which one of the parts, both or none are all right; else half of it is."""
    opened = open_store(str(tmp_path))
    rng = np.random.default_rng(0)
    for key, test, validation in (("good", 1, 1), ("half", 0.5, 0.5), ("lucky", 1, 0.5), ("older", 0.5, 0.5)):
        predictions = part(rng.random(240) < test, "test")
        if key == "older":
            predictions = predictions.rename(columns={"true": "emotion"})
        evaluated(opened, key, predictions, part(rng.random(240) < validation, "validation"))
    return opened


def tags(key, digest="d", **more):
    both = {"test_digest": digest, "validation_digest": digest}
    return {"row": "text-acpt", "seed": "c0.l0", "evaluate_key": key, **both, **more}


def test_the_difference_is_paired_and_signed(store):
    found, reverse = (paired_differences(store, *pair, ("UAR",))["UAR"] for pair in pairs("good", "half"))
    assert found.method == SPEAKERS
    assert 0.3 < found.low < found.value < found.high < 0.7
    assert reverse.value == pytest.approx(-found.value)


def pairs(one, other):
    return [(tags(one), tags(other)), (tags(other), tags(one))]


def test_a_champion_is_better_on_validation_whatever_the_test_part_says(store):
    found, reverse = (validation_difference(store, *pair) for pair in pairs("good", "half"))
    assert found.method == SPEAKERS
    assert 0.3 < found.low < found.value < found.high < 0.7
    assert is_improvement(found) and not is_improvement(reverse)
    assert reverse.value == pytest.approx(-found.value)
    assert paired_differences(store, tags("lucky"), tags("half"), ("UAR",))["UAR"].low > 0.3
    assert not is_improvement(validation_difference(store, tags("lucky"), tags("half")))


def test_corpora_weigh_the_same_on_validation(tmp_path):
    """Of a's 200 utterances one half is right, of b's 40 all are: the mean over corpora is .75, not .58."""
    opened = open_store(str(tmp_path))
    large = part(np.arange(200) % 8 < 4, "validation", 25, ("a",))
    small, wrong = (part(np.full(40, right), "validation", 5, ("b",)) for right in (True, False))
    for key, own in (("new", small), ("old", wrong)):
        evaluated(opened, key, part(np.ones(8, bool), "test"), pd.concat([large, own]))
    found = validation_difference(opened, tags("new"), tags("old"))
    assert found.value == pytest.approx(0.5)
    predictions = pd.concat([large, small])
    right = (predictions.true == predictions.predicted).to_numpy()
    assert uar_weights(predictions.corpus.to_numpy(), predictions.true.to_numpy()) @ right == pytest.approx(0.75)


def test_few_speakers_are_no_reason_for_another_champion(tmp_path):
    opened = open_store(str(tmp_path))
    for key, right in (("new", True), ("old", False)):
        evaluated(opened, key, part(np.ones(8, bool), "test"), part(np.full(80, right), "validation", 4))
    found = validation_difference(opened, tags("new"), tags("old"))
    assert (found.method, found.value) == (UTTERANCES, 1.0)
    assert not is_improvement(found)


@pytest.mark.parametrize(
    ("new", "old", "champion"),
    [
        (tags("good"), tags("half"), "2"),
        (tags("lucky"), tags("half"), "1"),
        (tags("half"), tags("good"), "1"),
        (tags("good", "x"), tags("half"), "1"),
        (tags("good"), {name: value for name, value in tags("half").items() if name != "validation_digest"}, "1"),
    ],
    ids=["better", "better on the test part alone", "worse", "other utterances", "the champion is an older one"],
)
def test_a_new_version_challenges_the_champion(store, caplog, new, old, champion):
    client, versions, aliases = Mock(), {"1": old, "2": new}, {"champion": "1"}
    client.get_registered_model.return_value.aliases = aliases
    client.get_model_version.side_effect = lambda name, number: Mock(tags=versions[number])
    client.set_registered_model_alias.side_effect = lambda name, alias, number: aliases.update({alias: number})
    _challenge(client, store, "m", 2)
    assert aliases["champion"] == champion
    reason = validation_difference(store, new, old)
    assert ("Version 2 is not compared with the champion, version 1" in caplog.text) == isinstance(reason, str)


def test_what_can_not_be_compared_says_why(store):
    for part, difference in (
        ("test", lambda *pair: paired_differences(store, *pair, ("UAR",))),
        ("validation", lambda *pair: validation_difference(store, *pair)),
    ):
        assert difference(tags("good", "x"), tags("half")) == f"not on the same {part} utterances"
        assert difference({"row": "text-acpt", "seed": "c0.l0"}, tags("half")) == "not evaluated yet"
        assert "not in the store" in difference(tags("good"), tags("gone"))
        assert difference(tags("good"), tags("half", seed="c9.l9")) == (
            f"its predictions are not of the same {part} utterances"
        )
    older = {name: value for name, value in tags("half").items() if name != "validation_digest"}
    assert "promoted by hand" in validation_difference(store, tags("good"), older)


def test_predictions_of_an_older_version_are_no_error(store):
    assert "older version" in paired_differences(store, tags("good"), tags("older"), ("UAR",))


def test_all_metrics_are_of_the_same_utterances(store):
    found = paired_differences(store, tags("good"), tags("half"), ("UAR", "WAR", "macro-F1"))
    assert found["WAR"].value == pytest.approx(found["UAR"].value)  # classes of equal size
    assert found["macro-F1"].value != found["UAR"].value
    assert all(value.low > 0 for value in found.values())
