"""A score over seeds and items: its variance from either, and intervals and p-values that allow for few seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from harness.stats import critical
from harness.stats.distributions import student_above, student_quantile
from harness.stats.interval import Interval


@dataclass(frozen=True)
class Crossed:
    """A mean over seeds of a score on shared items, both taken as samples: what others of either would have given."""

    value: float
    seeds: int
    items: int
    item_variance: float
    """From item to item, which more items average out."""
    seed_variance: float
    """What the seeds add to the variance of the mean, which more items do not lessen."""
    shared: float
    """The part of the variance of the mean that the items have in common over the seeds: known from all items."""
    own: float
    """The rest of it, which differs from seed to seed: known from the seeds only."""
    least: float
    """What the items alone would give the mean if the seeds were alike: known from all items."""

    @property
    def standard_error(self) -> float:
        return float(np.sqrt(self.shared + self.own))

    @property
    def seed_share(self) -> float:
        """The share of the variance of the mean that is known from the seeds only."""
        total = self.shared + self.own
        return self.own / total if total else 0.0

    def with_items(self, items: int) -> Crossed:
        """What another number of items would give: they average out all but what the seeds themselves differ by."""
        share = self.items / items
        own = self.seed_variance + (self.own - self.seed_variance) * share
        return replace(self, items=items, shared=self.shared * share, own=own, least=self.least * share)

    def interval(self, confidence: float = 0.95) -> Interval:
        """Between the bounds at ``half_width``; no width where nothing varied."""
        half = self.half_width((1 - confidence) / 2)
        return Interval(self.value, self.value - half, self.value + half, self.items)

    def half_width(self, alpha: float) -> float:
        """From the mean to its one-sided bound at this level, below .5.

        Student's t of the items for one seed, else ``critical.reach``; and never less than the items alone allow, where
        a few seeds happen to agree.
        """
        quantile = float(student_quantile(alpha, self.items - 1))
        of_items = quantile * float(np.sqrt(self.least))
        if self.seeds == 1:
            return of_items
        return max(of_items, critical.reach(quantile, self.seed_share, self.seeds) * self.standard_error)

    def p_below(self, value: float) -> float:
        """Probability of a mean this high or more if the true one is ``value``; 0.5 if it is, and nothing varied."""
        distance = self.value - value
        if not max(self.least, self.standard_error):
            return 0.5 if not distance else float(distance < 0)
        quantile = abs(distance) / float(np.sqrt(self.least)) if self.least else np.inf
        if self.seeds > 1 and self.standard_error:
            of_seeds = critical.quantile(abs(distance) / self.standard_error, self.seed_share, self.seeds)
            quantile = min(quantile, of_seeds)  # the weaker of the two, as for the bounds
        return float(student_above(quantile if distance > 0 else -quantile, self.items - 1))


def crossed_mean(values: np.ndarray) -> Crossed:
    """The mean of ``values`` [S, N]: S seeds scored on N >= 2 items, on all of them or each on some (NaN where not).

    With gaps it is the mean of the seeds' means, and what seeds have in common is known from the items that they share.
    Mean squares of the two-way layout with random seeds and items (Searle, Casella and McCulloch 1992, chapter 4); a
    component estimated below 0 counts as 0. The interval covers what it says, or more where the seeds differ by no more
    than their items make them (with three seeds up to 98.7 % for 95): it is then no narrower than the items allow. A
    bootstrap of so few seeds covers up to 12 points less where they differ (Owen 2007).

    Raises:
        ValueError: if ``values`` is not a table with at least one seed and two items of each.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or len(values) < 1 or values.shape[1] < 2:
        raise ValueError(f"values have shape {values.shape}, expected [seeds, items] with two items or more")
    if np.isnan(values).any():
        return _with_gaps(values)
    seeds, items = values.shape
    of_items, of_seeds = values.mean(axis=0), values.mean(axis=1)
    mean = float(values.mean())
    between_items = seeds * float(of_items.var(ddof=1))
    if seeds == 1:
        return Crossed(mean, 1, items, between_items, 0.0, between_items / items, 0.0, between_items / items)
    between_seeds = items * float(of_seeds.var(ddof=1))
    rest = float(((values - of_items - of_seeds[:, None] + mean) ** 2).sum()) / ((seeds - 1) * (items - 1))
    cells = seeds * items
    return Crossed(
        mean,
        seeds,
        items,
        item_variance=between_items / seeds,
        seed_variance=max(0.0, between_seeds - rest) / cells,
        shared=max(0.0, between_items - rest) / cells,
        own=between_seeds / cells,
        least=(max(0.0, between_items - rest) + rest) / cells,
    )


def _with_gaps(values: np.ndarray) -> Crossed:
    """``crossed_mean`` where seeds were scored on some items each: the same numbers where there are no gaps.

    With a the variance of a seed's mean over its items and c the covariance of two seeds' means through the items that
    both have, means over the seeds and over their pairs: the items give the mean c + (a - c) / S, and c is shared.
    """
    known = ~np.isnan(values)
    counts = known.sum(axis=1)  # [S]
    if counts.min() < 2:
        raise ValueError(f"a seed has {counts.min()} items, expected two or more")
    items, seeds = int(known.any(axis=0).sum()), len(values)
    of_seeds = seed_means(values)
    mean = float(of_seeds.mean())
    weights = 1 / np.sqrt(counts * (counts - 1.0))
    rest = np.where(known, values - of_seeds[:, None], 0.0) * weights[:, None]
    moments = rest @ rest.T  # [S, S]: variances of the seeds' means over items, and their covariances
    own_items = float(np.trace(moments)) / seeds
    if seeds == 1:
        return Crossed(mean, 1, items, own_items * items, 0.0, own_items, 0.0, own_items)
    common = (float(moments.sum()) - seeds * own_items) / (seeds * (seeds - 1))
    own, apart = float(of_seeds.var(ddof=1)) / seeds, (own_items - common) / seeds
    return Crossed(
        mean,
        seeds,
        items,
        item_variance=items * max(0.0, common + apart),
        seed_variance=max(0.0, own - apart),
        shared=max(0.0, common),
        own=own,
        least=max(0.0, common) + apart,
    )


def seed_means(values: np.ndarray) -> np.ndarray:
    """The mean [S] of each seed of a table [S, N] over the items that it was scored on, those that are not NaN."""
    return np.asarray(np.nanmean(values, axis=1) if np.isnan(values).any() else values.mean(axis=1))


def crossed_statistic(of_seeds: np.ndarray, resampled: np.ndarray, items: int) -> Crossed:
    """The mean over seeds of any statistic of the items, whose variance is taken from resamples of these.

    With v the variance that all seeds share and w each one's own, the mean over seeds varies by v + w / S over the
    resamples and a single seed by v + w, which gives both. Of means this is ``crossed_mean`` but for the resampling.

    Args:
        of_seeds: [S] the statistic of each seed, S >= 2.
        resampled: [draws, S] the same on resampled items, the same items for all seeds in a draw.
        items: how many there are.
    """
    seeds = len(of_seeds)
    together, single = float(resampled.mean(axis=1).var()), float(resampled.var(axis=0).mean())
    rest = max(0.0, single - together) * seeds / (seeds - 1)
    own = float(of_seeds.var(ddof=1)) / seeds
    return Crossed(
        float(of_seeds.mean()),
        seeds,
        items,
        item_variance=together * items,
        seed_variance=max(0.0, own - rest / seeds),
        shared=max(0.0, together - rest / seeds),
        own=own,
        least=max(together, rest / seeds),
    )
