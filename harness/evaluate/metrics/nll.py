"""Negative log-likelihood of the label."""

from __future__ import annotations

from collections.abc import Sequence

from harness import stats
from harness.evaluate.outcomes import stacked
from harness.results.metric import Column, Outcomes, metric
from harness.stats.interval import Interval

COLUMN = Column(
    "nll",
    "mean negative log-likelihood of the label, nats; 95 % interval (one seed: bootstrap; all: of a mean over seeds "
    "and examples)",
    better="lower",
    unit="nats",
    interval="nll",
    outcome="nll",
    label="NLL",
)


def over_seeds(seeds: Sequence[Outcomes]) -> Interval:
    """The mean, both seeds and examples taken as samples."""
    return stats.over_seeds(stacked(seeds, "nll")).within(COLUMN.least, COLUMN.most)


@metric(COLUMN, over_seeds=over_seeds)
def nll(outcomes: Outcomes) -> Interval:
    """The mean over the examples, with a bootstrap interval."""
    values = outcomes.examples["nll"].to_numpy()
    return stats.bootstrap_mean(values, stats.resample_counts(len(values)))
