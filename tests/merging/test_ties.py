"""TIES against a slow, plain reading of its paper, one parameter at a time."""

import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.merging.arithmetic import average
from harness.merging.ties import apply_task_vector, disjoint_mean, elect_signs, ties_task_vector, trim
from harness.models.weights import LazyWeights, save_weights

MANY = settings(max_examples=150, deadline=None)
DENSITIES = st.sampled_from([1e-9, 0.1, 0.2, 0.25, 1 / 3, 0.5, 0.9, 0.999, 1.0])
GRID = 16
"""Entries are small multiples of 1/16, so that all sums are exact and the reading below is compared bit for bit."""


def sign(value):
    return (value > 0) - (value < 0)


def trimmed_by_hand(tau, density):
    """Section 4, step 1: keep the top k % by magnitude, over the whole model; among equals those that come first."""
    ranked = sorted(range(len(tau)), key=lambda i: (-abs(tau[i]), i))
    kept = set(ranked[: max(1, int(density * len(tau)))])
    return [value if i in kept else 0.0 for i, value in enumerate(tau)]


def ties_by_hand(taus, density):
    """Steps 1 to 3 for flat task vectors."""
    trimmed = [trimmed_by_hand(tau, density) for tau in taus]
    columns = list(zip(*trimmed, strict=True))
    signs = [sign(sum(column)) for column in columns]
    majority = sign(sum(signs)) or 1
    merged = []
    for column, elected in zip(columns, signs, strict=True):
        agreeing = [value for value in column if sign(value) == (elected or majority)]
        merged.append(sum(agreeing) / len(agreeing) if agreeing else 0.0)
    return merged


def as_model(values, dtype=torch.float32):
    """A flat list as a model of a matrix, a vector and a scalar, with a counter among them."""
    flat = torch.tensor(values, dtype=torch.float64).to(dtype)
    rest = len(values) - 1
    return {
        "vector": flat[: rest % 2],
        "steps": torch.tensor(3),
        "matrix": flat[rest % 2 : rest].reshape(2, -1) if rest > 1 else flat[:0],
        "scalar": flat[rest],
    }


def flat(model):
    return torch.cat([model[name].flatten() for name in ("vector", "matrix", "scalar")]).tolist()


@st.composite
def pools(draw, most=5):
    """A base and task vectors of one length, with many equal magnitudes, zeros and cancelling entries."""
    length = draw(st.integers(1, 12))
    vectors = st.lists(st.integers(-4, 4), min_size=length, max_size=length)
    base = draw(vectors)
    return base, draw(st.lists(vectors, min_size=1, max_size=most))


def models_of(base, taus):
    start = as_model([b / GRID for b in base])
    return start, [as_model([(b + t) / GRID for b, t in zip(base, tau, strict=True)]) for tau in taus]


@MANY
@given(pools(), DENSITIES)
@example(([0], [[0]]), 1.0)
@example(([1], [[2], [-2]]), 0.2)
@example(([0, 0, 0], [[1, -1, 0], [-1, -1, 2]]), 1.0)
@example(([0, 0], [[1, -1], [-1, -1], [0, 0]]), 1.0)
@example(([0, 0, 0, 0], [[0, 0, 0, 0], [0, 0, 0, 0]]), 0.5)
@example(([0, 0, 0, 0], [[3, -3, 3, -3], [-3, 3, -3, 3]]), 0.5)
def test_it_is_the_paper(pool, density):
    base, taus = pool
    start, tuned = models_of(base, taus)
    expected = ties_by_hand([[t / GRID for t in tau] for tau in taus], density)
    found = ties_task_vector(start, tuned, density)
    assert [(name, tensor.shape) for name, tensor in found.items()] == [
        (name, tensor.shape) for name, tensor in start.items() if name != "steps"
    ]
    assert all(tensor.dtype == torch.float32 for tensor in found.values())
    assert flat(found) == torch.tensor(expected, dtype=torch.float64).float().tolist()


@pytest.mark.parametrize("density", [0.05, 0.2, 0.5, 1.0])
def test_it_is_the_paper_on_real_numbers_too(density):
    generator = torch.Generator().manual_seed(3)
    base, *tuned = (torch.randn(401, generator=generator) for _ in range(5))
    taus = [(model - base).tolist() for model in tuned]
    found = ties_task_vector({"w": base}, [{"w": model} for model in tuned], density)["w"]
    torch.testing.assert_close(found, torch.tensor(ties_by_hand(taus, density)))


@MANY
@given(pools(most=1), DENSITIES)
def test_one_member_is_its_trimmed_task_vector(pool, density):
    base, (tau,) = pool
    start, tuned = models_of(base, [tau])
    assert flat(ties_task_vector(start, tuned, density)) == trimmed_by_hand([t / GRID for t in tau], density)


@MANY
@given(pools(), st.lists(st.sampled_from([-1, 1]), min_size=12, max_size=12))
def test_with_equal_signs_and_nothing_trimmed_it_is_the_plain_mean(pool, signs):
    base, taus = pool
    taus = [[s * (abs(t) + 1) for t, s in zip(tau, signs, strict=False)] for tau in taus]
    start, tuned = models_of(base, taus)
    found = apply_task_vector(start, ties_task_vector(start, tuned, 1.0), 1.0)
    torch.testing.assert_close(torch.tensor(flat(found)), torch.tensor(flat(average(tuned))), rtol=1e-6, atol=1e-6)


@MANY
@given(pools(), DENSITIES, st.randoms(use_true_random=False))
def test_the_order_of_the_members_does_not_matter(pool, density, random):
    base, taus = pool
    start, tuned = models_of(base, taus)
    shuffled = random.sample(tuned, len(tuned))
    assert flat(ties_task_vector(start, shuffled, density)) == flat(ties_task_vector(start, tuned, density))


@pytest.mark.parametrize(
    "entries", [(0.17, 0.82, -0.99), (1e8, -1.0, -1e8), (0.1, 0.2, -0.3, 1e-9)], ids=str
)
def test_nor_does_it_where_the_entries_cancel_but_for_rounding(entries):
    """A float32 sum has another sign in another order; the elected sign decides which entries count at all."""
    column = torch.tensor(entries).unsqueeze(1)
    exact_sum = sum(map(Fraction, column.flatten().tolist()))
    assert exact_sum < 0  # a sum that is rounded to zero would be taken for positive
    for order in itertools.permutations(range(len(entries))):
        assert elect_signs(column[list(order)]).tolist() == [-1]


@MANY
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.floats(1e-6, 1))
def test_exactly_that_many_entries_are_kept_the_first_of_equals(values, density):
    vector = torch.tensor(values, dtype=torch.float32)
    found = trim(vector, density)
    assert found.tolist() == trimmed_by_hand(vector.tolist(), density)
    nonzero = trim(vector.abs() + 1, density)
    assert int(nonzero.count_nonzero()) == max(1, int(density * len(values)))


def test_trimming_leaves_its_input_alone():
    vector = torch.tensor([1.0, -2.0, 2.0])
    assert trim(vector, 0.4).tolist() == [0.0, -2.0, 0.0]
    assert vector.tolist() == [1.0, -2.0, 2.0]


def test_a_sum_of_zero_takes_the_sign_that_most_entries_of_the_model_have():
    towards_minus = torch.tensor([[2.0, -1.0, -1.0], [-2.0, -1.0, -1.0]])
    assert elect_signs(towards_minus).tolist() == [-1.0, -1.0, -1.0]
    assert elect_signs(-towards_minus).tolist() == [1.0, 1.0, 1.0]
    assert disjoint_mean(towards_minus, elect_signs(towards_minus)).tolist() == [-2.0, -1.0, -1.0]
    assert elect_signs(torch.tensor([[2.0, 1.0, -1.0], [-2.0, 0.0, 0.0]])).tolist() == [1.0, 1.0, -1.0]  # no majority


def test_those_that_disagree_and_zeros_do_not_dilute_the_mean():
    vectors = torch.tensor([[3.0], [1.0], [0.0], [-2.0]])
    assert disjoint_mean(vectors, elect_signs(vectors)).tolist() == [2.0]
    assert disjoint_mean(torch.zeros(2, 3), torch.ones(3)).tolist() == [0.0, 0.0, 0.0]


def test_scales_walk_along_the_task_vector_and_counters_stay_the_bases():
    start, tuned = models_of([1, 2, 3, 4], [[4, 0, -2, 2], [2, 1, 0, 4]])
    vector = ties_task_vector(start, tuned, 1.0)
    for scale in (0.0, 0.5, 1.0, -2.0):
        found = apply_task_vector(start, vector, scale)
        assert list(found) == list(start)
        assert flat(found) == [b + scale * t for b, t in zip(flat(start), flat(vector), strict=True)]
        assert found["steps"] == 3
        assert found["steps"].data_ptr() != start["steps"].data_ptr()


def test_half_precision_is_merged_wide_and_rounded_once():
    generator = torch.Generator().manual_seed(1)
    base = {"w": torch.randn(500, generator=generator).bfloat16()}
    tuned = [{"w": (base["w"] + 0.05 * torch.randn(500, generator=generator)).bfloat16()} for _ in range(4)]
    taus = [(m["w"].double() - base["w"].double()).tolist() for m in tuned]
    exact = base["w"].double() + torch.tensor(ties_by_hand(taus, 0.5), dtype=torch.float64)
    found = apply_task_vector(base, ties_task_vector(base, tuned, 0.5), 1.0)["w"]
    assert found.dtype == torch.bfloat16
    assert ((found.double() - exact).abs() <= 1.001 * 2**-8 * exact.abs()).all()  # half a unit in the last place


def test_tied_weights_count_once_among_the_largest_and_stay_tied():
    """Counted twice, the two large tied entries would fill all four places and the untied ones would be lost."""

    def tied(large, small):
        shared = torch.tensor([large, large])
        return {"embedding": shared, "body": torch.tensor([small, small, 0.5, 0.5, 0.5, 0.5]), "head": shared}

    vector = ties_task_vector(tied(0.0, 0.5), [tied(9.0, 2.0)], 0.5)
    assert {name: tensor.tolist() for name, tensor in vector.items()} == {
        "embedding": [9.0, 9.0],
        "body": [1.5, 1.5, 0.0, 0.0, 0.0, 0.0],
    }
    found = apply_task_vector(tied(0.0, 0.5), vector, 1.0)
    assert found["body"].tolist() == [2.0, 2.0, 0.5, 0.5, 0.5, 0.5]
    found["head"][0] = 7.0
    assert found["embedding"].tolist() == [7.0, 9.0]


def test_weights_on_disk_merge_as_those_in_memory(tmp_path):
    start, tuned = models_of([1, 2, 3, 4, 0], [[4, 0, -2, 2, 1], [2, 1, 0, -4, 1], [-1, 1, 1, 1, 3]])
    for name, model in zip("012b", [*tuned, start], strict=True):
        save_weights(model, tmp_path / name)
    lazy = [LazyWeights(tmp_path / name) for name in "b012"]
    found, expected = ties_task_vector(lazy[0], lazy[1:], 1.0), ties_task_vector(start, tuned, 1.0)
    assert flat(found) == flat(expected)
    merged = apply_task_vector(lazy[0], found, 0.5)
    assert flat(merged) == flat(apply_task_vector(start, expected, 0.5))
