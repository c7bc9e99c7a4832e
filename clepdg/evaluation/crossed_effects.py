"""Estimate a mean over units and CLEP seeds that are both random, with its variance.

Units (speakers, or targets) and seeds are crossed: each seed's model is applied to each unit. With the mean squares of
the table (C, J), the variance of the mean is units + seeds - interaction:

    units = var(means of units) / C,  seeds = var(means of seeds) / J,  interaction = var(rest) / (C J), part of both

A bootstrap over three seeds is far too narrow, and t with Satterthwaite's freedom is somewhat so where most of the
variance is the seeds'. Each part has its own t, as in Howe's approximation (1974), and what is in both counts once,
with the larger t. The half width, never below t_units sqrt(units), is

    sqrt(t_units^2 units + t_seeds^2 seeds - min(t_units, t_seeds)^2 interaction)

By simulation (tests/unit/test_crossed_effects.py) a true null is rejected at most .06 of the time at .05, whatever the
shares. Without a second seed there is the units' part alone: the interval is conditional on that one seed.

Shapes: C units, J CLEP seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clepdg.evaluation.metrics import Floats

SMALLEST_P = 1e-12


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over units and seeds, with the parts of its variance.

    Attributes:
        by_seed: the mean of each seed (J,).
        units: variance of the mean that comes from units, interaction included; NaN where there is one unit.
        freedom: degrees of freedom of `units`.
        interaction: the interaction's part of the variance.
    """

    by_seed: Floats
    units: float
    freedom: float
    interaction: float

    @property
    def value(self) -> float:
        """The mean."""
        return float(self.by_seed.mean())

    @property
    def seeds(self) -> float:
        """Variance of the mean that comes from seeds, interaction included."""
        count = len(self.by_seed)
        return float(self.by_seed.var(ddof=1)) / count if count > 1 else 0.0

    def half_width(self, confidence: float) -> float:
        """Return half of the width of the interval; NaN where there is one unit."""
        from scipy.special import stdtrit  # t's quantile, without the checks of scipy.stats

        if not self.freedom > 0:
            return math.nan
        at = (1 + confidence) / 2
        of_units = float(stdtrit(self.freedom, at)) ** 2
        square = of_units * self.units
        if len(self.by_seed) > 1:
            of_seeds = float(stdtrit(len(self.by_seed) - 1, at)) ** 2
            square += max(0.0, of_seeds * self.seeds - min(of_units, of_seeds) * self.interaction)
        return math.sqrt(square)

    def interval(self, confidence: float, low: float = -1.0, high: float = 1.0) -> tuple[float, float]:
        """Return the interval, cut at the lowest and highest possible value."""
        half = self.half_width(confidence)
        bounds = np.clip([self.value - half, self.value + half], low, high)  # NaN stays NaN
        return float(bounds[0]), float(bounds[1])

    def p(self) -> float:
        """Return the two-sided p of a mean of 0: where the interval touches 0."""
        from scipy.optimize import brentq

        if math.isnan(self.half_width(0.5)):
            return math.nan
        if abs(self.value) < SMALLEST_P:
            return 1.0
        if self.half_width(1 - SMALLEST_P) <= abs(self.value):
            return 0.0
        return float(brentq(lambda p: self.half_width(1 - p) - abs(self.value), SMALLEST_P, 1.0))


def crossed(table: Floats, by_seed: Floats, freedom: float) -> Mean:
    """Estimate a mean from values of units by seeds.

    Args:
        table: (C, J): targets' figures, or speakers' jackknife pseudo-values.
        by_seed: the mean of each seed (J,), around which the table varies.
        freedom: degrees of freedom of the units.
    """
    count, seeds = table.shape
    value, of_units = by_seed.mean(), table.mean(axis=1)
    if count < 2:
        return Mean(by_seed=by_seed, units=math.nan, freedom=0.0, interaction=math.nan)
    units = float(np.square(of_units - value).sum()) / (count - 1) / count
    rest = table - of_units[:, None] - by_seed + value
    interaction = float(np.square(rest).sum()) / max((count - 1) * (seeds - 1), 1) / (count * seeds)
    return Mean(by_seed=by_seed, units=units, freedom=freedom, interaction=interaction)


def over_targets(means: Sequence[Mean]) -> Mean:
    """Return the mean over targets that are a sample of all corpora.

    Targets are the units: how many speakers one has is in the variance between them.
    """
    table = _by_target(means)
    return crossed(table, table.mean(axis=0), len(table) - 1)


def of_these_targets(means: Sequence[Mean]) -> Mean:
    """Return the mean over targets that are fixed: speakers and seeds vary.

    Its freedom is Welch's; NaN where a target has one speaker.
    """
    units = np.array([mean.units for mean in means])
    freedoms = np.array([mean.freedom for mean in means])
    known = bool((freedoms > 0).all())
    spread = float((units**2 / freedoms).sum()) if known else 0.0
    return Mean(
        by_seed=_by_target(means).mean(axis=0),
        units=float(units.sum()) / len(means) ** 2,
        freedom=(float(units.sum()) ** 2 / spread if spread else float(freedoms.sum())) if known else 0.0,
        interaction=float(sum(mean.interaction for mean in means)) / len(means) ** 2,
    )


def _by_target(means: Sequence[Mean]) -> Floats:
    """Return the figures (targets, J); a target without seeds has one for all."""
    return np.stack(np.broadcast_arrays(*(mean.by_seed for mean in means)))
