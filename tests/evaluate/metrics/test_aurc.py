"""The area under the risk-coverage curve against the mean over all orders."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evaluate.metrics.aurc import area_under_risk_coverage
from tests.examples import examples


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
    found = area_under_risk_coverage(confidence, correct)
    assert found == pytest.approx(plain_aurc(confidence, correct), abs=1e-12)


def test_aurc_of_a_constant_confidence_is_the_error_rate_and_of_the_best_order_the_least():
    correct = np.array([1, 0, 1, 1, 0, 1, 1, 0, 1, 1])
    assert area_under_risk_coverage(np.full(10, 0.7), correct) == pytest.approx(0.3)
    noise = np.random.default_rng(0).uniform(0, 0.1, size=(20, 10))
    best = area_under_risk_coverage(0.5 * correct + noise[0], correct)
    worst = area_under_risk_coverage(0.5 * (1 - correct) + noise[0], correct)
    assert best == pytest.approx(sum(max(0, k - 7) / k for k in range(1, 11)) / 10)
    for row in noise:
        assert best <= area_under_risk_coverage(row, correct) <= worst
