"""Scores against scikit-learn and against the plain reading of each definition."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from sklearn.preprocessing import label_binarize

from harness.evaluate import metrics
from tests.examples import examples

CALIBRATION = (
    metrics.expected_calibration_error,
    metrics.adaptive_calibration_error,
    metrics.area_under_risk_coverage,
    metrics.reliability_bins,
)


def predictions(seed, count=200, classes=5, scale=2.0):
    """Normalised log-probabilities that know something, and the truth."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size=count)
    logits = scale * rng.normal(size=(count, classes)) + np.eye(classes)[labels]
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True), labels


# per example


@pytest.mark.parametrize("classes", [2, 5, 30])
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])  # scikit-learn clips what is less likely than 2e-16
def test_means_over_examples_are_the_scores_of_scikit_learn(classes, scale):
    log_probs, labels = predictions(classes, classes=classes, scale=scale)
    probs, every = np.exp(log_probs), list(range(classes))
    found = metrics.per_example(log_probs, labels)
    one_hot = np.eye(classes)[labels] if classes == 2 else label_binarize(labels, classes=every)
    assert found["nll"].mean() == pytest.approx(sklearn_metrics.log_loss(labels, probs, labels=every), rel=1e-9)
    # the full sum over classes, as in Brier 1950: not the mean over them, and not halved
    brier = classes * sklearn_metrics.mean_squared_error(one_hot, probs)
    assert found["brier"].mean() == pytest.approx(brier, rel=1e-9)
    assert found["correct"].mean() == sklearn_metrics.accuracy_score(labels, found["prediction"])
    np.testing.assert_array_equal(found["prediction"], probs.argmax(axis=1))
    np.testing.assert_allclose(found["confidence"], probs.max(axis=1), rtol=1e-12)


def test_the_brier_score_of_two_classes_is_twice_that_of_scikit_learn():
    log_probs, labels = predictions(0, classes=2)
    halved = sklearn_metrics.brier_score_loss(labels, np.exp(log_probs[:, 1]))
    assert metrics.per_example(log_probs, labels)["brier"].mean() == pytest.approx(2 * halved)


def test_each_row_is_scored_by_itself_in_the_order_given():
    log_probs, labels = predictions(0, count=50)
    order = np.random.default_rng(0).permutation(50)
    whole = metrics.per_example(log_probs, labels)
    moved = metrics.per_example(log_probs[order], labels[order])
    pd.testing.assert_frame_equal(whole.iloc[order].reset_index(drop=True), moved)
    alone = pd.concat([metrics.per_example(log_probs[i : i + 1], labels[i : i + 1]) for i in range(50)])
    pd.testing.assert_frame_equal(whole, alone.reset_index(drop=True), check_exact=True)


def test_the_rounding_of_float32_is_divided_out():
    logits = torch.randn(300, 40, generator=torch.Generator().manual_seed(0)) * 5
    labels = np.random.default_rng(0).integers(0, 40, size=300)
    rounded = torch.log_softmax(logits, dim=1).numpy()
    exact = torch.log_softmax(logits.double(), dim=1).numpy()
    pd.testing.assert_frame_equal(
        metrics.per_example(rounded, labels), metrics.per_example(exact, labels), rtol=1e-4, atol=1e-5
    )
    shifted = exact + 5e-5  # as far off as a float32 sum can be: within the tolerance, and gone afterwards
    pd.testing.assert_frame_equal(
        metrics.per_example(shifted, labels), metrics.per_example(exact, labels), rtol=1e-9, atol=1e-12
    )


def test_a_label_without_probability_has_an_infinite_nll_and_a_finite_brier_score():
    log_probs = np.log([[0.5, 0.5, 1e-300], [0.25, 0.25, 0.5]])
    log_probs[0, 2] = -np.inf
    found = metrics.per_example(log_probs, np.array([2, 2]))
    assert found["nll"].tolist() == pytest.approx([math.inf, math.log(2)])
    assert found["brier"].tolist() == pytest.approx([1.5, 0.375])
    assert found["correct"].tolist() == [False, True]


def test_certainty_costs_nothing_when_right_and_two_when_wrong():
    certain = np.array([[0.0, -np.inf], [0.0, -np.inf]])
    found = metrics.per_example(certain, np.array([0, 1]))
    assert found["nll"].tolist() == [0.0, math.inf]
    assert found["brier"].tolist() == [0.0, 2.0]
    assert found["confidence"].tolist() == [1.0, 1.0]


def test_the_first_of_equally_likely_classes_is_predicted():
    found = metrics.per_example(np.log(np.full((3, 4), 0.25)), np.array([0, 1, 3]))
    assert found["prediction"].tolist() == [0, 0, 0]
    assert found["correct"].tolist() == [True, False, False]


def test_no_examples_are_an_empty_table():
    found = metrics.per_example(np.zeros((0, 3)), np.zeros(0, np.int64))
    assert len(found) == 0
    assert list(found) == ["prediction", "confidence", "correct", "nll", "brier"]


GOOD = np.log([[0.5, 0.5], [0.25, 0.75]])


@pytest.mark.parametrize(
    ("log_probs", "labels", "words"),
    [
        (np.array([[0.0, np.nan], GOOD[1]]), [0, 1], "NaN or .inf in 1 of 2 rows"),
        (np.array([[0.0, np.inf], GOOD[1]]), [0, 1], "NaN or .inf in 1 of 2 rows"),
        (np.array([[np.nan, -np.inf], [np.nan, 0.0]]), [0, 1], "in 2 of 2 rows"),
        (np.full((2, 2), -np.inf), [0, 1], "not normalised"),
        (np.array([[2.0, 1.0], [0.5, 3.0]]), [0, 1], "not normalised"),
        (np.exp(GOOD), [0, 1], "not normalised"),
        (GOOD + 2e-4, [0, 1], "not normalised"),
        (np.array([[1000.0, 0.0], GOOD[1]]), [0, 1], "not normalised"),
        (GOOD[0], [0, 1], "shape"),
        (GOOD, [0], "labels"),
        (GOOD, [[0, 1]], "labels"),
        (GOOD, [0.0, 1.0], "labels"),
        (GOOD, [True, False], "labels"),
        (GOOD, [0, 2], r"labels lie in 0\.\.2"),
        (GOOD, [-1, 0], r"labels lie in -1\.\.0"),
    ],
)
def test_what_is_no_distribution_or_no_label_is_refused(log_probs, labels, words):
    with pytest.raises(ValueError, match=words):
        metrics.per_example(log_probs, np.array(labels))


# calibration


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


def answers_with(edges):
    """Confidences of which many lie on the edges of bins, some twice, each right or wrong."""
    on_edge = st.integers(0, edges).map(lambda k: k / edges)
    return st.lists(st.tuples(on_edge | st.floats(0, 1), st.booleans()), min_size=1, max_size=40)


@pytest.mark.parametrize("bins", [1, 7, 10, 15])
@given(data=st.data())
@examples(60)
def test_ece_is_the_plain_reading_also_on_the_edges(bins, data):
    confidence, correct = np.array(data.draw(answers_with(bins)), float).T
    found = metrics.expected_calibration_error(confidence, correct, bins)
    assert found == pytest.approx(plain_ece(confidence, correct, bins), abs=1e-12)
    table = metrics.reliability_bins(confidence, correct, bins)
    gaps = table["count"] * (table["confidence"] - table["accuracy"]).abs()
    assert found == pytest.approx(gaps.sum() / len(confidence), abs=1e-12)
    assert table["count"].sum() == len(confidence)


@pytest.mark.parametrize("bins", [3, 10, 15, 20])
def test_an_edge_belongs_to_the_bin_that_it_ends(bins):
    edges = np.arange(1, bins + 1) / bins
    assert metrics.confidence_bins(edges, bins).tolist() == list(range(bins))
    above = np.nextafter(edges[:-1], 1)
    assert metrics.confidence_bins(above, bins).tolist() == list(range(1, bins))
    assert metrics.confidence_bins(np.array([0.0, 5e-324]), bins).tolist() == [0, 0]


def test_the_reliability_diagram_keeps_its_empty_bins():
    table = metrics.reliability_bins(np.array([0.3, 0.3, 0.9]), np.array([True, False, True]), bins=2)
    assert table["low"].tolist() == [0.0, 0.5]
    assert table["high"].tolist() == [0.5, 1.0]
    assert table["count"].tolist() == [2, 1]
    assert table["confidence"].tolist() == pytest.approx([0.3, 0.9])
    assert table["accuracy"].tolist() == [0.5, 1.0]
    empty = metrics.reliability_bins(np.array([0.9]), np.array([True]), bins=2).iloc[0]
    assert empty["count"] == 0
    assert math.isnan(empty["accuracy"])
    assert math.isnan(empty["confidence"])


def test_a_calibrated_system_has_no_error_and_a_sure_wrong_one_an_error_of_one():
    confidence = np.repeat([0.25, 0.5, 0.75], 4)
    right = np.array([1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0])
    for score in (metrics.expected_calibration_error, metrics.adaptive_calibration_error):
        assert score(confidence, right, 3) == pytest.approx(0, abs=1e-12)
        assert score(np.ones(7), np.zeros(7)) == 1.0


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
    found = metrics.adaptive_calibration_error(confidence, correct, bins)
    assert found == pytest.approx(plain_adaptive(confidence, correct, bins), abs=1e-12)


def plain_aurc(confidence, correct):
    """The mean over every order that puts the more confident first, of the mean error rate of the first k."""
    count = len(confidence)
    values = []
    for order in itertools.permutations(range(count)):
        if all(confidence[a] >= confidence[b] for a, b in itertools.pairwise(order)):
            wrong = np.cumsum([1 - correct[i] for i in order])
            values.append(np.mean(wrong / np.arange(1, count + 1)))
    return np.mean(values)


@given(st.lists(st.tuples(st.integers(0, 3).map(lambda k: k / 3), st.booleans()), min_size=1, max_size=6))
@examples(40)
def test_aurc_is_the_expectation_over_the_orders_of_ties(answers):
    confidence, correct = np.array(answers, float).T
    found = metrics.area_under_risk_coverage(confidence, correct)
    assert found == pytest.approx(plain_aurc(confidence, correct), abs=1e-12)


def test_aurc_of_a_constant_confidence_is_the_error_rate_and_of_the_best_order_the_least():
    correct = np.array([1, 0, 1, 1, 0, 1, 1, 0, 1, 1])
    assert metrics.area_under_risk_coverage(np.full(10, 0.7), correct) == pytest.approx(0.3)
    noise = np.random.default_rng(0).uniform(0, 0.1, size=(20, 10))
    best = metrics.area_under_risk_coverage(0.5 * correct + noise[0], correct)
    worst = metrics.area_under_risk_coverage(0.5 * (1 - correct) + noise[0], correct)
    assert best == pytest.approx(sum(max(0, k - 7) / k for k in range(1, 11)) / 10)
    for row in noise:
        assert best <= metrics.area_under_risk_coverage(row, correct) <= worst


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
            metrics.confidence_bins(np.array(confidence))


# macro-F1


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40))
@examples(60)
def test_macro_f1_is_that_of_scikit_learn(pairs):
    prediction, labels = np.array(pairs).T
    oracle = sklearn_metrics.f1_score(labels, prediction, average="macro")
    assert metrics.macro_f1(prediction, labels, 9) == pytest.approx(oracle, abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "labels", "words"),
    [([], [], "not empty"), ([0], [0, 1], "equally long"), ([3], [0], "0..2"), ([0], [-1], "0..2")],
)
def test_macro_f1_refuses_what_is_no_class(prediction, labels, words):
    with pytest.raises(ValueError, match=words):
        metrics.macro_f1(np.array(prediction), np.array(labels), 3)
