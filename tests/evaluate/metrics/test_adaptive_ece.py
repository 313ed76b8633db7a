"""Adaptive calibration error against the plain reading of its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evaluate.metrics.adaptive_ece import adaptive_calibration_error
from tests.evaluate.confidences import answers_with
from tests.examples import examples


def plain_adaptive(confidence, correct, bins):
    """Equal mass: the N % bins first bins hold one more; the members of a tie share their mean correctness."""
    shared = [np.mean([r for c, r in zip(confidence, correct, strict=True) if c == own]) for own in confidence]
    order = sorted(range(len(confidence)), key=lambda i: confidence[i])
    bins = min(bins, len(order))
    size, longer = divmod(len(order), bins)
    total, start = 0.0, 0
    for k in range(bins):
        inside = order[start : start + size + (k < longer)]
        start += len(inside)
        total += abs(sum(confidence[i] - shared[i] for i in inside))
    return total / len(order)


@given(answers_with(5), st.sampled_from([1, 4, 15]))
@examples(60)
def test_adaptive_ece_is_the_plain_reading(answers, bins):
    confidence, correct = np.array(answers, float).T
    found = adaptive_calibration_error(confidence, correct, bins)
    assert found == pytest.approx(plain_adaptive(confidence, correct, bins), abs=1e-12)
