"""Many means on the same units at once: intervals that hold together, the best of them, and a picked winner's score.

All of it goes by what each unit (a test example, or a cluster of them) adds to each mean. The joint distribution of
these means is that of a Gaussian multiplier bootstrap (Chernozhukov, Chetverikov and Kato 2013): normal with the
covariance of the units' shares, which is drawn from directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.stats.components import seed_means
from harness.stats.distributions import normal_above, normal_quantile, student_above, student_quantile
from harness.stats.interval import LEVEL

DRAWS = 10_000
"""Draws of the largest of several studentised means: its 95 % quantile is then within about .03."""

FEWEST_UNITS = 30
"""The means of fewer units are not normal enough to decide anything."""

_BLOCK = 2_000

_CACHED = 2**16
"""Numbers that a processor has at hand while it goes over them several times."""


@dataclass(frozen=True)
class UnitMeans:
    """Means [V] of V scores over the same units, each the mean over seeds of these models' means."""

    values: np.ndarray
    shares: np.ndarray
    """[V, U]: what each unit adds to the mean beyond its part, summing to 0; their squares sum to its variance."""

    @property
    def units(self) -> int:
        return self.shares.shape[1]

    @cached_property
    def standard_errors(self) -> np.ndarray:
        """[V]"""
        return np.sqrt((self.shares**2).sum(axis=1))

    def minus(self, other: int) -> UnitMeans:
        """The differences from one of them, unit by unit."""
        return UnitMeans(self.values - self.values[other], self.shares - self.shares[other])

    def of(self, chosen: Sequence[int] | np.ndarray) -> UnitMeans:
        """Some of them, in this order."""
        return UnitMeans(self.values[chosen], self.shares[chosen])


def unit_means(tables: Sequence[np.ndarray]) -> UnitMeans:
    """The means of tables [seeds, units]; NaN, the same in all of them, where a seed has no such unit.

    Raises:
        ValueError: for no tables, tables of other shapes or gaps, values that are not finite, or one unit.
    """
    first = np.asarray(tables[0], np.float64)
    if first.ndim != 2 or first.shape[1] < 2:
        raise ValueError(f"values have shape {first.shape}, expected [seeds, units] with two units or more")
    known = ~np.isnan(first)
    if not known.any(axis=1).all():
        raise ValueError("a seed has no units")
    weights = 1 / (len(first) * known.sum(axis=1))[:, None]
    units = int(known.any(axis=0).sum())
    values, shares = np.empty(len(tables)), np.empty((len(tables), first.shape[1]))
    for position, table in enumerate(tables):
        table = np.asarray(table, np.float64)
        if table.shape != first.shape or (np.isnan(table) == known).any() or not np.isfinite(table[known]).all():
            raise ValueError("tables have other shapes or gaps, or values that are not finite")
        of_seeds = seed_means(table)
        values[position] = of_seeds.mean()
        shares[position] = (np.where(known, table - of_seeds[:, None], 0.0) * weights).sum(axis=0)
    return UnitMeans(values, shares * np.sqrt(units / (units - 1)))


def by_cluster(table: np.ndarray, clusters: Sequence[str]) -> np.ndarray:
    """A table [seeds, examples] as one of clusters [seeds, clusters] with the same means, NaN for those a seed lacks.

    A cluster's value is its sum, in units of the mean size of the seed's clusters.
    """
    table = np.asarray(table, np.float64)
    names, which = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    known = ~np.isnan(table)
    sums = np.stack([np.bincount(which, row, len(names)) for row in np.nan_to_num(table)])
    sizes = np.stack([np.bincount(which[k], minlength=len(names)) for k in known])
    mean_size = sizes.sum(axis=1) / (sizes > 0).sum(axis=1)
    return np.where(sizes > 0, sums / mean_size[:, None], np.nan)


@dataclass(frozen=True)
class Simultaneous:
    """Intervals of several means: each alone, and all together."""

    low: np.ndarray
    """[V] Each covers its mean with 95 %."""
    high: np.ndarray
    low_together: np.ndarray
    """[V] All of them cover their means with 95 %, whichever one is looked at afterwards."""
    high_together: np.ndarray
    p: np.ndarray
    """[V] Two-sided, of a mean of 0."""
    p_adjusted: np.ndarray
    """[V] The chance that any of them is so far from 0, were all means 0."""
    critical: float
    """How many standard errors the intervals together reach."""
    level: float
    """The coverage that each of them then has."""


def simultaneous(
    means: UnitMeans, *, grain: float = 0.0, level: float = LEVEL, draws: int = DRAWS, seed: int = 0
) -> Simultaneous:
    """Intervals of means by the largest studentised one (maximum-t), which uses how they correlate.

    ``grain``: half the least step by which such a mean can change, 1 / (seeds x units) of differences of right and
    wrong answers: the intervals reach so much farther (Edwards' continuity correction of McNemar's test), without which
    the largest of a hundred discrete means is beyond them too often.

    Means of fewer than ``FEWEST_UNITS`` units have no bounds (NaN) and p-values of 1, unless nothing varies.
    """
    errors, df = means.standard_errors, means.units - 1
    varies = errors > 0
    largest = _largest(_correlated(means.of(varies), draws, seed))
    alone = float(student_quantile((1 - level) / 2, df))
    together = float(np.quantile(largest, level)) if varies.any() else float(normal_quantile((1 - level) / 2))
    critical = max(alone, float(student_quantile(normal_above(together), df)))
    beyond = np.maximum(np.abs(means.values) - grain, 0.0)
    distance = np.divide(beyond, errors, out=np.zeros_like(errors), where=varies)
    p = np.where(varies, 2 * student_above(distance, df), (means.values == 0) * 1.0)
    as_normal = normal_quantile(p / 2)
    # Beyond the reach of the draws the sum of all chances is the sharper bound.
    exceeded = (len(largest) - np.searchsorted(np.sort(largest), as_normal) + 1) / (len(largest) + 1)
    adjusted = np.minimum.reduce([np.maximum(exceeded, p), p * max(1, int(varies.sum())), np.ones_like(p)])
    half, half_together = (np.where(varies, reach * errors + grain, 0.0) for reach in (alone, critical))
    if means.units < FEWEST_UNITS:
        half, half_together = (np.where(varies, np.nan, each) for each in (half, half_together))
        p, adjusted = (np.where(varies, 1.0, each) for each in (p, adjusted))
    v = means.values
    each = 1 - 2 * float(student_above(critical, df))
    return Simultaneous(v - half, v + half, v - half_together, v + half_together, p, adjusted, critical, each)


def best_set(means: UnitMeans, *, level: float = LEVEL, draws: int = 4_000, seed: int = 0) -> np.ndarray:
    """Which of the means [V], higher is better, may be the highest: bool [V]; the highest one is always among them.

    One is left out where some other is shown to be higher: by the largest studentised lead of any other over it,
    against the quantile of what this is were all equal to it. The set has the truly highest mean with 95 % (Mogstad,
    Romano, Shaikh and Wilhelm 2024).
    """
    count = len(means.values)
    kept = np.ones(count, bool)
    if means.units < FEWEST_UNITS:
        return kept
    covariance = means.shares @ means.shares.T
    drawn = np.ascontiguousarray(_draws(covariance, draws, seed).T)
    variances = np.diag(covariance)
    for one in range(count):
        spread = np.sqrt(np.maximum(variances + variances[one] - 2 * covariance[one], 0))
        scale = np.sqrt(variances.max() or 1.0)
        apart = spread > 1e-6 * scale
        lead = means.values - means.values[one]
        kept[one] = not (lead[~apart] > 1e-6 * scale).any()  # a copy of it does not refute it
        if apart.any() and (largest := (lead[apart] / spread[apart]).max()) > 0:
            kept[one] &= _is_reached(largest, drawn, one, spread, apart, level)
    return kept


def _is_reached(lead: float, drawn: np.ndarray, one: int, spread: np.ndarray, apart: np.ndarray, level: float) -> bool:
    """Whether a quantile of the largest studentised lead over ``one`` is as large as this.

    Told from the draws [V, draws] by parts that stay in the cache, and no longer than it is open: each of thousands of
    means is compared with all others on thousands of draws.
    """
    draws = drawn.shape[1]
    above = draws - int(np.floor(level * (draws - 1)))  # so many as large, and the quantile is
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=apart)[:, None]
    width = max(1, _CACHED // len(drawn))
    found: list[np.ndarray] = []
    for begin in range(0, draws, width):
        leads = drawn[:, begin : begin + width] - drawn[one, begin : begin + width]
        leads *= scale
        leads[~apart] = -np.inf
        found.append(leads.max(axis=0))
        above -= int((found[-1] >= lead).sum())
        if above <= 0:
            return True
    return lead <= float(np.quantile(np.concatenate(found), level))


def picked(means: UnitMeans, *, repeats: int = 200, seed: int = 0) -> tuple[int, float]:
    """The highest of the means, and its mean corrected for having been picked as the highest on these units.

    By cross-fitting: the highest on one half of the units has its mean taken on the other, in turn, over random halves.
    What is picked on half of the units is a little worse than what all pick, so the correction errs to the low side.
    """
    rng = np.random.default_rng(seed)
    winner = int(np.argmax(means.values))
    units = means.units
    if units < 4 or len(means.values) < 2:
        return winner, float(means.values[winner])
    scale = np.sqrt((units - 1) / units)
    signs = np.ones((units, repeats))
    for repeat in range(repeats):
        signs[rng.permutation(units)[: units // 2], repeat] = -1.0
    apart = scale * (means.shares @ signs)  # of a half, the units' shares of the mean count twice
    halves = [means.values[:, None] + sign * apart for sign in (1, -1)]
    each = np.arange(repeats)
    found = [other[one.argmax(axis=0), each] for one, other in (halves, halves[::-1])]
    return winner, float(np.mean(found))


def drawn(means: UnitMeans, draws: int, seed: int = 0) -> np.ndarray:
    """What the means would be on other units, [draws, V]."""
    return means.values + _draws(means.shares @ means.shares.T, draws, seed)


def pairwise(means: UnitMeans, *, level: float = LEVEL, draws: int = 4_000, seed: int = 0) -> float:
    """How many standard errors the intervals of all differences between two of the means reach, to hold together.

    By the largest studentised difference of any two, as in ``best_set``; what is picked among the means before two are
    compared takes nothing from the intervals.
    """
    covariance = means.shares @ means.shares.T
    variances = np.diag(covariance)
    apart_at = _draws(covariance, draws, seed)
    largest = np.zeros(draws)
    for one in range(len(means.values) - 1):
        spread = np.sqrt(np.maximum(variances[one + 1 :] + variances[one] - 2 * covariance[one, one + 1 :], 0))
        varies = spread > 1e-6 * np.sqrt(variances.max() or 1.0)
        if varies.any():
            apart = np.abs(apart_at[:, one + 1 :][:, varies] - apart_at[:, [one]]) / spread[varies]
            largest = np.maximum(largest, apart.max(axis=1))
    together = max(float(np.quantile(largest, level)), float(normal_quantile((1 - level) / 2)))
    return float(student_quantile(normal_above(together), means.units - 1))


def _correlated(means: UnitMeans, draws: int, seed: int) -> np.ndarray:
    """Studentised means as they would vary around 0 [draws, V]."""
    if not len(means.values):
        return np.zeros((draws, 1))
    errors = means.standard_errors
    return _draws(means.shares @ means.shares.T / np.outer(errors, errors), draws, seed)


def _draws(covariance: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Normal vectors [draws, V] of this covariance, mean 0.

    By its symmetric root, which moves no more than the units' shares do (Araki and Yamagami 1981): with other digits of
    these, or on another processor, they are the same draws. Eigenvectors by themselves may turn round altogether.
    """
    scales, axes = np.linalg.eigh(covariance)
    root = axes * np.sqrt(np.maximum(scales, 0.0)) @ axes.T
    normal = np.random.default_rng(seed).standard_normal((draws, len(covariance)))
    return np.concatenate([block @ root for block in np.array_split(normal, max(1, draws // _BLOCK))])


def _largest(drawn: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(drawn).max(axis=1))
