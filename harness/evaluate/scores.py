"""From predictions to the scores of one variant: aggregates with intervals, paired with the reference's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from harness import stats
from harness.evaluate import metrics
from harness.stats.interval import percentile_interval
from harness.systems.fitting import fit_temperature
from harness.systems.rules import temper
from harness.tasks.answers import Aggregate

AGAINST_ITSELF = {"diff_vs_reference": 0.0, "diff_low": 0.0, "diff_high": 0.0, "verdict": "reference"}
"""What the comparison of the reference says."""


class NonFinite(ValueError):
    """A score that is no number: the variant failed."""


def score(examples: pd.DataFrame, labels: np.ndarray, classes: int) -> dict[str, Any]:
    """Aggregates of one variant on one seed.

    Args:
        examples: the variant's table of ``metrics.per_example``.
        labels: [N] the truth.
        classes: how many there are.

    Returns:
        The columns ``n`` .. ``macro_f1`` of ``results.VARIANT_COLUMNS``.
    """
    count = len(examples)
    draws = stats.resample_counts(count)
    correct, confidence = examples["correct"].to_numpy(), examples["confidence"].to_numpy()
    found: dict[str, Any] = {"n": count}
    _put(found, "accuracy", stats.wilson(int(correct.sum()), count))
    for name in ("nll", "brier"):
        _put(found, name, stats.bootstrap_mean(examples[name].to_numpy(), draws))
    _put(found, "ece", stats.ece_interval(confidence, correct))
    found["adaptive_ece"] = metrics.adaptive_calibration_error(confidence, correct)
    found["aurc"] = metrics.area_under_risk_coverage(confidence, correct)
    found["macro_f1"] = metrics.macro_f1(examples["prediction"].to_numpy(), labels, classes)
    return found


def compare(examples: pd.DataFrame, reference: pd.DataFrame) -> dict[str, Any]:
    """One variant against the reference on one seed, both as tables of the same examples.

    Returns:
        The columns ``diff_vs_reference`` .. ``verdict`` of ``results.VARIANT_COLUMNS``.
    """
    correct, other = examples["correct"].to_numpy(), reference["correct"].to_numpy()
    difference = stats.paired_difference(correct, other, stats.resample_counts(len(examples)))
    p = stats.mcnemar_exact(correct, other)
    return _difference(difference) | {"mcnemar_p": p, "verdict": stats.verdict(difference, p)}


def calibrated(
    log_probs: torch.Tensor, labels: torch.Tensor, heldout: torch.Tensor, heldout_labels: torch.Tensor
) -> dict[str, float]:
    """NLL and ECE on test after one temperature fitted on held-out: what is left once confidence is put right."""
    temperature = fit_temperature(heldout, heldout_labels)
    examples = metrics.per_example(temper(log_probs.double(), temperature).numpy(), labels.numpy())
    ece = metrics.expected_calibration_error(examples["confidence"].to_numpy(), examples["correct"].to_numpy())
    return {"temperature": temperature, "nll_calibrated": float(examples["nll"].mean()), "ece_calibrated": ece}


def score_over_seeds(examples: list[pd.DataFrame]) -> dict[str, Any]:
    """Means over the seeds, with intervals over both seeds and examples; one table for each seed."""
    found: dict[str, Any] = {"n": len(examples[0])}
    _put(found, "accuracy", stats.proportion_over_seeds(_stacked(examples, "correct")))
    for column, most in (("nll", np.inf), ("brier", 2.0)):
        _put(found, column, stats.over_seeds(_stacked(examples, column)).within(0.0, most))
    _put(found, "ece", stats.ece_over_seeds(_stacked(examples, "confidence"), _stacked(examples, "correct")))
    return found


def compare_over_seeds(examples: list[pd.DataFrame], references: list[pd.DataFrame]) -> dict[str, Any]:
    """A variant against the reference over the seeds: as ``compare``, without a test of its own."""
    both = _stacked(examples, "correct"), _stacked(references, "correct")
    difference = stats.over_seeds(both[0] - both[1]).within(-1.0, 1.0)
    return _difference(difference) | {"verdict": stats.verdict(difference, None)}


def _stacked(tables: list[pd.DataFrame], column: str) -> np.ndarray:
    """A column's values [seeds, examples]."""
    return np.stack([table[column].to_numpy(np.float64) for table in tables])


def _difference(found: stats.Interval) -> dict[str, Any]:
    return {"diff_vs_reference": found.value, "diff_low": found.low, "diff_high": found.high}


def score_measures(seeds: list[dict[str, np.ndarray]]) -> dict[str, dict[str, float | None]]:
    """Mean of every per-document measure over documents and seeds, with its interval, by name; NaN is no value."""
    found = {}
    for name in seeds[0]:
        values = np.stack([measures[name] for measures in seeds])
        values = values[:, ~np.isnan(values).any(axis=0)]
        if not values.size:  # a task may have a metric of some documents only, and --limit none of these
            continue
        outcomes = np.isin(values, (0, 1)).all()
        found[name] = _plain(stats.proportion_over_seeds(values) if outcomes else stats.over_seeds(values))
    return found


def score_aggregates(seeds: Sequence[Mapping[str, Aggregate]]) -> dict[str, dict[str, float | None]]:
    """Scores of whole tasks, the mean over the seeds, with intervals from their draws, by name."""
    found = {}
    for name, first in seeds[0].items():
        if len(seeds) == 1:
            found[name] = _plain(percentile_interval(first.value, first.draws, first.n))
            continue
        values = np.array([each[name].value for each in seeds])
        draws = np.stack([each[name].draws for each in seeds], axis=1)
        known = np.isfinite(draws).all() and first.n > 1
        interval = stats.crossed_statistic(values, draws, first.n).interval() if known else None
        found[name] = _plain(interval or stats.Interval(float(values.mean()), np.nan, np.nan, first.n))
    return found


def _plain(interval: stats.Interval) -> dict[str, float | None]:
    """JSON values: bounds that are no numbers are null."""
    low, high = (end if np.isfinite(end) else None for end in (interval.low, interval.high))
    return {"value": interval.value, "low": low, "high": high, "n": interval.n}


def _put(found: dict[str, Any], name: str, interval: stats.Interval) -> None:
    found |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def check_numbers(values: Mapping[str, float]) -> None:
    """Raise ``NonFinite`` where lm-eval's score of a task is no number."""
    if lost := [name for name, value in values.items() if not np.isfinite(value)]:
        raise NonFinite(f"lm-eval's {lost[0]} is {values[lost[0]]}")


def check_finite(examples: pd.DataFrame) -> None:
    """Raise ``NonFinite`` where a label of a table of ``metrics.per_example`` has an infinite NLL."""
    lost = int(np.isinf(examples["nll"]).sum())
    if lost:
        raise NonFinite(f"the NLL is infinite: {lost} of {len(examples)} test labels were given probability 0")
