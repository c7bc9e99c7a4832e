"""Protects the intervals: what they are over, and coverage near what they say."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from clepdg.config.conditions import CLEAN
from clepdg.evaluation.intervals import CLUSTERS, SPEAKERS, UTTERANCES, Interval, count, effective, interval, paired
from clepdg.evaluation.predictions import Predictions

LABELS = 3
ALL = np.ones(LABELS, dtype=bool)
MELD_LIKE = (*[60] * 6, *[2] * 60)  # six leads speak most


def rows(
    sizes: Sequence[int],
    seed: int,
    *,
    cleps: int = 1,
    later: int = 1,
    seed_sd: float = 0.0,
    floor: bool = False,
    mean: float = 0.6,
) -> tuple[Predictions, Predictions]:
    """Two rows with the same true UAR: speakers (utterances of each label), their differences, and CLEPs have effects.

    Args:
        floor: the second row has no seeds.
    """
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(len(sizes)), np.multiply(sizes, LABELS))
    truth = np.concatenate([np.tile(np.arange(LABELS), size) for size in sizes])
    skill, found = rng.normal(0, 0.1, (len(sizes), 1)), []
    for count_of_seeds in (cleps, 1 if floor else cleps):
        seedless = floor and bool(found)
        effect = np.zeros(1) if seedless else rng.normal(0, seed_sd, count_of_seeds)
        cross = rng.normal(0, 0.03, (len(sizes), count_of_seeds))
        rate = mean + skill + rng.normal(0, 0.05, (len(sizes), 1)) + cross + effect
        rate = np.repeat(rate.T[:, clusters], 1 if seedless else later, axis=0)
        wrong = (truth + rng.integers(1, LABELS, rate.shape)) % LABELS
        predicted = np.where(rng.random(rate.shape) < rate, truth, wrong)
        names = ["-"] if seedless else [f"c{clep}" for clep in range(cleps) for _ in range(later)]
        found.append(
            Predictions(
                truth=truth,
                predicted=predicted,
                probabilities=np.empty((0, 0, LABELS)),
                speakers=clusters,
                clusters=clusters,
                cleps=tuple(names),
                test=np.ones(truth.size, dtype=bool),
            )
        )
    return found[0], found[1]


def changed(predictions: Predictions, **parts: object) -> Predictions:
    return Predictions(**{**vars(predictions), **parts})


def find(predictions: Predictions, confidence: float = 0.95) -> Interval:
    return interval({CLEAN: predictions}, ALL, confidence=confidence)


def difference(one: Predictions, other: Predictions, confidence: float = 0.95, metric: str = "UAR") -> Interval:
    return paired({CLEAN: one}, {CLEAN: other}, ALL, confidence=confidence, metric=metric)


@pytest.mark.parametrize(
    ("sizes", "method"),
    [
        ((8, 8), UTTERANCES),
        ((8,) * 5, UTTERANCES),
        ((8,) * 6, SPEAKERS),
        ((8,) * 24, SPEAKERS),
        ((40, 40, *[1] * 20), UTTERANCES),  # 22 speakers, effectively 3.1
        (MELD_LIKE, SPEAKERS),
    ],
)
def test_the_effective_number_of_speakers_decides_the_method(sizes: Sequence[int], method: str) -> None:
    one, _ = rows(sizes, seed=0)
    found = find(one)
    assert found.method == method
    assert found.low < found.value < found.high


def test_the_effective_number_is_that_of_equal_speakers_of_the_same_spread() -> None:
    one, _ = rows(MELD_LIKE, seed=0)
    n = np.array(MELD_LIKE)
    assert effective(count({CLEAN: one}), ALL) == pytest.approx(n.sum() ** 2 / (n**2).sum())
    assert effective(count({CLEAN: rows((5,) * 7, seed=0)[0]}), ALL) == pytest.approx(7)


def test_clusters_wider_than_speakers_are_called_so() -> None:
    one, _ = rows((4,) * 24, seed=0)
    wider = changed(one, clusters=one.speakers // 2)
    assert find(wider).method == CLUSTERS
    assert find(changed(one, speakers=one.speakers, clusters=one.speakers)).method == SPEAKERS


def test_of_a_balanced_mean_it_is_the_t_interval_of_the_speakers_means() -> None:
    # With equally many utterances of every class from every speaker, UAR is the plain mean of the speakers' UARs.
    from scipy.stats import t

    one, _ = rows((8,) * 8, seed=2)
    of_speaker = [(one.predicted[0] == one.truth)[one.clusters == speaker].mean() for speaker in range(8)]
    expected = t.interval(0.95, 7, loc=np.mean(of_speaker), scale=np.std(of_speaker, ddof=1) / np.sqrt(8))
    assert (find(one).low, find(one).high) == pytest.approx(expected)


def test_seeds_below_one_clep_are_averaged_and_cleps_are_the_unit() -> None:
    one, _ = rows((8,) * 10, seed=3, cleps=3, later=5, seed_sd=0.1)
    found = find(one)
    assert found.cleps == 3
    scores = [balanced_accuracy_score(one.truth, predicted) for predicted in one.predicted]
    assert found.value == pytest.approx(np.mean(scores))
    by_clep = np.reshape(scores, (3, 5)).mean(axis=1)
    seeds = 4.303 * by_clep.std(ddof=1) / np.sqrt(3)  # t of 2 degrees of freedom
    assert found.high - found.low > 2 * 0.9 * seeds
    as_one = find(changed(one, cleps=("c0",) * 15))
    assert as_one.cleps == 1 and as_one.high - as_one.low < 0.8 * (found.high - found.low)


def test_a_class_of_one_speaker_can_not_be_jackknifed() -> None:
    one, _ = rows((8,) * 8, seed=3)
    truth = np.where((one.truth == 2) & (one.clusters != 0), 1, one.truth)
    assert find(changed(one, truth=truth)).method == UTTERANCES


def test_a_kept_class_without_utterances_is_refused() -> None:
    one, _ = rows((8,) * 24, seed=3)
    with pytest.raises(ValueError, match="needs two utterances"):
        find(changed(one, truth=np.minimum(one.truth, 1)))


@pytest.mark.parametrize("sizes", [(8,) * 4, (8,) * 12, (8,) * 30])
def test_a_difference_is_taken_on_the_same_utterances(sizes: Sequence[int]) -> None:
    one, _ = rows(sizes, seed=4, later=2)
    same = difference(one, one)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    # A rival that errs on the same utterances and a few more: the difference is known far better than either UAR.
    rival = one.predicted.copy()
    rival[:, ::10] = (one.truth[::10] + 1) % LABELS
    found, alone = difference(one, changed(one, predicted=rival)), find(one)
    assert found.value > 0 and found.method == alone.method
    assert found.high - found.low < alone.high - alone.low


def test_swapping_the_rows_of_a_difference_mirrors_its_interval() -> None:
    one, other = rows((8,) * 25, seed=5, cleps=3)
    a, b = difference(one, other), difference(other, one)
    assert (a.low, a.value, a.high) == pytest.approx((-b.high, -b.value, -b.low))


def test_rows_of_other_cleps_can_not_be_paired_and_a_row_without_seeds_can() -> None:
    one, other = rows((8,) * 8, seed=6, cleps=3)
    with pytest.raises(ValueError, match="different CLEP seeds"):
        difference(one, changed(other, cleps=("c0", "c1", "c5")))
    one, floor = rows((8,) * 8, seed=6, cleps=3, floor=True)
    assert difference(one, floor).cleps == 3


@pytest.mark.parametrize(
    ("metric", "oracle"),
    [
        ("UAR", balanced_accuracy_score),
        ("WAR", accuracy_score),
        ("macro-F1", lambda truth, predicted: f1_score(truth, predicted, average="macro")),
    ],
)
def test_a_difference_of_any_metric_equals_a_plain_jackknife(metric: str, oracle: Callable[..., float]) -> None:
    from scipy.stats import t

    one, other = rows((2,) * 22, seed=7)
    truth = one.truth.copy()
    truth[: 2 * LABELS] = 0  # unequal classes: the metrics differ
    one, other = changed(one, truth=truth), changed(other, truth=truth)
    found = difference(one, other, 0.9, metric)

    def value(where: np.ndarray) -> float:
        return oracle(truth[where], one.predicted[0, where]) - oracle(truth[where], other.predicted[0, where])

    whole = value(np.ones(truth.size, dtype=bool))
    without = np.array([value(one.clusters != speaker) for speaker in range(22)])
    half = t.ppf(0.95, 21) * np.sqrt(np.square(21 * (whole - without)).sum() / 21 / 22)
    assert found.method == SPEAKERS and found.value == pytest.approx(whole)
    assert (found.low, found.high) == pytest.approx((whole - half, whole + half))


def test_of_several_conditions_it_is_the_mean_over_families() -> None:
    heard = {name: rows((8,) * 10, seed)[0] for seed, name in enumerate(("white-0dB", "pink-0dB", "telephone"))}
    scores = {name: balanced_accuracy_score(own.truth, own.predicted[0]) for name, own in heard.items()}
    expected = (scores["white-0dB"] + scores["pink-0dB"]) / 4 + scores["telephone"] / 2
    found = interval(heard, ALL, confidence=0.95)
    assert found.value == pytest.approx(expected)
    assert paired(heard, {name: heard["telephone"] for name in heard}, ALL, confidence=0.95).value == pytest.approx(
        expected - scores["telephone"]
    )


DATA_SETS = 1000


def share(found: Sequence[bool]) -> tuple[float, float]:
    """Return the exact 99.9 % binomial interval of a share."""
    bounds = binomtest(sum(found), len(found)).proportion_ci(0.999)
    return float(bounds.low), float(bounds.high)


@pytest.mark.parametrize("cleps", [3, 5])
@pytest.mark.parametrize("seed_sd", [0, 0.01, 0.02, 0.03])
@pytest.mark.parametrize(
    ("sizes", "floor"), [((8,) * 24, False), ((8,) * 24, True), ((4,) * 60, False), (MELD_LIKE, True)]
)
def test_a_true_null_is_rejected_at_most_six_times_in_a_hundred_and_a_uar_is_covered(
    sizes: Sequence[int], floor: bool, seed_sd: float, cleps: int
) -> None:
    rejected, covered = [], []
    for seed in range(DATA_SETS):
        one, other = rows(sizes, seed, cleps=cleps, seed_sd=seed_sd, floor=floor)
        found, alone = difference(one, other), find(one)
        rejected.append(not found.low <= 0 <= found.high)
        covered.append(alone.low <= 0.6 <= alone.high)
    assert share(rejected)[0] <= 0.06
    assert share(covered)[1] >= 0.95


@pytest.mark.parametrize("speakers", [8, 24])
def test_an_interval_of_one_clep_covers_what_it_says(speakers: int) -> None:
    found = [find(rows((8,) * speakers, seed)[0]) for seed in range(DATA_SETS)]
    low, high = share([each.low <= 0.6 <= each.high for each in found])
    assert low <= 0.95 <= high


def test_the_interval_that_ignores_speakers_covers_far_less_than_it_says() -> None:
    found = [find(rows((8,) * 4, seed)[0]) for seed in range(300)]
    assert share([each.low <= 0.6 <= each.high for each in found])[1] < 0.9


def test_an_interval_of_one_clep_misses_what_seeds_do_and_that_is_why_it_is_marked() -> None:
    pairs = (rows((8,) * 24, seed, cleps=1, seed_sd=0.03) for seed in range(300))
    found = [difference(one, other) for one, other in pairs]
    assert share([not each.low <= 0 <= each.high for each in found])[0] > 0.06
