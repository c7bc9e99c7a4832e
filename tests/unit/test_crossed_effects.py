"""Protects means over units and seeds: their variance, and that a true null is rejected as seldom as is said."""

import numpy as np
import pytest
from scipy.stats import binomtest, t, ttest_1samp

from clepdg.evaluation.crossed_effects import Mean, crossed, of_these_targets, over_targets

DATA_SETS = 1000


def test_of_one_seed_it_is_the_t_interval_of_the_units() -> None:
    table = np.random.default_rng(0).normal(0.1, 0.2, (9, 1))
    mean, oracle = crossed(table, table.mean(axis=0), 8), ttest_1samp(table[:, 0], 0)
    assert mean.interval(0.9) == pytest.approx(tuple(oracle.confidence_interval(0.9)))
    assert mean.p() == pytest.approx(oracle.pvalue)


def test_its_parts_are_the_mean_squares_of_a_two_way_analysis_of_variance() -> None:
    table = np.random.default_rng(1).normal(size=(7, 3))
    mean = crossed(table, table.mean(axis=0), 6)
    rows, columns, all_ = table.mean(axis=1), table.mean(axis=0), table.mean()
    rest = sum((table[i, j] - rows[i] - columns[j] + all_) ** 2 for i in range(7) for j in range(3)) / (6 * 2)
    assert mean.units == pytest.approx(3 * rows.var(ddof=1) / 21)
    assert mean.seeds == pytest.approx(7 * columns.var(ddof=1) / 21)
    assert mean.interaction == pytest.approx(rest / 21)


def test_where_seeds_are_all_that_varies_it_is_the_t_interval_of_the_seeds() -> None:
    by_seed = np.array([0.02, 0.05, 0.11])
    mean = crossed(np.broadcast_to(by_seed, (40, 3)), by_seed, 39)
    assert mean.interval(0.95) == pytest.approx(tuple(ttest_1samp(by_seed, 0).confidence_interval(0.95)))


def test_p_is_where_the_interval_touches_zero() -> None:
    rng = np.random.default_rng(2)
    table = rng.normal(0.05, 0.1, (12, 3)) + rng.normal(0, 0.02, 3)
    mean = crossed(table, table.mean(axis=0), 11)
    low, _ = mean.interval(1 - mean.p())
    assert 0.001 < mean.p() < 0.9 and low == pytest.approx(0, abs=1e-9)


def test_nothing_that_varies_has_no_width_and_one_unit_no_interval() -> None:
    assert crossed(np.zeros((8, 3)), np.zeros(3), 7).p() == 1.0
    assert crossed(np.full((8, 3), 0.1), np.full(3, 0.1), 7).p() == 0.0
    assert np.isnan(crossed(np.zeros((1, 3)), np.zeros(3), 0).interval(0.95)).all()
    assert np.isnan(crossed(np.zeros((1, 3)), np.zeros(3), 0).p())


def test_an_interval_is_cut_at_what_is_possible() -> None:
    table = np.array([[0.9], [1.0], [0.2]])
    assert crossed(table, table.mean(axis=0), 2).interval(0.95, low=0.0) == (0.0, 1.0)


def test_fixed_targets_have_welchs_freedom() -> None:
    rng = np.random.default_rng(3)
    tables = [rng.normal(0.1, spread, (count, 1)) for count, spread in ((6, 0.3), (11, 0.05))]
    found = of_these_targets([crossed(table, table.mean(axis=0), len(table) - 1) for table in tables])
    variances = np.array([table.var(ddof=1) / len(table) for table in tables])
    freedom = variances.sum() ** 2 / (variances**2 / [5, 10]).sum()
    half = t.ppf(0.975, freedom) * np.sqrt(variances.sum()) / 2
    value = np.mean([table.mean() for table in tables])
    assert found.interval(0.95) == pytest.approx((value - half, value + half))


def test_targets_without_a_second_speaker_count_in_the_sample_of_targets_alone() -> None:
    values = np.array([0.1, 0.2, 0.4, 0.3])
    means = [Mean(by_seed=np.array([value]), units=0.0, freedom=0.0, interaction=0.0) for value in values]
    oracle = ttest_1samp(values, 0).confidence_interval(0.95)
    assert over_targets(means).interval(0.95) == pytest.approx(tuple(oracle))
    assert np.isnan(of_these_targets(means).interval(0.95)).all()


def rejected(count: int, seeds: int, seed_sd: float, cross: float = 0.05) -> float:
    """Return the lower end of the exact 99.9 % interval of how often a true null is rejected at .05."""
    rng = np.random.default_rng([count, seeds, int(1000 * seed_sd)])
    shape = (DATA_SETS, count, seeds)
    tables = rng.normal(0, 0.06, (DATA_SETS, count, 1)) + rng.normal(0, seed_sd, (DATA_SETS, 1, seeds))
    tables = tables + rng.normal(0, cross, shape)
    halves = [crossed(table, table.mean(axis=0), count - 1).half_width(0.95) for table in tables]
    found = int((np.abs(tables.mean(axis=(1, 2))) > halves).sum())
    return float(binomtest(found, DATA_SETS).proportion_ci(0.999).low)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("count", [3, 10, 91])
@pytest.mark.parametrize("seed_sd", [0, 0.01, 0.02, 0.03])
def test_a_true_null_is_rejected_at_most_six_times_in_a_hundred(count: int, seeds: int, seed_sd: float) -> None:
    assert rejected(count, seeds, seed_sd) <= 0.06
