"""A value with its interval, and the percentile interval of its resamples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
"""Coverage of every bootstrap interval."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval (``wilson`` takes other levels); NaN bounds: there is a value but no interval."""

    value: float
    low: float
    high: float
    n: int
    """How many items the value was computed from."""

    def within(self, least: float, most: float) -> Interval:
        """The same with bounds that a score cannot pass."""
        return Interval(self.value, max(least, self.low), min(most, self.high), self.n)


def percentile_interval(value: float, resampled: np.ndarray, n: int, confidence: float = LEVEL) -> Interval:
    """The middle ``confidence`` of ``resampled`` [draws] around ``value``; NaN among them: NaN bounds."""
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high), n)
