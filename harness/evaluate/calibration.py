"""Confidence against correctness: calibration error, the bins of its diagram, and how equal confidences are treated."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.stats.bins import bin_edges, confidence_bins


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins (lo, hi], weighted by count (Guo et al. 2017).

    Raises:
        ValueError: for no examples, or confidences outside 0..1.
    """
    confidence, correct = check_confidences(confidence, correct)
    gaps = np.bincount(confidence_bins(confidence, bins), weights=confidence - correct, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def reliability_bins(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> pd.DataFrame:
    """The reliability diagram: ``low``, ``high``, ``count``, mean ``confidence``, ``accuracy`` of each bin (low, high].

    An empty bin stays in the table with a count of 0 and NaN means.

    Raises:
        ValueError: for no examples, or confidences outside 0..1.
    """
    confidence, correct = check_confidences(confidence, correct)
    index, edges = confidence_bins(confidence, bins), bin_edges(bins)
    count = np.bincount(index, minlength=bins)
    filled = np.where(count > 0, count, np.nan)
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "count": count,
            "confidence": np.bincount(index, weights=confidence, minlength=bins) / filled,
            "accuracy": np.bincount(index, weights=correct, minlength=bins) / filled,
        }
    )


def check_confidences(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 [N]; ``ValueError`` for no examples, other lengths, or confidences outside 0..1."""
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if confidence.shape != correct.shape or confidence.ndim != 1 or not len(confidence):
        shapes = f"confidence {confidence.shape} and correct {correct.shape}"
        raise ValueError(f"{shapes} must be equally long and not empty")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("confidences must lie in 0..1")
    return confidence, correct


def share_within_ties(confidence: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Each value [N] replaced by the mean over the examples of the same confidence."""
    _, group, count = np.unique(confidence, return_inverse=True, return_counts=True)
    return (np.bincount(group, weights=values) / count)[group]
