"""Intervals, paired comparisons, decisions and correlations."""

from harness.stats.calibration import ece_interval, ece_over_seeds
from harness.stats.components import Crossed, crossed_mean, crossed_statistic, seed_means
from harness.stats.correlations import FEWEST_SUBSETS, Correlation, correlation
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
from harness.stats.proportions import (
    examples_needed,
    mcnemar_exact,
    paired_power,
    paired_proportions,
    proportion_over_seeds,
    wilson,
)
from harness.stats.ratios import crossed_ratio
from harness.stats.resampling import bootstrap_mean, over_seeds, paired_difference, resample_counts

__all__ = [
    "FEWEST_SUBSETS",
    "LEVEL",
    "Correlation",
    "Crossed",
    "Interval",
    "NonInferiority",
    "Verdict",
    "benjamini_hochberg",
    "bootstrap_mean",
    "correlation",
    "crossed_mean",
    "crossed_ratio",
    "crossed_statistic",
    "ece_interval",
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
    "proportion_over_seeds",
    "resample_counts",
    "seed_means",
    "verdict",
    "wilson",
]
