"""The oracle, and what of it is luck: against all permutations, and as laws."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evaluate.operating import measured_mean
from harness.evaluate.oracle import luck_corrected, oracle
from tests.examples import examples

RIGHT = np.array([[1, 0, 0, 1], [1, 1, 0, 0], [0, 1, 0, 0]])
COSTS = np.array([1.0, 2.0, 4.0])

tables = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed)).map(
    lambda rng: (rng.random((rng.integers(1, 5), rng.integers(1, 25))) < rng.random(), rng))  # fmt: skip


def test_the_cheapest_right_model_is_called_or_the_cheapest_of_all():
    score, cost = oracle(RIGHT, COSTS)
    assert score.tolist() == [1, 1, 0, 1]
    assert cost.tolist() == [1, 2, 1, 1]
    assert oracle(RIGHT, np.tile(COSTS[:, None], 4))[1].tolist() == cost.tolist()


def test_what_an_example_costs_may_differ_from_example_to_example():
    costs = np.tile(COSTS[:, None], 4)
    costs[:, 0] = [3, 1, 1]
    assert oracle(RIGHT, costs)[1].tolist() == [1, 2, 1, 1]


@given(tables)
@examples(50)
def test_no_router_scores_higher_than_the_oracle(table):
    right, rng = table
    costs = rng.random(len(right)) + 0.1
    chosen = rng.integers(len(right), size=right.shape[1])
    score, cost = oracle(right, costs)
    assert (right[chosen, np.arange(right.shape[1])] <= score).all()
    for one in np.flatnonzero(score):  # nor is it right for less
        assert cost[one] == min(costs[right[:, one]])
    assert (luck_corrected(right, costs) @ np.ones(len(score)) <= score.sum() + 1e-9).all()


@given(tables)
@examples(50)
def test_orders_of_examples_and_of_models_are_nothing(table):
    right, rng = table
    costs = rng.integers(1, 3, size=len(right)).astype(float)
    models, order = rng.permutation(len(right)), rng.permutation(right.shape[1])
    for function in (lambda *given: oracle(*given)[0], lambda *given: oracle(*given)[1], luck_corrected):
        again = function(right[models][:, order], costs[models])
        assert again == pytest.approx(function(right, costs)[order])


def by_all_permutations(right, costs):
    """The oracle's mean score if it goes by permuted labels: over all permutations that leave no example its own."""
    right, total = np.asarray(right, bool), 0.0
    count = right.sum(axis=0)
    for number in range(1, len(right) + 1):
        group = np.flatnonzero(count == number)
        if len(group) == 1:
            total += number / len(right)
            continue
        found = []
        for order in permutations(range(len(group))):
            if all(place != at for at, place in enumerate(order)):
                score = 0.0
                for own, other in zip(group, group[list(order)], strict=True):
                    least = costs[right[:, other]].min()
                    among = right[:, other] & (costs == least)
                    score += right[among, own].mean()
                found.append(score)
        total += np.mean(found) if found else 0.0
    return total / right.shape[1]


@given(st.integers(0, 2**32 - 1), st.sampled_from([[1.0, 2.0, 4.0], [1.0, 1.0, 2.0], [1.0, 1.0, 1.0]]))
@examples(25)
def test_luck_is_corrected_by_the_mean_over_all_permutations(seed, costs):
    right = np.random.default_rng(seed).random((3, 8)) < 0.5
    assert luck_corrected(right, np.array(costs)).mean() == pytest.approx(by_all_permutations(right, np.array(costs)))


def test_a_table_worked_out_by_hand():
    # of two examples one model is right, the first and the second: by the other's labels both are wrong; of the other
    # two, both are right
    right = np.array([[1, 0, 1, 1], [0, 1, 1, 1]])
    assert luck_corrected(right, np.array([1.0, 2.0])).mean() == pytest.approx(0.5, abs=1e-9)
    assert oracle(right, np.array([1.0, 2.0]))[0].mean() == 1


def test_models_that_differ_by_luck_alone_gain_nothing_and_one_that_is_always_right_keeps_all():
    rng = np.random.default_rng(0)
    difficulty = rng.random(20_000)
    right = rng.random((4, 20_000)) < difficulty
    equal = np.ones(4)
    assert oracle(right, equal)[0].mean() > right.mean() + 0.2
    told = measured_mean(luck_corrected(right, equal)[None])
    assert told.low < right.mean() < told.high
    right[2] = True
    assert luck_corrected(right, np.array([4.0, 4.0, 1.0, 4.0])).mean() == 1


@pytest.mark.parametrize(
    ("right", "costs", "problem"),
    [(np.full((2, 3), 0.5), [1, 2], "no zeros and ones"), (np.zeros((0, 3)), [], "no zeros and ones"),
     (np.zeros((2, 3)), [1, np.nan], "must be finite")],
)  # fmt: skip
def test_what_is_no_table_of_answers_is_refused(right, costs, problem):
    with pytest.raises(ValueError, match=problem):
        oracle(right, np.array(costs))
