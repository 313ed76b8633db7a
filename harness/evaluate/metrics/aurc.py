"""Area under the risk-coverage curve (Geifman et al. 2019)."""

from __future__ import annotations

import numpy as np

from harness.evaluate.calibration import check_confidences, share_within_ties
from harness.results.metric import Column, Outcomes, metric

COLUMN = Column("aurc", "area under the risk-coverage curve", better="lower", most=1.0, label="AURC")


@metric(COLUMN)
def aurc(outcomes: Outcomes) -> float:
    """Mean error rate of the most confident examples, over how many of them there are."""
    examples = outcomes.examples
    return area_under_risk_coverage(examples["confidence"].to_numpy(), examples["correct"].to_numpy())


def area_under_risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Mean error rate of the k most confident examples over k = 1..N (Geifman et al. 2019); lower is better.

    Equal confidences are in random order and the value is the expectation over those orders, so a constant confidence
    scores the plain error rate whatever the order of rows.

    Raises:
        ValueError: for no examples, or confidences outside 0..1.
    """
    confidence, correct = check_confidences(confidence, correct)
    # The expected number of errors grows linearly through a group of ties: each member carries the group's mean.
    errors = share_within_ties(confidence, 1.0 - correct)[np.argsort(-confidence, kind="stable")]
    return float((np.cumsum(errors) / np.arange(1, len(errors) + 1)).mean())
