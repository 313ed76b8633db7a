"""One claim of the theory with what a run says of it: held, not held, undecided or not tested."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from harness import stats
from harness.display.formats import number, points, points_interval
from harness.evaluate.decisions import LIKE_THESE, THESE
from harness.stats.distributions import student_quantile
from harness.stats.proportions import FEWEST
from harness.stats.simultaneous import FEWEST_UNITS, unit_means

HELD, NOT_HELD, UNDECIDED, NOT_TESTED = "held", "not held", "undecided", "not tested"


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
    scope: str = ""
    """What the verdict is about: these models, or models like these (``evaluate.decisions``)."""

    @property
    def shown(self) -> str:
        """The estimate with its interval."""
        return "–" if self.estimate is None else in_units(self.estimate, self.low, self.high, self.unit)


def in_units(value: float, low: float | None, high: float | None, unit: str) -> str:
    """A value with its interval, as ``Claim.shown``."""
    if unit == "points":
        interval = points_interval(low, high)
        return points(value) + (f" [{interval}]" if interval else "")
    shown = plain if unit in ("r", "probability", "share") else signed
    if low is None or high is None:
        return shown(value)
    return f"{shown(value)} [{shown(low)} .. {shown(high)}]"


def plain(value: float) -> str:
    """A coefficient or a probability: 0.97."""
    return number(value, 2)


def signed(value: float) -> str:
    """A difference: +0.012."""
    return ("+" if value >= 0 else "") + number(value, 3)


@dataclass(frozen=True)
class Test:
    """What a claim says of a mean."""

    wanted: int = 1
    """1 where the claim says that it is higher than ``bar``, -1 where it says lower."""
    bar: float = 0.0
    """Of a claim that nothing is lost, the margin that may be: -margin where higher is better."""
    alike: float | None = None
    """So near to the bar there is no difference worth the name, and a claim of one is not held."""

    def verdict(self, low: float, high: float) -> str:
        """In a word, of the mean's interval."""
        near, far = sorted((self.wanted * (low - self.bar), self.wanted * (high - self.bar)))
        if near > 0:
            return HELD
        if far < 0 or (self.alike is not None and -self.alike <= near and far <= self.alike):
            return NOT_HELD
        return UNDECIDED  # also where a bound is NaN


ABOVE_0 = Test()


def decided(
    claim: str, statistic: str, values: np.ndarray, test: Test = ABOVE_0, unit: str = "points", note: str = ""
) -> Claim:
    """What the mean of ``values`` [seeds, units] says; NaN where a seed has no such unit.

    The verdict is about these models: units (examples, documents) are a sample, the seeds' models are those that there
    are. With several seeds the note tells what holds of models like these, of which the seeds are a sample.
    """
    these = of_these(values)
    found = judged(claim, statistic, these, test, unit, note, THESE)
    if found.verdict == NOT_HELD and replace(test, alike=None).verdict(these.low, these.high) == UNDECIDED:
        found = _noted(found, f"any difference is below {in_size(test.alike, unit)}")
    if len(values) == 1 or (~np.isnan(values)).sum(axis=1).min() < 2:
        return found
    like = stats.over_seeds(values)
    if np.isnan(like.low):
        return found
    word = test.verdict(like.low, like.high)
    interval = in_units(like.value, like.low, like.high, unit).partition(" ")[2]
    return _noted(found, f"{LIKE_THESE}: {interval}, {word}")


def judged(
    claim: str,
    statistic: str,
    interval: stats.Interval,
    test: Test = ABOVE_0,
    unit: str = "points",
    note: str = "",
    scope: str = LIKE_THESE,
) -> Claim:
    """What an interval says that was made elsewhere."""
    low, high = (None, None) if np.isnan(interval.low) else (interval.low, interval.high)
    verdict = test.verdict(interval.low, interval.high)
    return Claim(claim, statistic, interval.value, low, high, interval.n, verdict, unit, note, scope)


def _noted(claim: Claim, words: str) -> Claim:
    return replace(claim, note="; ".join(filter(None, (claim.note, words))))


def in_size(size: float | None, unit: str) -> str:
    """A size without its sign: 0.50 points, 0.003 nats."""
    return f"{100 * (size or 0):.2f} points" if unit == "points" else f"{number(size)} {unit}"


def untested(claim: str, why: str) -> Claim:
    """A claim that this run cannot test, and why."""
    return Claim(claim, "", None, None, None, None, NOT_TESTED, note=why)


def of_these(values: np.ndarray) -> stats.Interval:
    """The mean over seeds of [seeds, units], with its interval over units; NaN bounds for fewer than 30 of them."""
    values = np.asarray(values, np.float64)
    values = values[:, ~np.isnan(values).all(axis=0)]
    units = values.shape[1]
    value = float(stats.seed_means(values).mean())
    if units < FEWEST_UNITS or not np.isfinite(value):
        return stats.Interval(value, np.nan, np.nan, units)
    known = values[~np.isnan(values)]
    if np.isin(known, (-1.0, 0.0, 1.0)).all() and (few := _few(values)) is not None:
        return stats.Interval(value, *few, units)
    if np.isin(known, (0.0, 1.0)).all() and (few := _few(1 - values)) is not None:
        return stats.Interval(value, 1 - few[1], min(1.0, 1 - few[0]), units)
    half = float(student_quantile(0.025, units - 1) * unit_means([values]).standard_errors[0])
    return stats.Interval(value, value - half, value + half, units)


def _few(values: np.ndarray) -> tuple[float, float] | None:
    """The interval of a mean of outcomes that hardly any unit changes: by the score test, as in the decisions."""
    units, known = values.shape[1], (~np.isnan(values)).sum(axis=1)
    if int(np.nan_to_num(values).any(axis=0).sum()) >= FEWEST:
        return None
    gained, lost = (float(((values == sign).sum(axis=1) / known).mean() * units) for sign in (1, -1))
    low = stats.paired_proportions(int(gained + 1e-9), int(np.ceil(lost - 1e-9)), units).low
    high = stats.paired_proportions(int(np.ceil(gained - 1e-9)), int(lost + 1e-9), units).high
    return low, high
