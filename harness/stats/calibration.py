"""Intervals of the expected calibration error, which is measured too large: a bin's gap counts whatever its sign."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.stats.bins import confidence_bins
from harness.stats.components import crossed_statistic
from harness.stats.distributions import normal_above
from harness.stats.interval import LEVEL, Interval
from harness.stats.resampling import resample_counts, weighted_sums

_SCALES = np.linspace(0, 2.5, 51)
"""Sizes of the true gaps that are tried, in units of those measured."""


@dataclass(frozen=True)
class _Bins:
    """The gaps of one model's bins: confidence less accuracy, times the bin's share of the items."""

    each: np.ndarray
    """[N, bins]: of every item, in the bin that it is in."""
    errors: np.ndarray
    """Standard error of each bin's gap [bins]: as the items vary, or as they would if confidences were right; a bin of
    a few items that were all right has no variance to be seen, and that is no certainty."""

    @classmethod
    def of(cls, confidence: np.ndarray, correct: np.ndarray, bins: int) -> _Bins:
        if correct.shape != confidence.shape:
            raise ValueError(f"confidence {confidence.shape} and correct {correct.shape} must be equally long")
        if confidence.ndim != 1 or not len(confidence):
            raise ValueError(f"confidences have shape {confidence.shape}, expected one for each item and at least one")
        count, inside = len(confidence), confidence_bins(confidence, bins)
        each = np.zeros((count, bins))
        each[np.arange(count), inside] = confidence - correct
        if_right = np.bincount(inside, weights=confidence * (1 - confidence), minlength=bins) / count
        return cls(each, np.sqrt(np.maximum(each.var(axis=0), if_right) / count))

    @cached_property
    def sizes(self) -> np.ndarray:
        """[bins], their sum being the calibration error."""
        return np.asarray(np.abs(self.each.mean(axis=0)))

    def bias(self) -> float:
        """By how much the error of bins whose true gaps are just to be expected after these exceeds their own."""
        in_errors = np.divide(self.sizes, self.errors, out=np.zeros_like(self.sizes), where=self.errors > 0)
        grid = np.linspace(0, 6, 601)
        likely = np.where(in_errors > 5, in_errors, np.interp(in_errors, _folded_mean(grid), grid))
        return float((self.errors * (_folded_mean(likely) - likely)).sum())


def _folded_mean(mean: np.ndarray) -> np.ndarray:
    """Mean of |Z + mean| for a standard normal Z (Leone, Nelson and Nottingham 1961)."""
    return np.asarray(np.sqrt(2 / np.pi) * np.exp(-(mean**2) / 2) + mean * (1 - 2 * normal_above(mean)))


def ece_interval(
    confidence: np.ndarray, correct: np.ndarray, bins: int = 15, draws: int = 2_000, seed: int = 0
) -> Interval:
    """Interval of the expected calibration error of ``confidence`` and ``correct`` [N] over equal-width bins.

    All errors that the measured one does not reject: true gaps of so many times the measured ones are tried, each with
    normal noise of the bins' standard errors, and kept while the measured error is among the middle 95 % of what comes
    of them. It goes up to the measured error at least, and to 1 at most. In simulations it covers 93 to 98 %, most
    where a model is nearly calibrated and the measured error nearly all noise; percentiles of a bootstrap would cover
    0 % there.

    Raises:
        ValueError: for no examples, ``correct`` over another number of items, or confidences outside 0..1.
    """
    binned = _Bins.of(np.asarray(confidence, np.float64), np.asarray(correct, np.float64), bins)
    value = float(binned.sizes.sum())
    noise = np.random.default_rng(seed).normal(size=(draws, bins)) * binned.errors
    noise, sizes = np.ascontiguousarray(noise.T), binned.sizes[:, None]  # sums over whole rows take a fifth of the time
    reached = sizes.sum(axis=0)  # in the order of the sums that are compared with it: without noise they are equal
    above = [float((np.abs(scale * sizes + noise).sum(axis=0) >= reached).mean()) for scale in _SCALES]
    tails = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    low, high = (value * float(np.interp(tail, above, _SCALES)) for tail in tails)
    return Interval(value, low if above[0] < tails[0] else 0.0, min(1.0, max(value, high)), len(binned.each))


def ece_over_seeds(
    confidence: np.ndarray, correct: np.ndarray, bins: int = 15, draws: int = 10_000, seed: int = 0
) -> Interval:
    """Interval of the mean over seeds of the ECE of ``confidence`` and ``correct`` [S, N]; one seed: ``ece_interval``.

    ``correct`` is NaN where a seed was not scored on an item.
    That of ``crossed_statistic`` around the measured value less its bias, up to the measured value at least, 1 at most.
    """
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    known = ~np.isnan(correct)
    binned = [_Bins.of(c[k], r[k], bins) for c, r, k in zip(confidence, correct, known, strict=True)]
    if len(confidence) == 1:
        return ece_interval(confidence[known], correct[known], bins, draws, seed)
    items = confidence.shape[1]
    counts = resample_counts(items, draws, seed)
    resampled = []
    for one, mine in zip(binned, known, strict=True):
        drawn = counts if mine.all() else counts[:, mine]
        shares = np.abs(weighted_sums(drawn, one.each.astype(np.float32))).sum(axis=1)
        resampled.append(shares / (items if mine.all() else np.maximum(drawn.sum(axis=1, dtype=np.float64), 1)))
    of_seeds, bias = np.array([one.sizes.sum() for one in binned]), float(np.mean([one.bias() for one in binned]))
    interval = crossed_statistic(of_seeds, np.stack(resampled, axis=1), items).interval()
    low, high = interval.low - bias, interval.high - bias
    return Interval(interval.value, max(0.0, low), min(1.0, max(interval.value, high)), items)
