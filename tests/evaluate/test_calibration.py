"""Calibration against the plain reading of its definition, and laws of all that confidences give."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evaluate.calibration import expected_calibration_error, reliability_bins
from harness.evaluate.metrics.adaptive_ece import adaptive_calibration_error
from harness.evaluate.metrics.aurc import area_under_risk_coverage
from harness.stats.bins import confidence_bins
from tests.evaluate.confidences import answers_with
from tests.examples import examples

CALIBRATION = (
    expected_calibration_error,
    adaptive_calibration_error,
    area_under_risk_coverage,
    reliability_bins,
)


def plain_ece(confidence, correct, bins):
    """Guo et al. 2017, bin by bin; an empty bin counts nothing, and 0 belongs to the first."""
    total = 0.0
    for k in range(bins):
        low, high = k / bins, (k + 1) / bins
        inside = [i for i, c in enumerate(confidence) if low < c <= high or (k == 0 and c == 0)]
        if inside:
            accuracy = sum(correct[i] for i in inside) / len(inside)
            mean = sum(confidence[i] for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - mean)
    return total


@pytest.mark.parametrize("bins", [1, 7, 10, 15])
@given(data=st.data())
@examples(60)
def test_ece_is_the_plain_reading_also_on_the_edges(bins, data):
    confidence, correct = np.array(data.draw(answers_with(bins)), float).T
    found = expected_calibration_error(confidence, correct, bins)
    assert found == pytest.approx(plain_ece(confidence, correct, bins), abs=1e-12)
    table = reliability_bins(confidence, correct, bins)
    gaps = table["count"] * (table["confidence"] - table["accuracy"]).abs()
    assert found == pytest.approx(gaps.sum() / len(confidence), abs=1e-12)
    assert table["count"].sum() == len(confidence)


@pytest.mark.parametrize("bins", [3, 10, 15, 20])
def test_an_edge_belongs_to_the_bin_that_it_ends(bins):
    edges = np.arange(1, bins + 1) / bins
    assert confidence_bins(edges, bins).tolist() == list(range(bins))
    above = np.nextafter(edges[:-1], 1)
    assert confidence_bins(above, bins).tolist() == list(range(1, bins))
    assert confidence_bins(np.array([0.0, 5e-324]), bins).tolist() == [0, 0]


def test_the_reliability_diagram_keeps_its_empty_bins():
    table = reliability_bins(np.array([0.3, 0.3, 0.9]), np.array([True, False, True]), bins=2)
    assert table["low"].tolist() == [0.0, 0.5]
    assert table["high"].tolist() == [0.5, 1.0]
    assert table["count"].tolist() == [2, 1]
    assert table["confidence"].tolist() == pytest.approx([0.3, 0.9])
    assert table["accuracy"].tolist() == [0.5, 1.0]
    empty = reliability_bins(np.array([0.9]), np.array([True]), bins=2).iloc[0]
    assert empty["count"] == 0
    assert math.isnan(empty["accuracy"])
    assert math.isnan(empty["confidence"])


def test_a_calibrated_system_has_no_error_and_a_sure_wrong_one_an_error_of_one():
    confidence = np.repeat([0.25, 0.5, 0.75], 4)
    right = np.array([1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0])
    for score in (expected_calibration_error, adaptive_calibration_error):
        assert score(confidence, right, 3) == pytest.approx(0, abs=1e-12)
        assert score(np.ones(7), np.zeros(7)) == 1.0


@given(answers_with(4), st.randoms(use_true_random=False))
@examples(50)
def test_the_order_of_rows_never_matters(answers, random):
    shuffled = random.sample(answers, len(answers))
    for score in CALIBRATION[:3]:
        before, after = (score(*np.array(rows, float).T) for rows in (answers, shuffled))
        assert after == pytest.approx(before, abs=1e-12)


@pytest.mark.parametrize("score", CALIBRATION)
@pytest.mark.parametrize(
    ("confidence", "correct", "words"),
    [
        ([], [], "not empty"),
        ([0.5], [1, 0], "equally long"),
        ([[0.5]], [[1]], "equally long"),
        ([0.5, np.nan], [1, 0], "0..1"),
        ([0.5, 1.001], [1, 0], "0..1"),
        ([0.5, -0.001], [1, 0], "0..1"),
    ],
)
def test_what_is_no_confidence_is_refused(score, confidence, correct, words):
    with pytest.raises(ValueError, match=words):
        score(np.array(confidence), np.array(correct))
    if words == "0..1":
        with pytest.raises(ValueError, match=words):
            confidence_bins(np.array(confidence))
