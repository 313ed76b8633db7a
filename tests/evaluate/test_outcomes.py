"""The outcomes of every example against scikit-learn, and what is refused."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics
from sklearn.preprocessing import label_binarize

from harness.evaluate import outcomes
from harness.results.metric import Column, metric
from tests.evaluate.added_metrics import declare


def predictions(seed, count=200, classes=5, scale=2.0):
    """Normalised log-probabilities that know something, and the truth."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size=count)
    logits = scale * rng.normal(size=(count, classes)) + np.eye(classes)[labels]
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True), labels


# of several seeds


def test_seeds_are_put_together_by_example_and_gaps_are_nan():
    ids = [["b", "a"], ["c", "b"]]
    table = outcomes.aligned([np.array([1, 2]), np.array([3, 4])], ids)
    np.testing.assert_array_equal(table, [[2, 1, np.nan], [np.nan, 4, 3]])
    assert [places.tolist() for places in outcomes.positions(ids)] == [[1, 0], [2, 1]]
    with pytest.raises(ValueError, match="1 values of 2 examples"):
        outcomes.aligned([np.array([1]), np.array([3, 4])], ids)


def test_seeds_with_the_same_examples_stay_in_their_order():
    values = [np.array([1, 2]), np.array([3, 4])]
    for ids in ([["b", "a"]] * 2, [[], []], ()):
        np.testing.assert_array_equal(outcomes.aligned(values, ids), [[1, 2], [3, 4]])


# per example


@pytest.mark.parametrize("classes", [2, 5, 30])
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])  # scikit-learn clips what is less likely than 2e-16
def test_means_over_examples_are_the_scores_of_scikit_learn(classes, scale):
    log_probs, labels = predictions(classes, classes=classes, scale=scale)
    probs, every = np.exp(log_probs), list(range(classes))
    found = outcomes.per_example(log_probs, labels)
    one_hot = np.eye(classes)[labels] if classes == 2 else label_binarize(labels, classes=every)
    assert found["nll"].mean() == pytest.approx(metrics.log_loss(labels, probs, labels=every), rel=1e-9)
    # the full sum over classes, as in Brier 1950: not the mean over them, and not halved
    brier = classes * metrics.mean_squared_error(one_hot, probs)
    assert found["brier"].mean() == pytest.approx(brier, rel=1e-9)
    assert found["correct"].mean() == metrics.accuracy_score(labels, found["prediction"])
    np.testing.assert_array_equal(found["prediction"], probs.argmax(axis=1))
    np.testing.assert_allclose(found["confidence"], probs.max(axis=1), rtol=1e-12)


def test_the_brier_score_of_two_classes_is_twice_that_of_scikit_learn():
    log_probs, labels = predictions(0, classes=2)
    halved = metrics.brier_score_loss(labels, np.exp(log_probs[:, 1]))
    assert outcomes.per_example(log_probs, labels)["brier"].mean() == pytest.approx(2 * halved)


def test_each_row_is_scored_by_itself_in_the_order_given():
    log_probs, labels = predictions(0, count=50)
    order = np.random.default_rng(0).permutation(50)
    whole = outcomes.per_example(log_probs, labels)
    moved = outcomes.per_example(log_probs[order], labels[order])
    pd.testing.assert_frame_equal(whole.iloc[order].reset_index(drop=True), moved)
    alone = pd.concat([outcomes.per_example(log_probs[i : i + 1], labels[i : i + 1]) for i in range(50)])
    pd.testing.assert_frame_equal(whole, alone.reset_index(drop=True), check_exact=True)


def test_the_rounding_of_float32_is_divided_out():
    logits = torch.randn(300, 40, generator=torch.Generator().manual_seed(0)) * 5
    labels = np.random.default_rng(0).integers(0, 40, size=300)
    rounded = torch.log_softmax(logits, dim=1).numpy()
    exact = torch.log_softmax(logits.double(), dim=1).numpy()
    pd.testing.assert_frame_equal(
        outcomes.per_example(rounded, labels), outcomes.per_example(exact, labels), rtol=1e-4, atol=1e-5
    )
    shifted = exact + 5e-5  # as far off as a float32 sum can be: within the tolerance, and gone afterwards
    pd.testing.assert_frame_equal(
        outcomes.per_example(shifted, labels), outcomes.per_example(exact, labels), rtol=1e-9, atol=1e-12
    )


def test_a_label_without_probability_has_an_infinite_nll_and_a_finite_brier_score():
    log_probs = np.log([[0.5, 0.5, 1e-300], [0.25, 0.25, 0.5]])
    log_probs[0, 2] = -np.inf
    found = outcomes.per_example(log_probs, np.array([2, 2]))
    assert found["nll"].tolist() == pytest.approx([math.inf, math.log(2)])
    assert found["brier"].tolist() == pytest.approx([1.5, 0.375])
    assert found["correct"].tolist() == [False, True]


def test_certainty_costs_nothing_when_right_and_two_when_wrong():
    certain = np.array([[0.0, -np.inf], [0.0, -np.inf]])
    found = outcomes.per_example(certain, np.array([0, 1]))
    assert found["nll"].tolist() == [0.0, math.inf]
    assert found["brier"].tolist() == [0.0, 2.0]
    assert found["confidence"].tolist() == [1.0, 1.0]


def test_the_first_of_equally_likely_classes_is_predicted():
    found = outcomes.per_example(np.log(np.full((3, 4), 0.25)), np.array([0, 1, 3]))
    assert found["prediction"].tolist() == [0, 0, 0]
    assert found["correct"].tolist() == [True, False, False]


def test_no_examples_are_an_empty_table():
    found = outcomes.per_example(np.zeros((0, 3)), np.zeros(0, np.int64))
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
        outcomes.per_example(log_probs, np.array(labels))


# outcomes that metrics add


def test_a_metric_adds_its_outcome_and_changes_no_other(monkeypatch):
    log_probs, labels = predictions(0)
    plain = outcomes.per_example(log_probs, labels)
    pd.testing.assert_frame_equal(outcomes.tabulate(log_probs, labels), plain)
    declare(monkeypatch, "mcc", "top2")  # the first adds none
    found = outcomes.tabulate(log_probs, labels)
    pd.testing.assert_frame_equal(found[list(plain)], plain)
    assert found.columns.difference(plain.columns).tolist() == ["in_top2"]
    assert found["in_top2"].dtype == bool
    expected = metrics.top_k_accuracy_score(labels, np.exp(log_probs), k=2, labels=range(5))
    assert found["in_top2"].mean() == expected


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (lambda log_probs, _: log_probs, r"metric 'odd' gives outcomes float64 \(200, 5\), expected 200 numbers"),
        (lambda _, labels: labels[1:], r"\(199,\)"),
        (lambda _, labels: labels.astype(str), "<U"),
        (lambda log_probs, labels: np.multiply(log_probs, 2, out=log_probs)[:, 0], "read-only"),
    ],
)
def test_an_outcome_that_is_not_a_number_for_each_example_is_refused(monkeypatch, values, words):
    declare(monkeypatch)
    metric(Column("odd", "strange", outcome="odd"), per_example=values)(lambda _: 0.0)
    with pytest.raises(ValueError, match=words):
        outcomes.tabulate(*predictions(0))
