"""Scores of one system on one split: per example first, aggregated after."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.stats.bins import _edges, confidence_bins

NORMALISATION_TOLERANCE = 1e-4
"""How far a row's log-sum-exp may be from 0: float32 rounding, but no unnormalised logits."""


def per_example(log_probs: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """One row for each example, in the order given; every aggregate score is a mean or a function of these columns.

    Args:
        log_probs: [N, C] normalised log-probabilities in nats; ``-inf`` is a probability of zero.
        labels: [N] integers in 0..C-1.

    Returns:
        ``prediction`` (the first of equally likely classes), ``confidence`` (the prediction's probability),
        ``correct``, ``nll`` (nats; ``inf`` where the label was given no probability) and ``brier`` (the sum over all
        classes, 0..2, unhalved: Brier 1950). Float64, after the rounding left in each row's sum is divided out.

    Raises:
        ValueError: for NaN, ``+inf``, rows that are not normalised, shapes or labels that do not fit.
    """
    log_probs, labels = _normalised(log_probs), np.asarray(labels)
    count, classes = log_probs.shape
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are {labels.dtype} {labels.shape}, expected integers ({count},)")
    if count and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(f"labels lie in {labels.min()}..{labels.max()}, expected 0..{classes - 1}")
    rows = np.arange(count)
    probs = np.exp(log_probs)
    prediction = log_probs.argmax(axis=1)
    missed = probs.copy()
    missed[rows, labels] -= 1.0
    return pd.DataFrame(
        {
            "prediction": prediction.astype(np.int64),
            "confidence": np.minimum(probs[rows, prediction], 1.0),
            "correct": prediction == labels,
            "nll": np.maximum(0.0, -log_probs[rows, labels]),
            "brier": np.square(missed).sum(axis=1),
        }
    )


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins (lo, hi], weighted by count (Guo et al. 2017).

    Raises:
        ValueError: for no examples, or confidences outside 0..1.
    """
    confidence, correct = _checked(confidence, correct)
    gaps = np.bincount(confidence_bins(confidence, bins), weights=confidence - correct, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def reliability_bins(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> pd.DataFrame:
    """The reliability diagram: ``low``, ``high``, ``count``, mean ``confidence``, ``accuracy`` of each bin (low, high].

    An empty bin stays in the table with a count of 0 and NaN means.

    Raises:
        ValueError: for no examples, or confidences outside 0..1.
    """
    confidence, correct = _checked(confidence, correct)
    index, edges = confidence_bins(confidence, bins), _edges(bins)
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


def adaptive_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Calibration error over bins of equal mass, as in Nguyen and O'Connor (2015); fewer bins if N < ``bins``.

    Examples of equal confidence share their mean correctness, so that row order never decides which bin gets a hit.

    Raises:
        ValueError: for no examples, or confidences outside 0..1.
    """
    confidence, correct = _checked(confidence, correct)
    order = np.argsort(confidence, kind="stable")
    gaps = (confidence - _shared_within_ties(confidence, correct))[order]
    parts = np.array_split(gaps, min(bins, len(gaps)))
    return float(sum(abs(part.sum()) for part in parts) / len(gaps))


def area_under_risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Mean error rate of the k most confident examples over k = 1..N (Geifman et al. 2019); lower is better.

    Equal confidences are in random order and the value is the expectation over those orders, so a constant confidence
    scores the plain error rate whatever the order of rows.

    Raises:
        ValueError: for no examples, or confidences outside 0..1.
    """
    confidence, correct = _checked(confidence, correct)
    # The expected number of errors grows linearly through a group of ties: each member carries the group's mean.
    errors = _shared_within_ties(confidence, 1.0 - correct)[np.argsort(-confidence, kind="stable")]
    return float((np.cumsum(errors) / np.arange(1, len(errors) + 1)).mean())


def macro_f1(prediction: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Mean F1 over the classes that occur among the predictions or the labels.

    A class in neither has no F1 (0/0) and is left out, as scikit-learn does by default.

    Raises:
        ValueError: for no examples, lengths that differ, or values outside 0..``classes`` - 1.
    """
    prediction, labels = np.asarray(prediction), np.asarray(labels)
    if prediction.shape != labels.shape or prediction.ndim != 1 or not len(labels):
        raise ValueError(f"predictions {prediction.shape} and labels {labels.shape} must be equally long and not empty")
    if min(prediction.min(), labels.min()) < 0 or max(prediction.max(), labels.max()) >= classes:
        raise ValueError(f"predictions and labels must lie in 0..{classes - 1}")
    hits = np.bincount(labels[prediction == labels], minlength=classes)
    occurrences = np.bincount(prediction, minlength=classes) + np.bincount(labels, minlength=classes)
    seen = occurrences > 0
    return float((2 * hits[seen] / occurrences[seen]).mean())






def _normalised(log_probs: np.ndarray) -> np.ndarray:
    log_probs = np.asarray(log_probs, np.float64)
    if log_probs.ndim != 2:
        raise ValueError(f"log_probs have shape {log_probs.shape}, expected [N, C]")
    bad = np.isnan(log_probs) | (log_probs == np.inf)
    if bad.any():
        raise ValueError(f"log_probs hold NaN or +inf in {int(bad.any(axis=1).sum())} of {len(log_probs)} rows")
    with np.errstate(over="ignore", divide="ignore"):
        totals = np.log(np.exp(log_probs).sum(axis=1, keepdims=True))  # [N, 1]
    worst = float(np.abs(totals).max(initial=0.0))
    if worst > NORMALISATION_TOLERANCE:
        raise ValueError(f"log_probs are not normalised: log-sum-exp is off by up to {worst:.3g}")
    return log_probs - totals


def _checked(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if confidence.shape != correct.shape or confidence.ndim != 1 or not len(confidence):
        shapes = f"confidence {confidence.shape} and correct {correct.shape}"
        raise ValueError(f"{shapes} must be equally long and not empty")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("confidences must lie in 0..1")
    return confidence, correct


def _shared_within_ties(confidence: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Each value [N] replaced by the mean over the examples of the same confidence."""
    _, group, count = np.unique(confidence, return_inverse=True, return_counts=True)
    return (np.bincount(group, weights=values) / count)[group]
