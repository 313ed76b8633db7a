"""Macro-F1 against the plain reading of its definition."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evaluate.metrics.macro_f1 import mean_f1
from tests.examples import examples


def plain_f1(pairs):
    """The harmonic mean of precision and recall, class by class; 0 where a class that occurs is never hit."""
    values = []
    for label in {each for pair in pairs for each in pair}:
        hits = sum(guess == truth == label for guess, truth in pairs)
        guessed, true = (sum(pair[i] == label for pair in pairs) for i in (0, 1))
        precision, recall = hits / max(1, guessed), hits / max(1, true)
        values.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    return sum(values) / len(values)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40))
@examples(60)
def test_macro_f1_is_the_plain_reading(pairs):
    prediction, labels = np.array(pairs).T
    assert mean_f1(prediction, labels, 9) == pytest.approx(plain_f1(pairs), abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "labels", "words"),
    [([], [], "not empty"), ([0], [0, 1], "equally long"), ([3], [0], "0..2"), ([0], [-1], "0..2")],
)
def test_macro_f1_refuses_what_is_no_class(prediction, labels, words):
    with pytest.raises(ValueError, match=words):
        mean_f1(np.array(prediction), np.array(labels), 3)


def test_a_class_that_is_never_hit_is_worth_nothing_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mean_f1(np.array([0, 0]), np.array([0, 1]), 3) == pytest.approx((2 / 3 + 0) / 2)
