"""Correlations of two scores over subsets of members, with intervals that allow for the members they share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.stats.distributions import student_quantile
from harness.stats.interval import LEVEL, Interval

FEWEST_SUBSETS = 3
"""A correlation of fewer points says nothing, so a member without which fewer are left cannot be left out."""


@dataclass(frozen=True)
class Correlation:
    """Three correlations over subsets of members, with intervals from leaving out each member in turn."""

    n: int
    """Subsets, that is points in the scatter plot."""
    members: int
    """Members that occur in the subsets: the units that are left out, and what the intervals' width depends on."""
    draws: int
    """How many times a member was left out."""
    draws_used: int
    """How many of these left three different subsets and some variance; there are intervals only if all did."""
    pearson: Interval
    spearman: Interval
    kendall: Interval


def correlation(x: np.ndarray, y: np.ndarray, membership: np.ndarray) -> Correlation:
    """Correlations of two scores over subsets of members, with 95 % intervals that allow for the members they share.

    Subsets that share members are not independent, so members are resampled: each is left out in turn, with all the
    subsets it is in (the jackknife, on Fisher's z; Efron and Tibshirani 1993, chapter 11), and the standard error is
    taken with Student's t of M - 1 degrees of freedom. In simulations it covers what it says or up to 4 points more
    with 6 members or more, and nearly always with 4; a bootstrap of members covers 73 % with 4.

    Args:
        x: [K] one score of each subset.
        y: [K] the other.
        membership: [K, M] bool, which members make up each subset.

    Returns:
        All coefficients NaN where x or y is constant or there are fewer than two subsets; bounds NaN where leaving out
        some member leaves fewer than three different subsets, or no variance.

    Raises:
        ValueError: for scores that are not finite, shapes that do not fit, or a subset without members.
    """
    x, y, membership = np.asarray(x, np.float64), np.asarray(y, np.float64), np.asarray(membership, bool)
    _check_subsets(x, y, membership)
    membership = membership[:, membership.any(axis=0)]
    subsets, members = membership.shape
    values = _Weighted(x, y, np.ones((1, subsets))).coefficients()
    weights = (~membership.T).astype(np.float64)  # [M, K]: member m is left out
    distinct = np.unique(membership, axis=0, return_index=True)[1]
    weighted = _Weighted(x, y, weights)
    usable = ((weights[:, distinct] > 0).sum(axis=1) >= FEWEST_SUBSETS) & weighted.varies()
    pearson, spearman, kendall = (
        _jackknife(float(value[0]), left_out if usable.all() else np.full(members, np.nan), subsets)
        for value, left_out in zip(values, weighted.coefficients(), strict=True)
    )
    return Correlation(subsets, members, members, int(usable.sum()), pearson, spearman, kendall)


def _jackknife(value: float, left_out: np.ndarray, subsets: int) -> Interval:
    """The interval of a coefficient from its values [M] without each of the members."""
    members = len(left_out)
    if members < 2 or not np.isfinite(value):
        return Interval(value, np.nan, np.nan, subsets)
    z = np.arctanh(np.clip([value, *left_out], -ONE, ONE))
    error = np.sqrt((members - 1) / members * ((z[1:] - z[1:].mean()) ** 2).sum())
    half = float(student_quantile((1 - LEVEL) / 2, members - 1)) * error
    low, high = np.tanh([z[0] - half, z[0] + half])
    return Interval(value, float(min(low, value)), float(max(high, value)), subsets)


ONE = 1 - 1e-12
"""As near to a correlation of one as Fisher's z goes."""


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


def _check_subsets(x: np.ndarray, y: np.ndarray, membership: np.ndarray) -> None:
    if x.ndim != 1 or x.shape != y.shape or membership.ndim != 2 or len(membership) != len(x) or not len(x):
        raise ValueError(f"x {x.shape}, y {y.shape} and membership {membership.shape} must describe the same subsets")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("scores must be finite")
    if not membership.any(axis=1).all():
        raise ValueError("a subset has no members")
