"""Ratios of two scores over the same seeds and items."""

from __future__ import annotations

import numpy as np

from harness.stats.components import crossed_mean
from harness.stats.interval import LEVEL, Interval


def crossed_ratio(above: np.ndarray, below: np.ndarray) -> Interval | None:
    """The mean of ``above`` over that of ``below``, both [S, N] over the same seeds and items, with its 95 % interval.

    By Fieller's method (1954, JRSS B 16): the interval holds each ratio r at which the mean of ``above - r below`` may
    be 0, here by the interval of ``crossed_mean``, so that seeds and items are both samples (of one seed, the items).
    Unlike resamples of the ratio or the delta method it needs no sharply known divisor: it widens to one side as that
    nears 0, and has no end where that may be 0.

    Returns:
        None where the mean of ``below`` may be 0: then no ratio can be ruled out on at least one side.

    Raises:
        ValueError: if the two differ in shape, or as ``crossed_mean``.
    """
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    if above.shape != below.shape:
        raise ValueError(f"the two scores of a ratio differ in shape: {above.shape} and {below.shape}")
    divisor = crossed_mean(below)
    half = divisor.half_width((1 - LEVEL) / 2)
    if not abs(divisor.value) > half:
        return None
    ratio = crossed_mean(above).value / divisor.value
    low, high = (_end(above, below, ratio, side) for side in (-1.0, 1.0))
    return Interval(ratio, low, high, divisor.items)


def _end(above: np.ndarray, below: np.ndarray, ratio: float, side: float) -> float:
    """The first ratio on a side of the estimate at which the mean of the difference may no longer be 0."""
    from scipy.optimize import brentq

    def beyond(r: float) -> float:
        mean = crossed_mean(above - r * below)
        return abs(mean.value) - mean.half_width((1 - LEVEL) / 2)

    width = -beyond(ratio) / abs(crossed_mean(below).value)
    scale = 1e-9 * max(1.0, abs(ratio))
    if width <= scale:  # nothing varied
        return ratio
    inner, outer = ratio, ratio + side * width
    while beyond(outer) <= 0:  # it ends: far out only the divisor counts, which is not 0
        inner, outer = outer, ratio + 2 * (outer - ratio)
    return float(brentq(beyond, inner, outer, xtol=scale, rtol=1e-8))
