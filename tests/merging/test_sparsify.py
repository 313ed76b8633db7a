"""Sparse task vectors against slow, plain readings, and the laws of the random ones."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from harness.merging.sparsify import (
    drop,
    kth_largest,
    magprune_probabilities,
    restore_l1,
    trim,
    trim_outliers,
    uniform_draws,
)
from tests.examples import examples
from tests.merging import by_hand

MANY = examples(150)
VECTORS = st.lists(st.integers(-3, 3), min_size=1, max_size=30)
SHARES = st.one_of(st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.floats(0, 1))


def vector_of(values):
    return torch.tensor(values, dtype=torch.float32)


# By magnitude.


@MANY
@given(VECTORS, st.floats(1e-6, 1))
@example([1, -1, 1], 0.4)
@example([0, 0, 0], 0.5)
def test_trimming_keeps_exactly_that_many_the_first_of_equals(values, density):
    vector = vector_of(values)
    assert trim(vector, density).tolist() == by_hand.trimmed(vector.tolist(), density)
    entries = vector.abs() + 1  # no zeros, so that what is kept can be counted
    count = int(density * len(values))
    assert int(trim(entries, density).count_nonzero()) == max(1, count)
    assert int(trim(entries, density, "exactly").count_nonzero()) == count


@MANY
@given(VECTORS, st.floats(1e-6, 1))
@example([1, -1, 2, 3], 0.5)
def test_as_the_authors_one_more_is_kept_and_all_its_equals(values, density):
    vector = vector_of(values)
    assert trim(vector, density, "kthvalue").tolist() == by_hand.trimmed_by_the_authors(vector.tolist(), density)
    distinct = torch.arange(1.0, len(values) + 1)
    found = int(trim(distinct, density, "kthvalue").count_nonzero())
    assert found == min(int(density * len(values)) + 1, len(values))


@pytest.mark.parametrize("keep", ["exactly", "at_least_one"])
def test_density_zero_keeps_nothing(keep):
    assert trim(torch.ones(3), 0.0, keep).tolist() == [0.0, 0.0, 0.0]


@MANY
@given(VECTORS, SHARES, SHARES)
@example([1, 1, 1, 1], 0.5, 0.25)
@example([1, 2, 3, 4], 0.75, 0.5)
def test_outliers_go_first_and_then_the_smallest(values, density, outliers):
    vector = vector_of(values)
    assert trim_outliers(vector, density, outliers).tolist() == by_hand.without_outliers(values, density, outliers)
    kept = int(trim_outliers(vector.abs() + 1, density, outliers).count_nonzero())
    assert kept == int(density * len(values))


def test_without_outliers_to_remove_it_is_trimming():
    vector = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(trim_outliers(vector, 0.3, 0.0), trim(vector, 0.3))
    assert torch.equal(trim_outliers(vector, 1.0, 0.5), vector)


@pytest.mark.parametrize("sparsify", [trim, lambda t, d: trim_outliers(t, d, 0.1)], ids=["trim", "outliers"])
def test_shapes_stay_and_the_input_is_left_alone(sparsify):
    tensor = torch.tensor([[1.0, -2.0], [2.0, 0.5]])
    before = tensor.clone()
    found = sparsify(tensor, 0.5)
    assert found.shape == tensor.shape
    assert int(found.count_nonzero()) == 2
    assert torch.equal(tensor, before)
    assert sparsify(torch.tensor(3.0), 1.0) == 3.0


# At random.


def draws(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rescale", ["none", "inverse", "l1"])
def test_what_is_dropped_for_sure_or_never(rescale):
    tensor, uniform = torch.randn(4, 5, generator=torch.Generator().manual_seed(1)), draws(4, 5)
    assert torch.equal(drop(tensor, 1.0, uniform, rescale), tensor)
    assert not drop(tensor, 0.0, uniform, rescale).any()
    assert not drop(torch.zeros(4, 5), 0.5, uniform, rescale).any()


@MANY
@given(VECTORS, st.floats(0.05, 1), st.integers(0, 99))
def test_a_kept_entry_is_divided_by_its_probability_or_its_tensors_norm_is_restored(values, density, seed):
    vector, uniform = vector_of(values), draws(len(values), seed=seed)
    kept = [bool(u < density) for u in uniform.tolist()]
    plain = [v if k else 0.0 for v, k in zip(values, kept, strict=True)]
    assert drop(vector, density, uniform, "none").tolist() == plain
    torch.testing.assert_close(drop(vector, density, uniform), vector_of([v / density for v in plain]))
    left = sum(map(abs, plain))
    factor = sum(map(abs, values)) / left if left else 1.0
    torch.testing.assert_close(drop(vector, density, uniform, "l1"), vector_of([v * factor for v in plain]))


def mean_and_error(samples):
    """The mean of samples [T, d], and its standard error."""
    return samples.mean(dim=0), samples.std(dim=0) / math.sqrt(len(samples))


def test_the_expected_value_of_what_is_left_is_the_task_vector():
    vector = torch.tensor([0.5, -2.0, 0.0, 3.0, -0.01])
    taken = torch.stack([drop(vector, 0.3, uniform_draws([5], seed, "m", "w")) for seed in range(4000)])
    mean, error = mean_and_error(taken)
    assert ((mean - vector).abs() <= 4 * error).all()
    assert (taken == 0).float().mean() == pytest.approx(0.2 + 0.8 * 0.7, abs=0.02)


def test_the_expected_value_is_kept_where_probabilities_differ_too():
    vector = torch.tensor([0.5, -2.0, 0.1, 3.0, -0.01])
    likely = magprune_probabilities(vector, 0.4, 0.3)
    taken = torch.stack([drop(vector, likely, uniform_draws([5], seed, "m", "w")) for seed in range(4000)])
    mean, error = mean_and_error(taken)
    assert ((mean - vector).abs() <= 4 * error).all()
    torch.testing.assert_close((taken != 0).float().mean(dim=0), likely, atol=0.03, rtol=0)


def test_draws_belong_to_the_seed_the_member_and_the_tensor():
    torch.manual_seed(1)
    first = uniform_draws((3, 4), 7, "m", "w")
    torch.manual_seed(2)
    assert torch.equal(uniform_draws((3, 4), 7, "m", "w"), first)
    assert first.shape == (3, 4)
    for other in ((8, "m", "w"), (7, "n", "w"), (7, "m", "v"), (7, "mw", "")):
        assert (uniform_draws((3, 4), *other) != first).all()
    many = uniform_draws((20_000,), 7, "m", "w")
    assert many.min() >= 0
    assert many.max() < 1
    counts = torch.histc(many, bins=10, min=0, max=1)
    assert ((counts - 2000) ** 2 / 2000).sum() < 28  # chi-squared with 9 degrees of freedom: 0.1 % beyond


# MAGPRUNE.


@MANY
@given(VECTORS, st.sampled_from([(0.5, 0.25), (0.3, 0.1), (0.9, 0.05), (0.5, 0.0)]))
def test_probabilities_rise_with_the_rank_in_the_row(values, chosen):
    found = magprune_probabilities(vector_of(values), *chosen)
    torch.testing.assert_close(found, vector_of(by_hand.magprune(values, *chosen)))
    assert float(found.mean()) == pytest.approx(chosen[0], abs=1e-5)


def test_a_row_is_what_feeds_one_output_or_what_differs_in_the_second_axis():
    kernel = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(2))
    found = magprune_probabilities(kernel, 0.5, 0.2)
    for row, expected in zip(found, kernel, strict=True):
        by_rank = by_hand.magprune(expected.flatten().tolist(), 0.5, 0.2)
        torch.testing.assert_close(row.flatten(), vector_of(by_rank))
    found = magprune_probabilities(kernel, 0.5, 0.2, "second_axis")
    for place in ((0, 0, 0), (2, 1, 0), (1, 0, 1)):
        output, y, x = place
        by_rank = by_hand.magprune(kernel[output, :, y, x].tolist(), 0.5, 0.2)
        torch.testing.assert_close(found[output, :, y, x], vector_of(by_rank))
    of_matrix = [magprune_probabilities(kernel.flatten(1), 0.5, 0.2, rows) for rows in ("outputs", "second_axis")]
    assert torch.equal(*of_matrix)
    assert magprune_probabilities(torch.ones(3, 1), 0.5, 0.2).tolist() == [[0.5]] * 3


@given(st.integers(0, 2**32 - 1), st.integers(1, 5000), st.sampled_from(["plain", "coarse", "equal", "zeros", "tiny"]))
@examples(60)
def test_two_histograms_find_what_a_sort_finds(seed, k, kind):
    values = torch.randn(5000, generator=torch.Generator().manual_seed(seed)).abs()
    if kind == "coarse":
        values = values.bfloat16().float()
    values = {"equal": values * 0 + 3.0, "zeros": values * (values > 0.8), "tiny": values * 1e-42}.get(kind, values)
    assert kth_largest(values, k) == values.sort(descending=True).values[k - 1]


def test_a_norm_below_the_floor_is_not_restored():
    whole = torch.tensor([3e-8, -2e-8, 1e-8, 0.0])
    sparse = whole * torch.tensor([1, 0, 1, 0])
    assert torch.equal(restore_l1(sparse, whole, 1e-7), sparse)
    torch.testing.assert_close(restore_l1(sparse, whole), sparse * 1.5)
    torch.testing.assert_close(restore_l1(sparse * 1e3, whole * 1e3, 1e-7), sparse * 1.5e3)
    assert not restore_l1(torch.zeros(4), whole).any()
