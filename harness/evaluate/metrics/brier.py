"""The Brier score, summed over the classes (Brier 1950)."""

from __future__ import annotations

from collections.abc import Sequence

from harness import stats
from harness.evaluate.outcomes import stacked
from harness.results.metric import Column, Outcomes, metric
from harness.stats.interval import Interval

COLUMN = Column(
    "brier",
    "mean squared error of the probabilities, summed over classes; 95 % interval, as of nll",
    better="lower",
    most=2.0,
    interval="brier",
    outcome="brier",
    label="Brier score",
)


def over_seeds(seeds: Sequence[Outcomes]) -> Interval:
    """The mean, both seeds and examples taken as samples."""
    return stats.over_seeds(stacked(seeds, "brier")).within(COLUMN.least, COLUMN.most)


@metric(COLUMN, over_seeds=over_seeds)
def brier(outcomes: Outcomes) -> Interval:
    """The mean over the examples, with a bootstrap interval."""
    values = outcomes.examples["brier"].to_numpy()
    return stats.bootstrap_mean(values, stats.resample_counts(len(values)))
