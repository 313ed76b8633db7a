"""The mean of a score over seeds and items, with the variance that each of the two adds to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.stats.interval import Interval


@dataclass(frozen=True)
class CrossedMean:
    """A mean of seeds by items, both taken as samples: what other seeds and other items would have given."""

    mean: float
    items: int
    item_variance: float
    """From item to item, which more items average out."""
    seed_variance: float
    """What the seeds add to the variance of the mean, which more items do not lessen."""
    df: float
    """Degrees of freedom of the variance of the mean (Satterthwaite 1946)."""

    @property
    def standard_error(self) -> float:
        return float(np.sqrt(self.item_variance / self.items + self.seed_variance))

    def interval(self, confidence: float = 0.95) -> Interval:
        """Student's t; no width where nothing varied."""
        from scipy.stats import t

        half = float(t.isf((1 - confidence) / 2, self.df)) * self.standard_error
        return Interval(self.mean, self.mean - half, self.mean + half, self.items)

    def p_below(self, value: float) -> float:
        """Of a mean this high or higher if the true one were ``value``; 0.5 if it is just that and nothing varied."""
        from scipy.stats import t

        distance = self.mean - value
        if not self.standard_error:
            return 0.5 if not distance else float(distance < 0)
        return float(t.sf(distance / self.standard_error, self.df))


def crossed_mean(values: np.ndarray) -> CrossedMean:
    """The mean of ``values`` [S, N]: S seeds scored on the same N >= 2 items.

    Mean squares of the two-way layout with random seeds and items (Searle, Casella and McCulloch 1992, chapter 4); a
    component estimated below 0 counts as 0. With 3 seeds or more its interval covers within 2 points of what it says,
    or more than it says; a bootstrap of so few seeds covers up to 12 points less where they differ, and too much where
    they agree (Owen 2007).

    Raises:
        ValueError: if ``values`` is not a table with at least one seed and two items.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or len(values) < 1 or values.shape[1] < 2:
        raise ValueError(f"values have shape {values.shape}, expected [seeds, items] with two items or more")
    seeds, items = values.shape
    of_items, of_seeds = values.mean(axis=0), values.mean(axis=1)
    mean = float(values.mean())
    between_items = seeds * float(of_items.var(ddof=1))
    if seeds == 1:
        return CrossedMean(mean, items, between_items, 0.0, items - 1)
    between_seeds = items * float(of_seeds.var(ddof=1))
    cells = (seeds - 1) * (items - 1)
    rest = float(((values - of_items - of_seeds[:, None] + mean) ** 2).sum()) / cells
    excess = max(0.0, between_seeds - rest)
    spread = between_items**2 / (items - 1) + (between_seeds**2 / (seeds - 1) + rest**2 / cells) * (excess > 0)
    df = (between_items + excess) ** 2 / spread if spread else items - 1.0
    return CrossedMean(mean, items, between_items / seeds, excess / seeds / items, df)
