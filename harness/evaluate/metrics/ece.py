"""Expected calibration error (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from harness import stats
from harness.evaluate.outcomes import stacked
from harness.results.metric import Column, Outcomes, metric
from harness.stats.interval import Interval

COLUMN = Column(
    "ece",
    "expected calibration error, 15 equal-width bins; 95 % interval: the calibration errors that a test of them does "
    "not refute; all: of the mean over seeds",
    better="lower",
    most=1.0,
    interval="ece",
    label="ECE",
)


def over_seeds(seeds: Sequence[Outcomes]) -> Interval:
    """The mean of the seeds' errors."""
    return stats.ece_over_seeds(stacked(seeds, "confidence"), stacked(seeds, "correct"))


@metric(COLUMN, over_seeds=over_seeds)
def ece(outcomes: Outcomes) -> Interval:
    """Mean gap between confidence and accuracy over bins of equal width."""
    return stats.ece_interval(outcomes.examples["confidence"].to_numpy(), outcomes.examples["correct"].to_numpy())
