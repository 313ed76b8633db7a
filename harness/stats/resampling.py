"""Bootstrap intervals over items, and of scores over seeds."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from harness.stats.components import crossed_mean, seed_means
from harness.stats.interval import Interval, percentile_interval


def resample_counts(n: int, draws: int = 10_000, seed: int = 0) -> np.ndarray:
    """How often each of ``n`` items occurs in each bootstrap draw: [draws, n] uint8, read-only.

    Cached, so that all variants scored on the same items share the draws and their differences are paired. It holds
    draws * n bytes (100 MB for 10,000 items); the two latest are kept. No item is drawn more than 255 times: of more
    items than that, it has no chance that could be told from none.
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
    return percentile_interval(float(values.mean()), _resampled_means(values, counts), len(values))


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


def over_seeds(values: np.ndarray, draws: int = 10_000, seed: int = 0) -> Interval:
    """Interval of the mean of ``values`` [S, N]: S seeds scored on N items, NaN where one was not; ``n`` is N.

    That of ``crossed_mean``; of one seed the percentile interval over the items.

    Raises:
        ValueError: if ``values`` is not a table with at least one seed, and one item of each.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not values.size or np.isnan(values).all(axis=1).any():
        raise ValueError(f"values have shape {values.shape}, expected [seeds, items] with an item of each seed")
    if (nowhere := np.isnan(values).all(axis=0)).any():
        values = values[:, ~nowhere]
    if len(values) == 1 or values.shape[1] == 1:
        return bootstrap_mean(np.nanmean(values, axis=0), resample_counts(values.shape[1], draws, seed))
    if np.isinf(values).any():
        return Interval(float(seed_means(values).mean()), np.nan, np.nan, values.shape[1])
    return crossed_mean(values).interval()


@lru_cache(maxsize=2)
def _cached_counts(n: int, draws: int, seed: int) -> np.ndarray:
    counts = draw_counts(np.random.default_rng(seed), n, draws)
    counts.setflags(write=False)
    return counts


def draw_counts(rng: np.random.Generator, n: int, draws: int) -> np.ndarray:
    """Multinomial counts [draws, n], a block of draws at a time so that the indices never exist all at once."""
    if n < 1:
        raise ValueError("there is nothing to resample")
    counts = np.empty((draws, n), np.uint8)
    block = max(1, 2**18 // n)
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        drawn = rng.integers(n, size=(rows, n), dtype=np.int32) + n * np.arange(rows)[:, None]
        counts[start : start + rows] = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
    return counts


def _resampled_means(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means [draws] of ``values`` [N] in each draw, float64; NaN where not all are finite."""
    if not np.isfinite(values).all():
        return np.full(len(counts), np.nan)
    if np.array_equal(values, np.rint(values)) and np.abs(values).max() * len(values) < 2**24:
        # Right and wrong answers: sums of whole numbers are exact, and a tie stays exactly 0.
        return weighted_sums(counts, values.astype(np.float32)) / len(values)
    # Centred and scaled first: float32 then loses digits of the spread only.
    centre = values.mean()
    scale = np.abs(values - centre).max() or 1.0
    scaled = ((values - centre) / scale).astype(np.float32)
    return centre + weighted_sums(counts, scaled) * (scale / len(values))


def weighted_sums(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``counts @ values`` in float32, as float64: [draws] or [draws, K] of values [N] or [N, K].

    A block of draws at a time is made float32: it stays in the cache, which is as quick as if all of them were.
    """
    sums = np.empty((len(counts), *values.shape[1:]), np.float32)
    rows = max(1, 2**19 // counts.shape[1])
    block = np.empty((min(rows, len(counts)), counts.shape[1]), np.float32)
    for start in range(0, len(counts), rows):
        part = block[: len(counts) - start]
        part[:] = counts[start : start + rows]
        sums[start : start + rows] = part @ values
    return sums.astype(np.float64)


def _check_counts(values: np.ndarray, counts: np.ndarray) -> None:
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values have shape {values.shape}, expected one for each item and at least one item")
    if counts.ndim != 2 or counts.shape[1] != len(values):
        raise ValueError(f"counts {counts.shape} are for another number of items than the {len(values)} values")
