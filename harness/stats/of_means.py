"""Intervals of functions of several means on the same units, by what the means would be on other units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from harness.stats.distributions import student_quantile
from harness.stats.interval import LEVEL
from harness.stats.simultaneous import UnitMeans, drawn

DRAWS = 2_000
HALVES = 25
"""Random halves that a choice is made on, and its mean taken on the other."""

Chosen = TypeVar("Chosen")


def percentiles(
    means: UnitMeans, function: Callable[[np.ndarray], np.ndarray], *, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """The middle 95 % of a function of the means, from [draws, V] to [draws]; it and its ends may be infinite."""
    low, high = np.quantile(
        function(drawn(means, draws, seed)), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest"
    )
    return float(low), float(high)


def of_a_choice(
    means: UnitMeans,
    choose: Callable[[np.ndarray], Chosen],
    value: Callable[[Chosen, np.ndarray], float],
    *,
    repeats: int = HALVES,
    seed: int = 0,
) -> tuple[float, float, float]:
    """A function of the means where these say what it is a function of: the points that are corners of a hull.

    What is chosen on some units is too good on these: the highest of equal means is higher than their true one. So the
    choice is made on one half of the units and its value taken on the other, in turn, over random halves, as in
    ``simultaneous.picked``. What half of the units choose is a little worse than what all do: the upper end allows for
    a quarter of the correction to be too much.

    Args:
        means: [V]
        choose: what the means [V] say.
        value: of a choice at means [V], smooth in these.
        repeats: random halves.
        seed: of these.

    Returns:
        The corrected value, and the ends of its 95 % interval, by the slope of the value of the choice of all units.
    """
    found = float(np.mean([value(choose(one), other) for one, other in _halves(means, repeats, seed)]))
    chosen = choose(means.values)
    errors = means.standard_errors
    slopes = np.zeros(len(errors))
    for at in np.flatnonzero(errors):
        step = np.zeros(len(errors))
        step[at] = 1e-3 * errors[at]
        rise = value(chosen, means.values + step) - value(chosen, means.values - step)
        slopes[at] = rise / (2 * step[at])
    half = t_quantile(means.units) * float(np.sqrt(((slopes @ means.shares) ** 2).sum()))
    more = (value(chosen, means.values) - found) / 4 if half else 0.0
    return found, found - half, found + more + half


def t_quantile(units: int) -> float:
    """How many standard errors the 95 % interval of a mean of so many units reaches."""
    return float(student_quantile((1 - LEVEL) / 2, units - 1))


def _halves(means: UnitMeans, repeats: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The means [V] of either half of the units, in turn."""
    rng = np.random.default_rng(seed)
    scale = np.sqrt((means.units - 1) / means.units)
    for _ in range(repeats):
        signs = np.ones(means.units)
        signs[rng.permutation(means.units)[: means.units // 2]] = -1.0
        apart = scale * (means.shares @ signs)  # of a half, the units' shares of the mean count twice
        yield means.values + apart, means.values - apart
        yield means.values - apart, means.values + apart
