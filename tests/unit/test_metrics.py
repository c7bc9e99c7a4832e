"""Protects the metrics: they are scikit-learn's and torchmetrics' where these have them, else a plain loop's."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, log_loss, recall_score

from clepdg.evaluation import metrics


def draw(seed: int, utterances: int = 200, labels: int = 4, seeds: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(labels), rng.integers(labels, size=utterances - labels)])
    hit = rng.random((seeds, utterances)) < 0.6
    return truth, np.where(hit, truth, rng.integers(labels, size=(seeds, utterances)))


@pytest.mark.parametrize("seed", range(5))
def test_the_metrics_of_each_seed_are_scikit_learns(seed: int) -> None:
    truth, predicted = draw(seed)
    counts = metrics.confusion(truth, predicted, 4)
    uars, wars, f1s, recalls = (f(counts) for f in (metrics.uar, metrics.war, metrics.macro_f1, metrics.recalls))
    for s, labels in enumerate(predicted):
        assert (counts[s] == confusion_matrix(truth, labels)).all()
        assert uars[s] == pytest.approx(balanced_accuracy_score(truth, labels))
        assert wars[s] == pytest.approx(accuracy_score(truth, labels))
        assert f1s[s] == pytest.approx(f1_score(truth, labels, average="macro"))
        assert recalls[s] == pytest.approx(recall_score(truth, labels, average=None))


@pytest.mark.parametrize("seed", range(5))
def test_the_metrics_of_each_seed_are_torchmetrics_own(seed: int) -> None:
    import torch
    from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassRecall
    from torchmetrics.text import Perplexity

    truth, predicted = draw(seed)
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(4), size=predicted.shape)
    counts, nlls = metrics.confusion(truth, predicted, 4), metrics.nll(probabilities, truth)
    y = torch.from_numpy(truth)
    for s, labels in enumerate(torch.from_numpy(predicted)):
        assert metrics.uar(counts)[s] == pytest.approx(float(MulticlassRecall(4, average="macro")(labels, y)))
        assert metrics.war(counts)[s] == pytest.approx(float(MulticlassAccuracy(4, average="micro")(labels, y)))
        assert metrics.macro_f1(counts)[s] == pytest.approx(float(MulticlassF1Score(4, average="macro")(labels, y)))
        assert metrics.recalls(counts)[s] == pytest.approx(MulticlassRecall(4, average=None)(labels, y).numpy())
        log_odds = torch.from_numpy(np.log(probabilities[s]))[None]  # (1, U, N): perplexity is exp(NLL)
        assert nlls[s] == pytest.approx(np.log(float(Perplexity()(log_odds, y[None]))), rel=1e-5)


def test_ece_is_torchmetrics_where_bins_of_equal_mass_are_bins_of_equal_width() -> None:
    import torch
    from torchmetrics.classification import BinaryCalibrationError

    rng = np.random.default_rng(0)
    confidence = rng.permutation((np.arange(300) + 0.5) / 300)
    correct = rng.random(300) < confidence**2
    peer = BinaryCalibrationError(n_bins=metrics.ECE_BINS, norm="l1")
    expected = float(peer(torch.from_numpy(confidence), torch.from_numpy(correct).long()))
    assert metrics.ece(confidence, correct) == pytest.approx(expected, abs=1e-6)


def test_a_class_that_is_not_kept_leaves_the_class_averages_but_its_utterances_stay_errors_elsewhere() -> None:
    truth, predicted = draw(7)
    counts = metrics.confusion(truth, predicted, 4)[0]
    keep = np.array([True, False, True, True])
    kept = [0, 2, 3]
    labels = predicted[0]
    assert metrics.uar(counts, keep) == pytest.approx(recall_score(truth, labels, labels=kept, average="macro"))
    assert metrics.macro_f1(counts, keep) == pytest.approx(f1_score(truth, labels, labels=kept, average="macro"))
    assert metrics.war(counts) == pytest.approx(accuracy_score(truth, labels))


def test_a_class_without_support_does_not_enter_the_average() -> None:
    truth, predicted = np.array([0, 0, 1, 1]), np.array([[0, 2, 1, 1]])
    counts = metrics.confusion(truth, predicted, 3)
    assert np.isnan(metrics.recalls(counts)[0, 2])
    assert metrics.uar(counts)[0] == pytest.approx(0.75)
    assert metrics.macro_f1(counts)[0] == pytest.approx((2 / 3 + 1) / 2)


def test_nothing_to_evaluate_is_nan_not_zero() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    counts = metrics.confusion(nothing, np.zeros((2, 0), dtype=np.int64), 4)
    assert counts.shape == (2, 4, 4)
    for metric in (metrics.uar, metrics.war, metrics.macro_f1, metrics.largest_share):
        assert np.isnan(metric(counts)).all()
    assert np.isnan(metrics.nll(np.zeros((2, 0, 4)), nothing)).all()
    assert np.isnan(metrics.ece(np.zeros(0), np.zeros(0, dtype=bool)))


def test_largest_share_finds_a_collapse() -> None:
    counts = np.array([[0, 9, 0], [0, 10, 0], [1, 0, 0]])
    assert metrics.largest_share(counts) == pytest.approx(0.95)


def test_nll_is_scikit_learns_log_loss_also_at_probability_zero() -> None:
    rng = np.random.default_rng(0)
    truth = np.tile(np.arange(4), 10)
    probabilities = rng.dirichlet(np.ones(4), size=(3, 40))
    probabilities[0, 0] = [0.0, 0.5, 0.5, 0.0]
    expected = [log_loss(truth, p, labels=range(4)) for p in probabilities]
    assert metrics.nll(probabilities, truth) == pytest.approx(expected)


def ece_in_a_loop(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    order = np.argsort(confidence)
    total = 0.0
    for members in np.array_split(order, bins):
        total += len(members) / len(order) * abs(confidence[members].mean() - correct[members].mean())
    return total


@pytest.mark.parametrize("seed", range(3))
def test_ece_is_a_plain_loop_over_15_bins_of_equal_mass(seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.random(150)
    correct = rng.random(150) < confidence**2
    assert metrics.ece(confidence, correct) == pytest.approx(ece_in_a_loop(confidence, correct))


def test_ece_of_equal_confidences_is_the_one_gap_in_any_order() -> None:
    correct = np.array([True] * 30 + [False] * 70)
    for order in (np.arange(100), np.random.default_rng(0).permutation(100)):
        assert metrics.ece(np.full(100, 0.9), correct[order]) == pytest.approx(0.6)
