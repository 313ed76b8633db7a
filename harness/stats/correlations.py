"""Correlations of two scores over subsets of members, with intervals that allow for the members they share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.stats.interval import Interval, percentile_interval
from harness.stats.resampling import draw_counts

FEWEST_RESAMPLES = 10
"""A correlation has no interval if fewer different resamples of its members are usable."""


@dataclass(frozen=True)
class Correlation:
    """Three correlations over subsets of members, with intervals from resampling the members."""

    n: int
    """Subsets, that is points in the scatter plot."""
    members: int
    """Members that occur in the subsets, the units that were resampled."""
    draws: int
    draws_used: int
    """Draws that left three subsets and some variance; the intervals are percentiles over these only."""
    pearson: Interval
    spearman: Interval
    kendall: Interval


def correlation(
    x: np.ndarray, y: np.ndarray, membership: np.ndarray, draws: int = 2_000, seed: int = 0
) -> Correlation:
    """Correlations of two scores over subsets of members, with intervals that allow for the members they share.

    Subsets that share members are not independent, so a draw resamples members: member m is drawn c_m times, and a
    subset weighs the product of c_m over its members, which is how often it can be put together from the drawn ones.
    Each coefficient is then computed as if every subset were repeated by its weight (mid-ranks for Spearman, tau-b
    for Kendall). Percentiles over the usable draws: three different subsets left, and neither score constant.

    Limits: a subset drops out of every draw that misses one of its members, so the intervals rest mostly on small
    subsets (all of 8 members are drawn together in 0.2 % of draws). With fewer than ``FEWEST_RESAMPLES`` different
    usable resamples (three members or fewer; subsets that leave out one member) there is no interval: NaN. Few members
    give rough intervals in any case, for which ``members`` and ``draws_used`` are there to be shown.

    Args:
        x: [K] one score of each subset.
        y: [K] the other.
        membership: [K, M] bool, which members make up each subset.
        draws: how many times the members are resampled.
        seed: of the resampling.

    Returns:
        All coefficients NaN where x or y is constant or there are fewer than two subsets.

    Raises:
        ValueError: for scores that are not finite, shapes that do not fit, or a subset without members.
    """
    x, y, membership = np.asarray(x, np.float64), np.asarray(y, np.float64), np.asarray(membership, bool)
    _check_subsets(x, y, membership)
    membership = membership[:, membership.any(axis=0)]
    subsets, members = membership.shape
    values = _Weighted(x, y, np.ones((1, subsets))).coefficients()
    counts = draw_counts(np.random.default_rng(seed), members, draws)
    weights = _subset_weights(counts, membership)
    distinct = np.unique(membership, axis=0, return_index=True)[1]
    weighted = _Weighted(x, y, weights)
    usable = ((weights[:, distinct] > 0).sum(axis=1) >= 3) & weighted.varies()
    enough = len(np.unique(counts[usable], axis=0)) >= FEWEST_RESAMPLES
    nothing = np.array([np.nan])
    pearson, spearman, kendall = (
        percentile_interval(float(value[0]), resampled[usable] if enough else nothing, subsets)
        for value, resampled in zip(values, weighted.coefficients(), strict=True)
    )
    return Correlation(subsets, members, draws, int(usable.sum()), pearson, spearman, kendall)


class _Weighted:
    """Weighted correlations of x and y [K], one for each row of weights [D, K], as if points were repeated."""

    def __init__(self, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> None:
        self.x, self.y, self.weights = x, y, weights
        self.order_x, self.order_y = (np.sign(v[:, None] - v[None, :]) for v in (x, y))  # [K, K]
        self.untied_x, self.untied_y = (self._over_pairs(np.abs(order)) for order in (self.order_x, self.order_y))

    def varies(self) -> np.ndarray:
        """Whether neither is constant among the points with weight [D]: sums of whole numbers, so never in doubt."""
        return (self.untied_x > 0) & (self.untied_y > 0)

    def coefficients(self) -> Iterator[np.ndarray]:
        """Pearson, Spearman and Kendall's tau-b, each [D], NaN where either is constant."""
        yield self._pearson(self.x[None], self.y[None])
        yield self._pearson(self._ranks(self.order_x), self._ranks(self.order_y))
        concordance = self._over_pairs(self.order_x * self.order_y)
        yield self._ratio(concordance, np.sqrt(self.untied_x) * np.sqrt(self.untied_y))

    def _over_pairs(self, pairs: np.ndarray) -> np.ndarray:
        return np.einsum("dk,dk->d", self.weights @ pairs, self.weights)

    def _ranks(self, order: np.ndarray) -> np.ndarray:
        """Weighted mid-ranks [D, K], less a constant of each row that no correlation sees."""
        return self.weights @ order / -2.0

    def _pearson(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        share = self._ratio(self.weights, self.weights.sum(axis=1, keepdims=True))
        x, y = (v - np.einsum("dk,dk->d", share, np.broadcast_to(v, share.shape))[:, None] for v in (x, y))
        of_both, of_x, of_y = (np.einsum("dk,dk->d", share, product) for product in (x * y, x * x, y * y))
        return self._ratio(of_both, np.sqrt(of_x) * np.sqrt(of_y))

    def _ratio(self, above: np.ndarray, below: np.ndarray) -> np.ndarray:
        known = self.varies().reshape(-1, *[1] * (above.ndim - 1)) & (below > 0)
        ratio = np.divide(above, below, out=np.full(above.shape, np.nan), where=known)
        return np.clip(ratio, -1.0, 1.0)


def _subset_weights(counts: np.ndarray, membership: np.ndarray) -> np.ndarray:
    """The product of the counts [D, M] over the members of each subset: [D, K] float64."""
    weights = np.ones((len(counts), len(membership)))
    for drawn, takes_part in zip(counts.T, membership.T, strict=True):
        weights[:, takes_part] *= drawn[:, None]
    return weights


def _check_subsets(x: np.ndarray, y: np.ndarray, membership: np.ndarray) -> None:
    if x.ndim != 1 or x.shape != y.shape or membership.ndim != 2 or len(membership) != len(x) or not len(x):
        raise ValueError(f"x {x.shape}, y {y.shape} and membership {membership.shape} must describe the same subsets")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("scores must be finite")
    if not membership.any(axis=1).all():
        raise ValueError("a subset has no members")
