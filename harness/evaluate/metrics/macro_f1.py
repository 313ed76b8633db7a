"""F1, mean over the classes."""

from __future__ import annotations

import numpy as np

from harness.results.metric import Column, Outcomes, metric

COLUMN = Column("macro_f1", "mean F1 over the classes that occur", better="higher", most=1.0,
                label="macro F1")  # fmt: skip


@metric(COLUMN, reads="answers")
def macro_f1(outcomes: Outcomes) -> float:
    """Mean F1 over the classes that occur among the predictions or the labels."""
    return mean_f1(outcomes.examples["prediction"].to_numpy(), outcomes.labels, outcomes.classes)


def mean_f1(prediction: np.ndarray, labels: np.ndarray, classes: int) -> float:
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
    right = np.bincount(labels[labels == prediction], minlength=classes)
    said, true = (np.bincount(of, minlength=classes) for of in (prediction, labels))
    either = said + true  # as often as a class is said or true, and twice where both
    return float((2.0 * right[either > 0] / either[either > 0]).mean())
