"""The factors of an arc where it is one, and where it is taken for its chord."""

import math

import pytest

from harness.merging.inner_products import arc


def test_nearly_parallel_and_nearly_opposite_vectors_take_the_chord():
    assert arc([1.0, 1.0, 0.9999], 0.25) == (0.75, 0.25)
    assert arc([1.0, 1.0, -0.9999], 0.25) == (0.75, 0.25)
    assert arc([1.0, 1.0, 0.999], 0.25) != (0.75, 0.25)


def test_a_zero_tensor_counts_as_orthogonal():
    assert arc([0.0, 4.0, 0.0], 0.5) == pytest.approx((math.sqrt(0.5), math.sqrt(0.5)))
