"""Calibration error over bins of equal mass (Nguyen and O'Connor 2015)."""

from __future__ import annotations

import numpy as np

from harness.evaluate.calibration import check_confidences, share_within_ties
from harness.results.metric import Column, Outcomes, metric

COLUMN = Column("adaptive_ece", "calibration error over 15 bins of equal mass", better="lower", most=1.0,
                label="adaptive ECE")  # fmt: skip


@metric(COLUMN)
def adaptive_ece(outcomes: Outcomes) -> float:
    """Mean gap between confidence and accuracy over bins of equal mass."""
    examples = outcomes.examples
    return adaptive_calibration_error(examples["confidence"].to_numpy(), examples["correct"].to_numpy())


def adaptive_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Calibration error over bins of equal mass, as in Nguyen and O'Connor (2015); fewer bins if N < ``bins``.

    Examples of equal confidence share their mean correctness, so that row order never decides which bin gets a hit.

    Raises:
        ValueError: for no examples, or confidences outside 0..1.
    """
    confidence, correct = check_confidences(confidence, correct)
    order = np.argsort(confidence, kind="stable")
    gaps = (confidence - share_within_ties(confidence, correct))[order]
    parts = np.array_split(gaps, min(bins, len(gaps)))
    return float(sum(abs(part.sum()) for part in parts) / len(gaps))
