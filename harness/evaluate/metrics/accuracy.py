"""Accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from harness import stats
from harness.evaluate.outcomes import stacked
from harness.results.metric import Column, Outcomes, metric
from harness.stats.interval import Interval

COLUMN = Column(
    "accuracy",
    "share of test examples that are right; 95 % interval (one seed: Wilson; all: of a mean over seeds and examples)",
    better="higher",
    most=1.0,
    interval="accuracy",
    outcome="correct",
)


def over_seeds(seeds: Sequence[Outcomes]) -> Interval:
    """The mean, both seeds and examples taken as samples."""
    return stats.proportion_over_seeds(stacked(seeds, "correct"))


@metric(COLUMN, over_seeds=over_seeds, reads="correctness")
def accuracy(outcomes: Outcomes) -> Interval:
    """The share that is right, with Wilson's interval."""
    return stats.wilson(int(outcomes.examples["correct"].sum()), len(outcomes.examples))
