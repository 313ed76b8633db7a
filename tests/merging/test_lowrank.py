"""Factors of differences: numpy's truncated SVD, exact where the rank suffices, and an error that is the true one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.merging import lowrank
from harness.merging.lowrank import factorise, factorise_product, rounding, total_error
from tests.examples import examples

SOME = examples(40)
SIZES = st.integers(1, 12)


def matrix(rows, columns, rank, seed):
    generator = torch.Generator().manual_seed(seed)
    up = torch.randn(rows, rank, generator=generator, dtype=torch.float64)
    return up @ torch.randn(rank, columns, generator=generator, dtype=torch.float64)


def product(factors):
    return (factors.up.double() @ factors.down.double()).numpy()


@SOME
@given(SIZES, SIZES, st.integers(1, 6), st.integers(0, 99))
def test_the_product_is_numpys_truncated_svd_and_its_error_the_singular_values_left_out(rows, columns, rank, seed):
    whole = matrix(rows, columns, 20, seed)
    found = factorise(whole, rank)
    left, values, right = np.linalg.svd(whole.numpy())
    kept = min(rank, rows, columns)
    expected = (left[:, :kept] * values[:kept]) @ right[:kept]
    assert (found.up.shape, found.down.shape) == ((rows, kept), (kept, columns))
    np.testing.assert_allclose(product(found), expected, atol=1e-5 * values[0])
    assert found.norm == pytest.approx(np.linalg.norm(whole.numpy()))
    assert found.left == pytest.approx(np.linalg.norm(values[kept:]), rel=1e-4, abs=1e-6 * values[0])
    assert found.error == pytest.approx(found.left / found.norm)


@SOME
@given(st.integers(4, 12), st.integers(4, 12), st.integers(1, 3), st.integers(0, 99))
def test_a_matrix_of_a_smaller_rank_keeps_that_rank_and_is_exact(rows, columns, rank, seed):
    whole = matrix(rows, columns, rank, seed)
    found = factorise(whole, 4)
    assert found.rank == rank
    np.testing.assert_allclose(product(found), whole.numpy(), atol=1e-5 * float(whole.norm()))


@SOME
@given(st.integers(4, 12), st.integers(4, 12), st.integers(1, 3), st.sampled_from([1e-3, 1.0]), st.integers(0, 99))
def test_rounding_of_the_sum_with_a_base_adds_no_rank(rows, columns, rank, scale, seed):
    base = matrix(rows, columns, 20, seed + 1).float()
    whole = scale * matrix(rows, columns, rank, seed)
    found = factorise((base + whole.float()) - base, 4, rounding(base))
    assert found.rank <= rank
    np.testing.assert_allclose(product(found), whole.numpy(), atol=1e-5)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("fall", [1.0, 0.97, 0.5, 0.0])
def test_of_large_matrices_iteration_finds_what_is_found_at_once(fall, turned, monkeypatch):
    left, values, right = torch.linalg.svd(matrix(200, 240, 200, 1), full_matrices=False)
    values = values / values[0] if fall == 1 else fall ** torch.arange(200.0, dtype=torch.float64)  # 0: of rank 1
    whole = (left * values) @ right
    whole = whole.T if turned else whole
    at_once = factorise(whole, 8)
    monkeypatch.setattr(lowrank, "WHOLE", 100)
    found, again = factorise(whole, 8), factorise(whole.clone(), 8)
    assert torch.equal(found.up, again.up)
    assert found.rank == at_once.rank
    assert found.left <= (1 + 1e-4) * at_once.left + 1e-7
    assert found.left == pytest.approx(np.linalg.norm(whole.numpy() - product(found)))
    if fall < 1:  # of equal singular values any will do
        np.testing.assert_allclose(product(found), product(at_once), atol=1e-6)


@SOME
@given(SIZES, SIZES, SIZES, st.integers(1, 6), st.integers(0, 99))
def test_a_product_is_factorised_as_if_it_had_been_made(rows, columns, inner, rank, seed):
    generator = torch.Generator().manual_seed(seed)
    up, down = (torch.randn(shape, generator=generator) for shape in ((rows, inner), (inner, columns)))
    whole = (up.double() @ down.double()).numpy()
    found = factorise_product(up, down, rank)
    left, values, right = np.linalg.svd(whole)
    kept = min(rank, rows, columns, inner)
    assert (found.up.shape, found.down.shape) == ((rows, kept), (kept, columns))
    np.testing.assert_allclose(product(found), (left[:, :kept] * values[:kept]) @ right[:kept], atol=1e-5 * values[0])
    np.testing.assert_allclose(found.up.norm(dim=0), found.down.norm(dim=1), rtol=1e-5)
    assert found.norm == pytest.approx(np.linalg.norm(whole))
    assert found.left == pytest.approx(np.linalg.norm(whole - product(found)), abs=1e-12 * values[0])
    assert all(found.up[row, k] > 0 for k, row in enumerate(found.up.abs().argmax(dim=0)))


@SOME
@given(SIZES, SIZES, st.integers(1, 3), st.sampled_from([1.0, -1.0, 0.5]), st.integers(0, 99))
def test_the_same_product_twice_has_no_more_rank_than_once(rows, columns, inner, weight, seed):
    generator = torch.Generator().manual_seed(seed)
    up, down = (torch.randn(shape, generator=generator) for shape in ((rows, inner), (inner, columns)))
    found = factorise_product(torch.cat([up, weight * up], dim=1), torch.cat([down, down]), 12)
    assert found.rank == (0 if weight == -1 else min(rows, columns, inner))
    np.testing.assert_allclose(product(found), (1 + weight) * (up.double() @ down.double()).numpy(), atol=1e-5)


def test_nothing_has_rank_zero():
    found = factorise(torch.zeros(3, 4), 2)
    assert (found.rank, found.error, found.up.shape, found.down.shape) == (0, 0.0, (3, 0), (0, 4))
    assert total_error([found]) == 0.0


def test_convolutions_are_matrices_with_a_row_for_each_channel():
    whole = matrix(6, 4 * 3 * 3, 2, 0).view(6, 4, 3, 3)
    found = factorise(whole, 5)
    assert (found.rank, found.up.shape, found.down.shape) == (2, (6, 2), (2, 36))
    np.testing.assert_allclose(product(found), whole.flatten(1).numpy(), atol=1e-5 * float(whole.norm()))


def test_the_same_matrix_gives_the_same_factors_whatever_was_drawn_before():
    whole = matrix(40, 60, 30, 0)
    torch.manual_seed(1)
    one = factorise(whole, 8)
    torch.manual_seed(2)
    other = factorise(whole.clone(), 8)
    assert torch.equal(one.up, other.up)
    assert torch.equal(one.down, other.down)
    rows = range(8), one.up.abs().argmax(dim=0)
    assert all(one.up[row, rank] > 0 for rank, row in zip(*rows, strict=True))  # of either sign by the library's whim


def test_both_factors_are_of_one_size():
    found = factorise(1e4 * matrix(8, 20, 6, 0), 3)
    np.testing.assert_allclose(found.up.norm(dim=0), found.down.norm(dim=1), rtol=1e-5)


def test_the_total_error_is_that_of_the_differences_side_by_side():
    pieces = [factorise(matrix(*shape, 20, 3), 2) for shape in ((5, 9), (12, 4), (7, 7))]
    missed = [(matrix(*shape, 20, 3).numpy() - product(each)).ravel()
              for shape, each in zip(((5, 9), (12, 4), (7, 7)), pieces, strict=True)]  # fmt: skip
    norm = np.linalg.norm([each.norm for each in pieces])
    assert total_error(pieces) == pytest.approx(np.linalg.norm(np.concatenate(missed)) / norm)
