"""Intervals, paired comparisons and correlations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from harness.evaluate.metrics import confidence_bins

# scipy.stats takes over a second to import, so the functions that need it import it themselves.

LEVEL = 0.95
"""Coverage of every bootstrap interval."""

FEWEST_RESAMPLES = 10
"""A correlation has no interval if fewer different resamples of its members are usable."""

Verdict = Literal["better", "worse", "unclear"]


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval (``wilson`` takes other levels); NaN bounds: there is a value but no interval."""

    value: float
    low: float
    high: float
    n: int
    """How many items the value was computed from."""


@dataclass(frozen=True)
class Correlation:
    """Three correlations over subsets of members, with intervals from resampling the members."""

    n: int
    """Subsets, that is points in the scatter plot."""
    members: int
    """Members that occur in the subsets, the units that were resampled."""
    draws: int
    draws_used: int
    """Draws that left three subsets and some variance; the intervals are percentiles over these only."""
    pearson: Interval
    spearman: Interval
    kendall: Interval


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927), without continuity correction.

    Raises:
        ValueError: if ``n`` is 0 or ``successes`` is not in 0..n.
    """
    from scipy.stats import binomtest

    if n < 1:
        raise ValueError("a proportion needs at least one item")
    successes, n = int(successes), int(n)
    bounds = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Interval(successes / n, float(bounds.low), float(bounds.high), n)


def resample_counts(n: int, draws: int = 10_000, seed: int = 0) -> np.ndarray:
    """How often each of ``n`` items occurs in each bootstrap draw: [draws, n] float32, read-only.

    Cached, so that all variants scored on the same items share the draws and their differences are paired. It holds
    4 * draws * n bytes (100 MB for 2,500 items); the two latest are kept.
    """
    return _cached_counts(n, draws, seed)


def bootstrap_mean(values: np.ndarray, counts: np.ndarray) -> Interval:
    """Percentile interval of the mean of ``values`` [N], with ``counts`` [draws, N] from ``resample_counts``.

    Non-finite values give a non-finite value and NaN bounds: the caller reports a failed variant.

    Raises:
        ValueError: for no values, or counts over another number of items.
    """
    values = np.asarray(values, np.float64)
    _check_counts(values, counts)
    return _percentile_interval(float(values.mean()), _resampled_means(values, counts), len(values))


def bootstrap_ece(confidence: np.ndarray, correct: np.ndarray, counts: np.ndarray, bins: int = 15) -> Interval:
    """Interval of the expected calibration error of ``confidence`` and ``correct`` [N] over equal-width bins.

    Raises:
        ValueError: for no examples, counts or ``correct`` over another number of items, or confidences outside 0..1.
    """
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    _check_counts(confidence, counts)
    return _percentile_interval(*_ece_and_resampled(confidence, correct, counts, bins), len(confidence))


def ece_over_seeds(
    confidence: np.ndarray, correct: np.ndarray, bins: int = 15, draws: int = 10_000, seed: int = 0
) -> Interval:
    """Interval of the mean over seeds of the ECE of ``confidence`` and ``correct`` [S, N], as ``over_seeds``."""
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    counts = resample_counts(confidence.shape[1], draws, seed)
    found = [_ece_and_resampled(c, r, counts, bins) for c, r in zip(confidence, correct, strict=True)]
    resampled = _resampled_over_seeds(np.stack([r for _, r in found], axis=1), draws, seed)
    return _percentile_interval(float(np.mean([value for value, _ in found])), resampled, confidence.shape[1])


def _ece_and_resampled(
    confidence: np.ndarray, correct: np.ndarray, counts: np.ndarray, bins: int
) -> tuple[float, np.ndarray]:
    if correct.shape != confidence.shape:
        raise ValueError(f"confidence {confidence.shape} and correct {correct.shape} must be equally long")
    index = confidence_bins(confidence, bins)
    gaps = np.zeros((len(confidence), bins), np.float32)
    gaps[np.arange(len(confidence)), index] = confidence - correct
    resampled = np.abs(counts @ gaps).sum(axis=1, dtype=np.float64) / len(confidence)
    value = np.abs(np.bincount(index, weights=confidence - correct)).sum() / len(confidence)
    return float(value), resampled


def paired_difference(candidate: np.ndarray, reference: np.ndarray, counts: np.ndarray) -> Interval:
    """Percentile interval of the mean of ``candidate - reference`` [N], row by row on the same items.

    Raises:
        ValueError: if the two are not equally long, or as ``bootstrap_mean``.
    """
    candidate, reference = np.asarray(candidate, np.float64), np.asarray(reference, np.float64)
    if candidate.shape != reference.shape:
        raise ValueError(f"paired scores differ in shape: {candidate.shape} and {reference.shape}")
    with np.errstate(invalid="ignore"):
        return bootstrap_mean(candidate - reference, counts)


def mcnemar_exact(candidate_correct: np.ndarray, reference_correct: np.ndarray) -> float:
    """Two-sided exact p-value that both are right equally often, from the items [N] where only one is right.

    1.0 where there is no such item. Source: McNemar 1947, with the binomial distribution in place of chi-squared.

    Raises:
        ValueError: if the two are not equally long.
    """
    from scipy.stats import binomtest

    candidate, reference = np.asarray(candidate_correct, bool), np.asarray(reference_correct, bool)
    if candidate.shape != reference.shape:
        raise ValueError(f"paired outcomes differ in shape: {candidate.shape} and {reference.shape}")
    gained, lost = int((candidate & ~reference).sum()), int((reference & ~candidate).sum())
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


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


def over_seeds(values: np.ndarray, draws: int = 10_000, seed: int = 0) -> Interval:
    """Percentile interval of the mean of ``values`` [S, N]: S seeds scored on the same N items; ``n`` is N.

    Each draw resamples the seeds and, apart from that, the items: one draw of items for all seeds, since they share
    them. One seed leaves the items only. With few seeds the spread between them is understated, by (S - 1) / S in
    variance, as in any bootstrap of so few.

    Raises:
        ValueError: if ``values`` is not a table with at least one seed and one item.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"values have shape {values.shape}, expected [seeds, items]")
    items = values.shape[1]
    per_seed = _resampled_means(values.T, resample_counts(items, draws, seed))  # [draws, S]
    return _percentile_interval(float(values.mean()), _resampled_over_seeds(per_seed, draws, seed), items)


def _resampled_over_seeds(per_seed: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """The mean over resampled seeds [draws] of what each draw of items gave for every seed [draws, S]."""
    seeds = per_seed.shape[1]
    # A stream of its own: with as many seeds as items, the same one would resample both alike.
    of_seeds = _draw_counts(np.random.default_rng([seed, 1]), seeds, draws)
    return (per_seed * of_seeds).sum(axis=1) / seeds


def correlation(
    x: np.ndarray, y: np.ndarray, membership: np.ndarray, draws: int = 2_000, seed: int = 0
) -> Correlation:
    """Correlations of two scores over subsets of members, with intervals that allow for the members they share.

    Subsets that share members are not independent, so a draw resamples members: member m is drawn c_m times, and a
    subset weighs the product of c_m over its members, which is how often it can be put together from the drawn ones.
    Each coefficient is then computed as if every subset were repeated by its weight (mid-ranks for Spearman, tau-b
    for Kendall). Percentiles over the usable draws: three different subsets left, and neither score constant.

    Limits: a subset drops out of every draw that misses one of its members, so the intervals rest mostly on small
    subsets (all of 8 members are drawn together in 0.2 % of draws). With fewer than ``FEWEST_RESAMPLES`` different
    usable resamples (three members or fewer; subsets that leave out one member) there is no interval: NaN. Few members
    give rough intervals in any case, for which ``members`` and ``draws_used`` are there to be shown.

    Args:
        x: [K] one score of each subset.
        y: [K] the other.
        membership: [K, M] bool, which members make up each subset.
        draws: how many times the members are resampled.
        seed: of the resampling.

    Returns:
        All coefficients NaN where x or y is constant or there are fewer than two subsets.

    Raises:
        ValueError: for scores that are not finite, shapes that do not fit, or a subset without members.
    """
    x, y, membership = np.asarray(x, np.float64), np.asarray(y, np.float64), np.asarray(membership, bool)
    _check_subsets(x, y, membership)
    membership = membership[:, membership.any(axis=0)]
    subsets, members = membership.shape
    values = _Weighted(x, y, np.ones((1, subsets))).coefficients()
    counts = _draw_counts(np.random.default_rng(seed), members, draws)
    weights = _subset_weights(counts, membership)
    distinct = np.unique(membership, axis=0, return_index=True)[1]
    weighted = _Weighted(x, y, weights)
    usable = ((weights[:, distinct] > 0).sum(axis=1) >= 3) & weighted.varies()
    enough = len(np.unique(counts[usable], axis=0)) >= FEWEST_RESAMPLES
    nothing = np.array([np.nan])
    pearson, spearman, kendall = (
        _percentile_interval(float(value[0]), resampled[usable] if enough else nothing, subsets)
        for value, resampled in zip(values, weighted.coefficients(), strict=True)
    )
    return Correlation(subsets, members, draws, int(usable.sum()), pearson, spearman, kendall)


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


def _subset_weights(counts: np.ndarray, membership: np.ndarray) -> np.ndarray:
    """The product of the counts [D, M] over the members of each subset: [D, K] float64."""
    weights = np.ones((len(counts), len(membership)))
    for drawn, takes_part in zip(counts.T, membership.T, strict=True):
        weights[:, takes_part] *= drawn[:, None]
    return weights


@lru_cache(maxsize=2)
def _cached_counts(n: int, draws: int, seed: int) -> np.ndarray:
    counts = _draw_counts(np.random.default_rng(seed), n, draws)
    counts.setflags(write=False)
    return counts


def _draw_counts(rng: np.random.Generator, n: int, draws: int) -> np.ndarray:
    """Multinomial counts [draws, n], a block of draws at a time so that the indices never exist all at once."""
    if n < 1:
        raise ValueError("there is nothing to resample")
    counts = np.empty((draws, n), np.float32)
    block = max(1, 2**18 // n)
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        drawn = rng.integers(n, size=(rows, n), dtype=np.int32) + n * np.arange(rows)[:, None]
        counts[start : start + rows] = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
    return counts


def _resampled_means(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means of each draw for ``values`` [N] or [N, S]: [draws] or [draws, S] float64; NaN where not all are finite."""
    if not np.isfinite(values).all():
        return np.full((len(counts), *values.shape[1:]), np.nan)
    if np.array_equal(values, np.rint(values)) and np.abs(values).max() * len(values) < 2**24:
        # Right and wrong answers: sums of whole numbers are exact, and a tie stays exactly 0.
        return (counts @ values.astype(np.float32)).astype(np.float64) / len(values)
    # Centred and scaled first: float32 then loses digits of the spread only, and the counts are not copied.
    centre = values.mean(axis=0)
    scale = np.abs(values - centre).max() or 1.0
    scaled = ((values - centre) / scale).astype(np.float32)
    return centre + (counts @ scaled).astype(np.float64) * (scale / len(values))


def _percentile_interval(value: float, resampled: np.ndarray, n: int) -> Interval:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high), n)


def _check_counts(values: np.ndarray, counts: np.ndarray) -> None:
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values have shape {values.shape}, expected one for each item and at least one item")
    if counts.ndim != 2 or counts.shape[1] != len(values):
        raise ValueError(f"counts {counts.shape} are for another number of items than the {len(values)} values")


def _check_subsets(x: np.ndarray, y: np.ndarray, membership: np.ndarray) -> None:
    if x.ndim != 1 or x.shape != y.shape or membership.ndim != 2 or len(membership) != len(x) or not len(x):
        raise ValueError(f"x {x.shape}, y {y.shape} and membership {membership.shape} must describe the same subsets")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("scores must be finite")
    if not membership.any(axis=1).all():
        raise ValueError("a subset has no members")
