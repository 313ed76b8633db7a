"""The scale of a picture of intervals: what is far worse than the rest is left off, so that it flattens nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REACH = 5.0
"""How many median half-widths worse than the middle a value may be to count as near."""
BEYOND = 2.0
"""How much farther, in the same unit, its interval may reach."""


@dataclass(frozen=True)
class Scale:
    """What is shown, and whose values are near."""

    low: float
    high: float
    near: np.ndarray
    """[V] bool"""

    def at(self, value: float) -> float:
        """Where a value lies, from 0 to 1; below or above where it is off the scale."""
        return (value - self.low) / (self.high - self.low)


def scale_of(values: np.ndarray, lows: np.ndarray, highs: np.ndarray, sign: int, middle: float | None = None) -> Scale:
    """The scale of values with intervals, [V] each; what is better than the middle is always near.

    Args:
        values: finite.
        lows: of the intervals; NaN for a value without one.
        highs: the same.
        sign: 1 where higher is better, -1 where lower is.
        middle: what has to be on the scale; None: the median.
    """
    values = np.asarray(values, np.float64)
    lows, highs = (np.where(np.isnan(ends), values, ends) for ends in (lows, highs))
    middle = float(np.median(values)) if middle is None else middle
    half = (highs - lows) / 2
    typical = float(np.median(half[half > 0])) if (half > 0).any() else float(np.median(np.abs(values - middle)) or 1.0)
    near = sign * (values - middle) >= -REACH * typical
    ends = [middle, *lows[near], *highs[near]]
    worst = middle - sign * (REACH + BEYOND) * typical  # an interval may be far wider than the others
    low, high = (max(min(ends), worst), max(ends)) if sign > 0 else (min(ends), min(max(ends), worst))
    if high <= low:
        low, high = middle - typical, middle + typical
    return Scale(low, high, near)
