"""Intervals, paired comparisons, decisions and correlations."""

from harness.stats.components import CrossedMean, crossed_mean
from harness.stats.correlations import FEWEST_RESAMPLES, Correlation, correlation
from harness.stats.decisions import (
    NonInferiority,
    Verdict,
    benjamini_hochberg,
    holm,
    non_inferiority,
    non_inferiority_verdict,
    verdict,
)
from harness.stats.interval import LEVEL, Interval
from harness.stats.proportions import examples_needed, mcnemar_exact, paired_power, paired_proportions, wilson
from harness.stats.resampling import (
    bootstrap_ece,
    bootstrap_mean,
    clustered_difference,
    ece_over_seeds,
    over_seeds,
    paired_difference,
    resample_counts,
)

__all__ = [
    "FEWEST_RESAMPLES",
    "LEVEL",
    "Correlation",
    "CrossedMean",
    "Interval",
    "NonInferiority",
    "Verdict",
    "benjamini_hochberg",
    "bootstrap_ece",
    "bootstrap_mean",
    "clustered_difference",
    "correlation",
    "crossed_mean",
    "ece_over_seeds",
    "examples_needed",
    "holm",
    "mcnemar_exact",
    "non_inferiority",
    "non_inferiority_verdict",
    "over_seeds",
    "paired_difference",
    "paired_power",
    "paired_proportions",
    "resample_counts",
    "verdict",
    "wilson",
]
