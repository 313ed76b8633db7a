"""The scale of intervals: they can be seen, whatever lies far off."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from harness.report.scale import BEYOND, REACH, scale_of

HALF = some.floats(0.5, 2.0)
NEAR = some.lists(some.tuples(some.floats(-3, 3), HALF), min_size=3, max_size=30)


def scale(rows, sign=1, middle=None):
    values, half = np.array(rows).T
    return scale_of(values, values - half, values + half, sign, middle)


@given(NEAR, some.sampled_from([1, -1]))
def test_intervals_take_at_least_their_share_of_the_scale(rows, sign):
    found = scale(rows, sign, middle=0.0)
    typical = np.median([half for _, half in rows])
    best = max(max(sign * value + half for value, half in rows), 0)
    assert 2 * typical / (found.high - found.low) >= 2 * typical / ((REACH + BEYOND) * typical + best) - 1e-9


@given(NEAR, some.floats(100, 1e6), some.floats(100, 1e6))
def test_how_far_off_a_row_is_does_not_matter(rows, one, other):
    first, second = ([*rows, (-far, 1.0)] for far in (one, other))
    assert (scale(first, middle=0.0).low, scale(first, middle=0.0).high) == (
        scale(second, middle=0.0).low, scale(second, middle=0.0).high,
    )  # fmt: skip
    assert not scale(first, middle=0.0).near[-1]
    assert not scale([*rows, (one, 1.0)], sign=-1, middle=0.0).near[-1]


def test_a_far_row_does_not_change_the_scale():
    rows = [(0.1 * i, 1.0) for i in range(-10, 10)]
    without, with_it = scale(rows), scale([*rows, (-70.0, 1.0)])
    assert (with_it.low, with_it.high) == pytest.approx((without.low, without.high))


@given(NEAR, some.floats(0, 1e3))
def test_what_is_better_is_always_on_the_scale(rows, far):
    for sign in (1, -1):
        found = scale([*rows, (sign * far, 1.0)], sign, middle=0.0)
        assert found.near[-1]
        assert 0 <= found.at(sign * far) <= 1


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [0.1, 0.9]])
def test_values_without_intervals_have_a_scale(values):
    nothing = np.full(len(values), np.nan)
    found = scale_of(np.array(values), nothing, nothing, 1)
    assert found.low < found.high
