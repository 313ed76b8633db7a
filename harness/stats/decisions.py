"""From intervals and p-values to decisions: better or worse, not inferior by a margin, and many comparisons at once."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.stats.components import Crossed, crossed_mean, seed_means
from harness.stats.distributions import normal_above, normal_below, normal_quantile
from harness.stats.interval import Interval
from harness.stats.proportions import FEWEST, paired_proportions, paired_score

FEWEST_ITEMS = 30
"""The mean of fewer losses is not normal enough to decide anything."""

Verdict = Literal["better", "worse", "unclear"]
MarginVerdict = Literal["pass", "fail", "inconclusive"]


def verdict(difference: Interval, p: float | None, alpha: float = 0.05) -> Verdict:
    """The comparison in a word, for a difference in a score where higher is better (negate a loss).

    ``better`` and ``worse`` need an interval that excludes 0 and, where there is a p-value, ``p < alpha``. A NaN in
    either is ``unclear``.
    """
    if not difference.low <= difference.high or (p is not None and not p < alpha):
        return "unclear"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "unclear"


@dataclass(frozen=True)
class NonInferiority:
    """A candidate against a reference and a margin, in a score where higher is better."""

    difference: Interval
    """Candidate minus reference; each end is a one-sided bound at level 1 - alpha."""
    margin: float
    p_inferior: float
    """Probability of such a difference or a higher one if the candidate were worse by the margin: small is a pass."""
    p_not_inferior: float
    """Probability of such a difference or a lower one if the candidate were worse by the margin: small is a fail."""
    crossed: Crossed
    """The difference with its variance: what more items would average out, and what not."""

    def needed(self, alpha: float = 0.05, power: float = 0.8) -> int | None:
        """The items that would decide at this level if the difference stays what it is; None where none would.

        "Decide": with this probability the bound of the difference is on the margin's other side.
        """
        gap, most = abs(self.difference.value + self.margin), 10**9
        chance = float(-normal_quantile(power))

        def decides(items: int) -> bool:
            mean = self.crossed.with_items(items)
            return gap >= mean.half_width(alpha) + chance * max(mean.standard_error, math.sqrt(mean.least))

        if not gap or not decides(most):
            return None
        fewest = FEWEST_ITEMS
        return fewest + bisect_left(range(fewest, most), True, key=decides)


def non_inferiority(
    candidate: np.ndarray, reference: np.ndarray, margin: float, alpha: float = 0.05
) -> NonInferiority:
    """Test whether the candidate is worse than the reference by more than ``margin``.

    Right and wrong answers of one seed, or with hardly a difference, are tested by Tango's score test; everything else
    by Student's t with the variance of seeds and items (``crossed_mean``).

    Args:
        candidate: [S, N] a score per seed and item, higher is better (negate a loss); NaN where a seed has no item.
        reference: [S, N] the same of the reference, on the same items.
        margin: the drop in the mean that is accepted, >= 0.
        alpha: level of either one-sided test.

    Raises:
        ValueError: for shapes that differ or are no table, or scores that are not finite.
    """
    candidate, reference = np.asarray(candidate, np.float64), np.asarray(reference, np.float64)
    if candidate.shape != reference.shape or candidate.ndim != 2 or not candidate.size:
        raise ValueError(f"scores have shapes {candidate.shape} and {reference.shape}, expected both [seeds, items]")
    known = ~np.isnan(candidate)
    if (np.isnan(reference) == known).any() or not known.any(axis=1).all():
        raise ValueError("candidate and reference are scored on other items, or a seed on none")
    difference = candidate - reference
    if not known.any(axis=0).all():
        difference = difference[:, known.any(axis=0)]
    if np.isinf(difference).any() or not np.isfinite(candidate[known]).all():
        raise ValueError("scores must be finite")
    outcomes = bool(np.isin(candidate[known], (0, 1)).all() and np.isin(reference[known], (0, 1)).all())
    discordant = int(np.nan_to_num(difference).any(axis=0).sum())
    if outcomes and (len(difference) == 1 or discordant < FEWEST):
        return _by_score(difference, margin, alpha)
    if difference.shape[1] < FEWEST_ITEMS:
        unknown = Interval(float(seed_means(difference).mean()), np.nan, np.nan, difference.shape[1])
        return NonInferiority(unknown, margin, 1.0, 1.0, _as_items(difference, float(np.nanvar(difference))))
    mean = crossed_mean(difference)
    p_inferior = mean.p_below(-margin)
    interval = mean.interval(1 - 2 * alpha)
    return NonInferiority(interval, margin, p_inferior, 1 - p_inferior, mean)


def non_inferiority_verdict(p_inferior: float, p_not_inferior: float, alpha: float = 0.05) -> MarginVerdict:
    """The decision from the two p-values, corrected or not; NaN decides nothing."""
    if p_inferior <= alpha:
        return "pass"
    return "fail" if p_not_inferior <= alpha else "inconclusive"


def _by_score(difference: np.ndarray, margin: float, alpha: float) -> NonInferiority:
    items = difference.shape[1]
    shares = [((sign * difference > 0).sum(axis=1) / (~np.isnan(difference)).sum(axis=1)).mean() for sign in (1, -1)]
    gained, lost = (round(float(share) * items, 9) for share in shares)
    z = paired_score(gained, lost, items, -margin)
    # Means over seeds are rounded outwards: the interval is of whole counts.
    low = paired_proportions(int(gained), int(np.ceil(lost)), items, 1 - 2 * alpha).low
    high = paired_proportions(int(np.ceil(gained)), int(lost), items, 1 - 2 * alpha).high
    interval = Interval((gained - lost) / items, low, high, items)
    # Models that never differed: those the test has to exclude are a margin apart.
    variance = float(np.nanmean(difference, axis=0).var()) or margin * (1 - margin)
    p_inferior, p_not_inferior = float(normal_above(z)), float(normal_below(z))
    return NonInferiority(interval, margin, p_inferior, p_not_inferior, _as_items(difference, variance))


def _as_items(difference: np.ndarray, variance: float) -> Crossed:
    """A difference whose variance [seeds, items] is that of its items alone."""
    items = difference.shape[1]
    value = float(seed_means(difference).mean())
    return Crossed(value, 1, items, variance, 0.0, variance / items, 0.0, variance / items)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected so that the chance of any false rejection among them is at most the level (Holm 1979)."""
    p = _checked(p_values)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return [float(value) for value in corrected]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """p-values corrected so that the expected share of false rejections is at most the level (1995)."""
    from scipy.stats import false_discovery_control

    p = _checked(p_values)
    return [float(value) for value in false_discovery_control(p)] if p.size else []


def _checked(p_values: Sequence[float]) -> np.ndarray:
    p = np.asarray(p_values, np.float64)
    if not ((p >= 0) & (p <= 1)).all():  # NaN too
        raise ValueError("p-values must be in 0..1")
    return p
