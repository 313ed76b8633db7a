"""Operating points of systems on the same examples, and the numbers of their curves with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from harness import stats
from harness.evaluate.curves import Undefined, aiq, apgr, apgr_of_all, corners, cpt, cpt_of_all
from harness.stats.of_means import of_a_choice, percentiles, t_quantile
from harness.stats.simultaneous import FEWEST_UNITS, UnitMeans, by_cluster, unit_means

ROUNDING = 1e-12
"""What varies less does not vary."""
ALIKE = "all examples are alike in it"
"""Why there is no interval where nothing varies."""


@dataclass(frozen=True, eq=False)
class Point:
    """One way to run a system: what comes of each example, and what that costs."""

    name: str
    scores: np.ndarray
    """[S, N] of S seeds on N examples, the mean of which is the score; higher is better: a loss is turned round. NaN,
    the same in all points, where a seed has no such example."""
    costs: np.ndarray
    """[S, N] in any unit, such as that of the reference; NaN as in ``scores``."""
    strong: np.ndarray | None = None
    """[S, N] of a system of two models 1 where the strong one was called and 0 where not; NaN as in ``scores``."""

    @classmethod
    def of(cls, name: str, scores: np.ndarray, cost: float | np.ndarray, strong: np.ndarray | None = None) -> Point:
        """Of values [N] of one seed or [S, N], and a cost that may be the same for every example."""
        scores = np.atleast_2d(np.asarray(scores, np.float64))

        def beside(values: float | np.ndarray) -> np.ndarray:
            return np.where(np.isnan(scores), np.nan, np.broadcast_to(np.asarray(values, np.float64), scores.shape))

        return cls(name, scores, beside(cost), None if strong is None else beside(strong))


@dataclass(frozen=True)
class Measured:
    """A number with its 95 % interval over examples; None where there is none, and why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    """None with a value: it may not be reached at all, or ``why`` says why there is no interval."""
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"value": self.value, "low": self.low, "high": self.high, "why": self.why or None}


@dataclass(frozen=True)
class Curve:
    """Operating points on the same examples; of systems of two models also each of these alone."""

    points: Sequence[Point]
    clusters: Sequence[str] = field(default=())
    """Of each example, the cluster that counts as one; empty: every example counts as one."""
    weak: Point | None = None
    strong: Point | None = None

    def aiq(self, low: float | None = None, high: float | None = None) -> Measured:
        """``curves.aiq``; the interval allows for the corners' having been picked on the same examples."""
        return _told(lambda: self._aiq(low, high))

    def _aiq(self, low: float | None, high: float | None) -> Measured:
        means, count = self._means([(p.scores, p.costs) for p in self.points]), len(self.points)

        def choose(values: np.ndarray) -> list[int]:
            return corners(values[count:], values[:count])

        def height(found: list[int], values: np.ndarray) -> float:
            scores, costs = values[:count], values[count:]
            ends = float(costs.min()) if low is None else low, float(costs.max()) if high is None else high
            return _mean_height(costs[found], scores[found], *ends)

        value = aiq(means.values[count:], means.values[:count], low, high)
        if why := _why_no_interval(means, height(choose(means.values), means.values)):
            return Measured(value, why=why)
        _, least, most = of_a_choice(means, choose, height)
        if not most - least > ROUNDING:
            return Measured(value, why=ALIKE)
        return Measured(value, least, max(value, most))

    def apgr(self) -> Measured:
        """``curves.apgr``."""
        return _told(lambda: self._of_two(apgr, apgr_of_all))

    def cpt(self, wanted: float) -> Measured:
        """``curves.cpt``: without an upper bound where it may be that the curve does not reach it."""
        return _told(lambda: self._of_two(partial(cpt, wanted), partial(cpt_of_all, wanted)))

    def _of_two(self, number: Callable[..., float], of_all: Callable[..., np.ndarray]) -> Measured:
        weak, strong = self.weak, self.strong
        if weak is None or strong is None or any(point.strong is None for point in self.points):
            raise Undefined("it is no curve between two models")
        pairs = [(p.scores, p.strong) for p in self.points if p.strong is not None]
        means, count = self._means(pairs, (weak.scores, strong.scores)), len(pairs)

        def values(drawn: np.ndarray) -> np.ndarray:
            found = np.full(len(drawn), np.inf)
            gap = drawn[:, -1] > drawn[:, -2]
            scores, shares = drawn[gap, :count], np.clip(drawn[gap, count : 2 * count], 0.0, 1.0)
            found[gap] = of_all(shares, scores, drawn[gap, -2], drawn[gap, -1])
            return found

        of = means.values
        value = number(of[count : 2 * count], of[:count], float(of[-2]), float(of[-1]))
        apart = means.minus(2 * count).of([2 * count + 1])
        if why := _why_no_interval(means, value):
            return Measured(value, why=why)
        if not apart.values[0] > t_quantile(apart.units) * apart.standard_errors[0]:
            return Measured(value, why="the strong model is not shown to be better than the weak one")
        low, high = percentiles(means, values)
        return Measured(value, low, high if math.isfinite(high) else None)

    def _means(
        self, pairs: Sequence[tuple[np.ndarray, np.ndarray]], ends: Sequence[np.ndarray] = ()
    ) -> UnitMeans:
        """First values of all pairs, second values of all, and the ends."""
        if not pairs:
            raise Undefined("there are no points")
        tables = [*(first for first, _ in pairs), *(second for _, second in pairs), *ends]
        return means_of(tables, self.clusters)


def means_of(tables: Sequence[np.ndarray], clusters: Sequence[str] = ()) -> UnitMeans:
    """The means of tables [S, N] over examples, or over clusters of them.

    Raises:
        Undefined: one example, or values that are not finite.
    """
    first = np.asarray(tables[0], np.float64)
    if (~np.isnan(first)).any(axis=0).sum() < 2:
        raise Undefined("one example says nothing of others")
    try:
        return unit_means([by_cluster(table, clusters) if len(clusters) else table for table in tables])
    except ValueError:
        raise Undefined("values are not finite, or of other examples") from None


def measured_mean(table: np.ndarray, clusters: Sequence[str] = ()) -> Measured:
    """The mean of values [S, N], with the interval of these models: the examples alone are a sample."""
    table = np.asarray(table, np.float64)
    known = table[~np.isnan(table)]
    if len(table) == 1 and len(known) and np.isin(known, (0.0, 1.0)).all() and not len(clusters):
        share = stats.wilson(int(known.sum()), len(known))  # also where all are right
        return Measured(share.value, share.low, share.high)
    return _told(lambda: _mean(table, clusters))


def measured_difference(table: np.ndarray, other: np.ndarray, clusters: Sequence[str] = ()) -> Measured:
    """The same of the differences of two tables [S, N], example by example."""
    return _told(lambda: _mean(np.asarray(table, np.float64) - np.asarray(other, np.float64), clusters))


def _mean(table: np.ndarray, clusters: Sequence[str]) -> Measured:
    means = means_of([table], clusters)
    value = float(means.values[0])
    if why := _why_no_interval(means, value):
        return Measured(value, why=why)
    half = t_quantile(means.units) * float(means.standard_errors[0])
    return Measured(value, value - half, value + half)


def _told(found: Callable[[], Measured]) -> Measured:
    try:
        return found()
    except Undefined as reason:
        return Measured(None, why=str(reason))


def _why_no_interval(means: UnitMeans, value: float) -> str:
    """Why nothing says how sure a number is; empty where it can be said."""
    if means.units < FEWEST_UNITS:
        return f"fewer than {FEWEST_UNITS} examples say nothing of others"
    if not math.isfinite(value):
        return "it is not finite"
    return "" if (means.standard_errors > ROUNDING * np.maximum(1, np.abs(means.values))).any() else ALIKE


def _mean_height(costs: np.ndarray, scores: np.ndarray, low: float, high: float) -> float:
    """The mean height over a range of costs of the line through these points, which goes on flat beyond its ends."""
    order = np.argsort(costs, kind="stable")
    x, y = costs[order], scores[order]
    knots = np.unique(np.concatenate([[low, high], x[(low < x) & (x < high)]]))
    return float(np.trapezoid(np.interp(knots, x, y), knots)) / (high - low)
