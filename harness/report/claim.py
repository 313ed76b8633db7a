"""One claim of the theory with what a run says of it: held, not held, undecided or not tested."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness import stats
from harness.display.formats import number, points, points_interval


@dataclass(frozen=True)
class Claim:
    """One claim; ``estimate`` with its interval is in the units that ``statistic`` names."""

    claim: str
    statistic: str
    estimate: float | None
    low: float | None
    high: float | None
    n: int | None
    verdict: str
    """held, not held, undecided or not tested"""
    unit: str = "points"
    note: str = ""

    @property
    def shown(self) -> str:
        """The estimate with its interval."""
        if self.estimate is None:
            return "–"
        if self.unit == "points":
            interval = points_interval(self.low, self.high)
            return points(self.estimate) + (f" [{interval}]" if interval else "")
        digits = 3 if self.unit == "bits per byte" else 2
        if self.low is None or self.high is None:
            return number(self.estimate, digits)
        return f"{number(self.estimate, digits)} [{number(self.low, digits)} .. {number(self.high, digits)}]"


def _sign(interval: stats.Interval, wanted: int) -> str:
    low, high = (interval.low, interval.high) if wanted > 0 else (-interval.high, -interval.low)
    return "held" if low > 0 else "not held" if high < 0 else "undecided"


def judged(
    claim: str, statistic: str, interval: stats.Interval, wanted: int = 1, note: str = "", unit: str = "points"
) -> Claim:
    """The verdict is by the sign of the interval, which is to be that of ``wanted``."""
    low, high = (None, None) if np.isnan(interval.low) else (interval.low, interval.high)
    verdict = _sign(interval, wanted)
    return Claim(claim, statistic, interval.value, low, high, interval.n, verdict, unit, note)


def untested(claim: str, why: str) -> Claim:
    """A claim that this run cannot test, and why."""
    return Claim(claim, "", None, None, None, None, "not tested", note=why)
