"""Quality against cost as a curve, in the terms of the routing field: PGR, APGR, CPT, the convex hull, AIQ, the random
router. Functions of means; ``evaluate.curve_intervals`` says how sure they are.

A curve is a number of operating points of one system: thresholds of a cascade or a router, sizes of an ensemble. Of
each its mean score (higher is better: turn a loss round) and its mean cost, or the share of examples for which it
called the strong one of two models. What has no value raises ``Undefined`` with the reason.
"""

from __future__ import annotations

import math

import numpy as np


class Undefined(ValueError):
    """A curve has no such number; the message says why, as a clause."""


def pgr(score: float, weak: float, strong: float) -> float:
    """Performance gap recovered: 0 at the weak model's score, 1 at the strong one's (Ong et al. 2024, RouteLLM).

    Raises:
        Undefined: where the strong one is not the better one, or any score is not finite.
    """
    _two_models(score, weak, strong)
    return (score - weak) / (strong - weak)


def apgr(shares: np.ndarray, scores: np.ndarray, weak: float, strong: float) -> float:
    """Average PGR: its mean over the share of calls to the strong model, by the trapezoidal rule, as RouteLLM has it.

    The curve is that of the straight lines between its points in the order of their shares, and between its ends and
    the two models: RouteLLM's thresholds are quantiles, so that its curves begin and end there. The area is that over
    shares of 0 to 1.

    Args:
        shares: [P] of examples for which the strong model is called, 0..1.
        scores: [P]
        weak: the score of the weak model alone.
        strong: the score of the strong model alone.

    Raises:
        Undefined: no points, shares that are none, or as ``pgr``.
    """
    return float(apgr_of_all(*_checked(shares, scores, weak, strong))[0])


def cpt(wanted: float, shares: np.ndarray, scores: np.ndarray, weak: float, strong: float) -> float:
    """Call-performance threshold: the smallest share of calls to the strong model at which PGR reaches ``wanted``.

    On the lines of ``apgr``. RouteLLM interpolates the share from the score, which is the same where the score rises
    with the share, and means nothing where it does not.

    Raises:
        Undefined: a curve that does not reach it, or as ``apgr``.
    """
    found = float(cpt_of_all(wanted, *_checked(shares, scores, weak, strong))[0])
    if math.isinf(found):
        raise Undefined(f"the curve does not reach a PGR of {wanted:g}")
    return found


def apgr_of_all(shares: np.ndarray, scores: np.ndarray, weak: np.ndarray, strong: np.ndarray) -> np.ndarray:
    """``apgr`` of many curves at once, [D, P] and [D], all of them defined."""
    x, y = _between(shares, scores, weak, strong)
    return np.asarray(np.trapezoid(y, x, axis=-1))


def cpt_of_all(
    wanted: float, shares: np.ndarray, scores: np.ndarray, weak: np.ndarray, strong: np.ndarray
) -> np.ndarray:
    """``cpt`` of many curves at once, as ``apgr_of_all``; infinite where one does not reach it."""
    x, y = _between(shares, scores, weak, strong)
    reached = y >= wanted
    after = reached.argmax(axis=-1)[:, None]
    before = np.maximum(after - 1, 0)
    (x0, x1), (y0, y1) = ([np.take_along_axis(each, at, -1)[:, 0] for at in (before, after)] for each in (x, y))
    part = np.divide(wanted - y0, y1 - y0, out=np.ones_like(y0), where=y1 > y0)
    return np.where(reached.any(axis=-1), np.where(x1 > x0, x0 + part * (x1 - x0), x1), np.inf)


def _between(
    shares: np.ndarray, scores: np.ndarray, weak: np.ndarray, strong: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shares [D, P + 2] in rising order, from 0 to 1, and the PGR there."""
    ends = np.zeros((len(shares), 1))
    x = np.concatenate([ends, shares, ends + 1], axis=-1)
    y = (np.concatenate([weak[:, None], scores, strong[:, None]], axis=-1) - weak[:, None]) / (strong - weak)[:, None]
    order = np.lexsort((y, x), axis=-1)  # of equal shares the lower score first: what is reached, is reached there
    return np.take_along_axis(x, order, -1), np.take_along_axis(y, order, -1)


def _checked(
    shares: np.ndarray, scores: np.ndarray, weak: float, strong: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    shares, scores = np.asarray(shares, np.float64), np.asarray(scores, np.float64)
    _points(shares, scores)
    _two_models(0.0, weak, strong)
    if shares.min() < 0 or shares.max() > 1:
        raise Undefined("shares of calls lie in 0..1")
    return shares[None], scores[None], np.array([weak], np.float64), np.array([strong], np.float64)


def _two_models(score: float, weak: float, strong: float) -> None:
    _finite(np.array([score, weak, strong]), "a score")
    if strong <= weak:
        raise Undefined("the strong model is no better than the weak one")


def random_router(costs: tuple[float, float], scores: tuple[float, float], cost: float) -> float:
    """The score of calling the strong of two models at random, so often that the mean cost is this.

    Args:
        costs: of the weak and of the strong model alone.
        scores: the same.
        cost: between the two.

    Raises:
        Undefined: a cost beyond the two, or two that cost the same.
    """
    _points(np.array(costs), np.array(scores))
    low, high = costs
    if low == high:
        raise Undefined("the weak and the strong model cost the same")
    part = (cost - low) / (high - low)
    if not 0 <= part <= 1:
        raise Undefined("no mixture of the two models costs that")
    return scores[0] + part * (scores[1] - scores[0])


def hull(costs: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The corners of the non-decreasing convex hull [H], costs rising and scores rising (RouterBench, Hu et al. 2024).

    Above all points, concave, and what choosing at random between two operating points reaches. It ends at the
    cheapest of the highest scores: a greater budget need not be spent.

    Raises:
        Undefined: no points, or numbers that are not finite.
    """
    costs, scores = np.asarray(costs, np.float64), np.asarray(scores, np.float64)
    _points(costs, scores)
    found = corners(costs, scores)
    return costs[found], scores[found]


def corners(costs: np.ndarray, scores: np.ndarray) -> list[int]:
    """Which points [P], finite and at least one, are the corners of the hull, in the order of their costs."""
    found: list[int] = []
    x, y = costs.tolist(), scores.tolist()
    for here in np.lexsort((-scores, costs)).tolist():
        if found and y[here] <= y[found[-1]]:
            continue  # no better than what costs no more
        while len(found) > 1:
            left, middle = found[-2:]
            if (y[middle] - y[left]) * (x[here] - x[left]) > (y[here] - y[left]) * (x[middle] - x[left]):
                break
            found.pop()  # on the line between the other two, or below it
        found.append(here)
    return found


def aiq(costs: np.ndarray, scores: np.ndarray, low: float | None = None, high: float | None = None) -> float:
    """Average improvement in quality: the mean height of the hull over a range of costs (RouterBench, Hu et al. 2024).

    Beyond its last corner the hull goes on flat. The paper divides the area by the width of the range, as here; the
    authors' ``AIQ.py`` divides the same area by the highest cost.

    Args:
        costs: [P]
        scores: [P]
        low: where the range begins; the lowest cost by default.
        high: where it ends; the highest cost by default.

    Raises:
        Undefined: one point, a range without width or that begins below the lowest cost, or numbers that are not
            finite.
    """
    costs, scores = np.asarray(costs, np.float64), np.asarray(scores, np.float64)
    _points(costs, scores)
    if len(costs) == 1:
        raise Undefined("one point is no curve")
    x, y = hull(costs, scores)
    low, high = float(costs.min()) if low is None else low, float(costs.max()) if high is None else high
    if not low < high:
        raise Undefined("all points cost the same")
    if low < x[0]:
        raise Undefined("no point costs as little as where the range begins")
    knots = np.unique(np.concatenate([[low, high], x[(low < x) & (x < high)]]))
    return float(np.trapezoid(np.interp(knots, x, y), knots)) / (high - low)


def _points(x: np.ndarray, y: np.ndarray) -> None:
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"points have shapes {x.shape} and {y.shape}, expected one number for each")
    if not len(x):
        raise Undefined("there are no points")
    _finite(np.concatenate([x, y]), "a point")


def _finite(values: np.ndarray, what: str) -> None:
    if not np.isfinite(values).all():
        raise Undefined(f"{what} is not finite")
