"""Protects automatic champions: only a difference over speakers that lies wholly above 0 counts."""

import numpy as np
import pandas as pd
import pytest

from clepdg.config.schema import EvaluateConfig
from clepdg.evaluation.intervals import BOOTSTRAP, JACKKNIFE, UTTERANCES, Interval
from clepdg.store.opening import open_store
from clepdg.store.record import Record
from clepdg_tasks.tracking.paired_differences import is_improvement, paired_difference, paired_differences

LABELS = ("angry", "happy", "neutral", "sad")


def difference(low, high, method):
    return Interval(value=(low + high) / 2, low=low, high=high, method=method)


@pytest.mark.parametrize(
    ("low", "high", "method", "expected"),
    [
        (0.01, 0.1, BOOTSTRAP, True),
        (0.01, 0.1, JACKKNIFE, True),
        (0.01, 0.1, UTTERANCES, False),
        (-0.01, 0.1, BOOTSTRAP, False),
        (-0.2, -0.1, BOOTSTRAP, False),
    ],
)
def test_only_an_interval_over_speakers_above_zero_is_an_improvement(low, high, method, expected):
    assert is_improvement(difference(low, high, method)) is expected


def test_a_difference_on_another_test_set_is_no_improvement():
    assert not is_improvement("not on the same test utterances")


@pytest.fixture
def store(tmp_path):
    """A store with three evaluations of 30 speakers: one always right, the others in half of the cases."""
    opened = open_store(str(tmp_path))
    rng = np.random.default_rng(0)
    truth = np.array([LABELS[n % 4] for n in range(240)])
    for key, share in (("good", 1.0), ("half", 0.5), ("older", 0.5)):
        right = rng.random(240) < share
        predictions = pd.DataFrame(
            {
                "utterance_id": [f"c/{n:03d}" for n in range(240)],
                "corpus": "c",
                "speaker": [f"c/{n % 30}" for n in range(240)],
                "split": "test",
                "fold": "supervised",
                "row": "text-acpt",
                "seed": "c0.l0",
                "condition": "clean",
                "true": truth,
                "predicted": np.where(right, truth, rng.choice(LABELS, 240)),
                **{f"p_{label}": 0.25 for label in LABELS},
            }
        )
        if key == "older":
            predictions = predictions.rename(columns={"true": "emotion"})
        with opened.lock("evaluate", key):
            predictions.to_parquet(opened.partial("evaluate", key) / "predictions.parquet")
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
    return opened


def tags(key, digest="d"):
    return {"row": "text-acpt", "seed": "c0.l0", "test_digest": digest, "evaluate_key": key}


def test_the_difference_is_paired_and_signed(store):
    found = paired_difference(store, tags("good"), tags("half"))
    assert found.method == BOOTSTRAP
    assert 0.2 < found.low < found.value < found.high < 0.6
    assert is_improvement(found)
    reverse = paired_difference(store, tags("half"), tags("good"))
    assert reverse.value == pytest.approx(-found.value)
    assert not is_improvement(reverse)


def test_all_metrics_share_the_resamples(store):
    found = paired_differences(store, tags("good"), tags("half"), ("UAR", "WAR", "macro-F1"))
    assert found["UAR"] == paired_difference(store, tags("good"), tags("half"))
    assert found["WAR"].value == pytest.approx(found["UAR"].value)  # classes of equal size
    assert found["macro-F1"].value != found["UAR"].value
    assert all(value.low > 0 for value in found.values())


def test_what_can_not_be_compared_says_why(store):
    assert paired_difference(store, tags("good", "x"), tags("half")) == "not on the same test utterances"
    unknown = {name: value for name, value in tags("half").items() if name != "test_digest"}
    assert paired_difference(store, unknown, tags("half")) == "not evaluated yet"
    assert "not in the store" in paired_difference(store, tags("good"), tags("gone"))


def test_predictions_of_an_older_version_are_no_error(store):
    assert "older version" in paired_difference(store, tags("good"), tags("older"))
