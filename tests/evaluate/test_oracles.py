"""Calibration and selective scores against other libraries' definitions of them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
)

from harness.evaluate.calibration import expected_calibration_error, reliability_bins
from harness.evaluate.metrics.aurc import area_under_risk_coverage
from harness.evaluate.metrics.macro_f1 import mean_f1
from harness.evaluate.outcomes import per_example
from tests.examples import examples

POOLS = st.tuples(st.integers(0, 2**16), st.integers(2, 7), st.integers(2, 300), st.floats(0.0, 4.0))


def drawn(seed, classes, rows, skill):
    """Probabilities [N, C] in float64 of one model, and labels [N]."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (rows,), generator=generator)
    logits = 2 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    logits[torch.arange(rows), labels] += skill
    return logits.softmax(dim=1), labels


def outcomes(probabilities, labels):
    return per_example(probabilities.log().numpy(), labels.numpy())


@pytest.mark.parametrize("bins", [10, 15])
@given(POOLS)
@examples(40)
def test_calibration_errors_are_torchmetrics(bins, pool):
    """The mean gap (l1), and the largest one (max), over bins of equal width."""
    probabilities, labels = drawn(*pool)
    table = outcomes(probabilities, labels)
    confidence, correct = table["confidence"].to_numpy(), table["correct"].to_numpy()
    classes = probabilities.shape[1]

    def theirs(norm):
        return float(multiclass_calibration_error(probabilities, labels, classes, n_bins=bins, norm=norm))

    assert expected_calibration_error(confidence, correct, bins) == pytest.approx(theirs("l1"), abs=1e-6)
    found = reliability_bins(confidence, correct, bins)
    assert (found["confidence"] - found["accuracy"]).abs().max() == pytest.approx(theirs("max"), abs=1e-6)


@given(POOLS)
@examples(40)
def test_accuracy_and_f1_are_torchmetrics(pool):
    probabilities, labels = drawn(*pool)
    table, classes = outcomes(probabilities, labels), probabilities.shape[1]
    accuracy = float(multiclass_accuracy(probabilities, labels, classes, average="micro"))
    assert table["correct"].mean() == pytest.approx(accuracy, abs=1e-6)
    f1 = float(multiclass_f1_score(probabilities, labels, classes, average="macro"))
    assert mean_f1(table["prediction"].to_numpy(), labels.numpy(), classes) == pytest.approx(f1, abs=1e-6)


@given(POOLS)
@examples(40)
def test_aurc_is_torch_uncertaintys_but_for_the_ends(pool):
    """torch-uncertainty (0.13) has the trapezoid between coverages 1/N and 1, over 1 - 1/N; here it is the mean of the
    rates at 1/N, 2/N, ..., 1, as its own docstring and Geifman et al. 2019 define it. So the trapezoid lacks half of
    the first rate and half of the last: with these the two are one number."""
    probabilities, labels = drawn(*pool)
    table = outcomes(probabilities, labels)
    confidence, wrong = table["confidence"].to_numpy(), 1.0 - table["correct"].to_numpy()
    count = len(wrong)
    rates = np.cumsum(wrong[np.argsort(-confidence)]) / np.arange(1, count + 1)
    trapezoid = auc(np.arange(1, count + 1) / count, rates) / (1 - 1 / count)
    ours = area_under_risk_coverage(confidence, table["correct"].to_numpy())
    assert ours == pytest.approx((trapezoid * (count - 1) + (rates[0] + rates[-1]) / 2) / count, abs=1e-6)
