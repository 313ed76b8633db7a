"""Coefficients from inner products against mergekit on whole vectors in float64, and the laws of what lies between."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.merging.inner_products import NEARLY_PARALLEL
from harness.streaming.angles import coefficient_rows, coefficients, needs_gram
from harness.streaming.rules import RULES
from tests.examples import examples
from tests.merging.mergekit_oracle import cases, tensors
from tests.streaming.steps import mergekit, step_of

MANY = examples(100)
T = st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 1.0, -0.3, 1.4])
SIZES = st.sampled_from([1.0, 1e-8])
"""Of which the second is about where norms are taken for 0."""
WEIGHTS = st.sampled_from([0.0, 0.3, 1.0, -0.3, 2.5])


def flat(vectors):
    return torch.stack([vector.flatten() for vector in vectors]).numpy()  # [S, d]


def gram_of(vectors, base=None):
    table = flat(vectors)
    return (table - (0 if base is None else table[base])) @ (table - (0 if base is None else table[base])).T


def merged(step, vectors):
    """The sum by the coefficients, from the inner products that the rule asks for."""
    between = needs_gram(step.rule, step.shared)
    assert between is not None
    found = coefficients(step, gram_of(vectors, step.base if between == "differences" else None))
    assert all(isinstance(factor, float) for factor in found)
    assert len(found) == len(vectors)
    return torch.from_numpy(found @ flat(vectors)).view(vectors[0].shape)


def least_cosine(vectors):
    table = flat(vectors)
    norms = np.linalg.norm(table, axis=1).clip(min=1e-30)
    return float((table @ table.T / np.outer(norms, norms)).min())


def assert_same(step, vectors, rtol):
    expected = mergekit(step, vectors)
    scale = float(torch.stack([*vectors, expected]).abs().max())
    torch.testing.assert_close(merged(step, vectors), expected, rtol=rtol, atol=rtol * scale)


@MANY
@given(cases, T, st.sampled_from([0, 1]), SIZES)
def test_slerp_is_mergekits(case, t, base, size):
    vectors = [size * vector for vector in tensors(case, 2)]
    cosine = gram_of([vector / vector.norm().clip(min=1e-30) for vector in vectors])[0, 1]
    assume(abs(abs(cosine) - NEARLY_PARALLEL) > 1e-6)  # on the edge rounding decides the branch
    assert_same(step_of("slerp", 2, vectors[0].shape, base=base, t=t), vectors, 1e-9)


@MANY
@given(cases, WEIGHTS, WEIGHTS, st.sampled_from([None, 0, 1, 2]), SIZES)
def test_nuslerp_is_mergekits_with_a_base_and_without(case, first, second, base, size):
    vectors = [size * vector for vector in tensors(case, 2 if base is None else 3)]
    moved = [v if base is None else v - vectors[base] for i, v in enumerate(vectors) if i != base]
    assume(least_cosine(moved) > -0.999)  # near to opposite the arc could be any, and rounding chooses it
    assume(max(float(v.norm()) for v in moved) < 1e3 * min(float(v.norm()) for v in vectors) + 1)
    weights = [0.0] * len(vectors)
    for place, weight in zip((i for i in range(len(vectors)) if i != base), (first, second), strict=True):
        weights[place] = weight
    assert_same(step_of("nuslerp", len(vectors), vectors[0].shape, base=base, weight=weights), vectors, 1e-7)


@MANY
@given(cases, st.integers(3, 5), st.integers(0, 2))
def test_model_stock_is_mergekits(case, count, base):
    vectors = tensors(case, count)
    step = step_of("model_stock", count, vectors[0].shape, base=base)
    gram = gram_of(vectors, base)
    others = [i for i in range(count) if i != base]
    norms = np.sqrt(np.diag(gram)[others])
    cosines = (gram[np.ix_(others, others)] / np.outer(norms, norms).clip(min=1e-6))[np.triu_indices(count - 1, 1)]
    assume(abs(1 + (count - 2) * cosines.mean()) > 1e-3)  # near the singularity rounding is all that counts
    assert_same(step, vectors, 1e-9)


@MANY
@given(cases, st.integers(1, 5), st.sampled_from([0, 1, 10]), st.sampled_from([1e-5, 1e-2]))
def test_the_karcher_mean_is_mergekits(case, count, max_iter, tol):
    vectors = tensors(case, count)
    assume(least_cosine(vectors) > -0.99)  # the way to the opposite is any, and rounding chooses it
    step = step_of("karcher", count, vectors[0].shape, max_iter=max_iter, tol=tol)
    assert_same(step, vectors, 1e-7)


def test_nothing_but_zeros_has_the_mean_zero():
    step = step_of("karcher", 3)
    assert coefficients(step, np.zeros((3, 3))) == [0.0, 0.0, 0.0]


def unit(*angles):
    """Unit vectors in a plane, and a base at its origin."""
    return [torch.zeros(2).double(), *(torch.tensor([np.cos(a), np.sin(a)]) for a in angles)]


def test_opposite_vectors_have_a_chord_and_do_not_pull():
    _, one, other = unit(0.3, 0.3 + np.pi)
    nuslerp = step_of("nuslerp", 2, (2,), base=None, weight=[0.75, 0.25])
    assert coefficients(nuslerp, gram_of([one, other])) == [0.75, 0.25]
    assert coefficients(nuslerp, gram_of([one, -2 * one])) == [0.75, 0.25]
    karcher = step_of("karcher", 2, (2,))
    assert coefficients(karcher, gram_of([one, other])) == pytest.approx([1.0, 0.0])


def test_what_is_opposite_but_for_rounding_has_a_chord_and_does_not_pull():
    nuslerp = step_of("nuslerp", 2, (50,), base=None, weight=[0.75, 0.25])
    for seed in range(40):
        vector = torch.randn(50, generator=torch.Generator().manual_seed(seed)).double()
        assert coefficients(nuslerp, gram_of([vector, -vector / (seed + 1.5)])) == [0.75, 0.25]
        found = merged(step_of("karcher", 2, (50,)), [vector, -vector / (seed + 1.5)])
        torch.testing.assert_close(found, vector * (1 + 1 / (seed + 1.5)) / 2)


@pytest.mark.parametrize("max_iter", [1, 2, 10])
def test_those_within_the_tolerance_of_the_mean_do_not_pull(max_iter):
    """The first is nearer than the tolerance to where the mean starts, and others pull that away from it."""
    vectors = unit(0.0, 1.5, -1.41)[1:]
    assert_same(step_of("karcher", 3, (2,), max_iter=max_iter, tol=1e-2), vectors, 1e-9)


def test_weights_that_sum_to_nothing_go_half_of_the_way():
    _, one, other = unit(0.2, 1.0)
    half, none = ([w, v] for w, v in ((1.0, 1.0), (0.3, -0.3)))
    found = [
        coefficients(step_of("nuslerp", 2, (2,), base=None, weight=weights), gram_of([one, other]))
        for weights in (half, none)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("angles", [(0.1, 0.5), (0.1, 0.5, 0.9), (0.0, 2 * np.pi / 3, 4 * np.pi / 3)])
def test_the_mean_on_a_circle_is_the_mean_of_the_angles(angles):
    vectors = unit(*angles)[1:]
    found = merged(step_of("karcher", len(angles), (2,), max_iter=50, tol=1e-9), vectors)
    if max(angles) > 4:  # all around, no direction is nearer to them than others: the first one's stays
        assert found.tolist() == pytest.approx([1.0, 0.0])
    else:
        assert found.tolist() == pytest.approx([np.cos(np.mean(angles)), np.sin(np.mean(angles))], abs=1e-9)


def test_task_vectors_at_one_angle_give_the_ratio_of_the_paper():
    ratio = 2 * np.cos(0.7) / (1 + np.cos(0.7))
    found = coefficients(step_of("model_stock", 3, (2,)), gram_of(unit(0.2, 0.9), 0))
    assert found == pytest.approx([1 - ratio, ratio / 2, ratio / 2])


@MANY
@given(cases, st.sampled_from(["nuslerp", "model_stock"]), st.integers(0, 2))
def test_the_coefficients_of_task_vectors_sum_to_one_with_the_bases(case, rule, base):
    vectors = tensors(case, 3)
    given_ = {"weight": [0.2, 0.5, 0.9]} if rule == "nuslerp" else {}
    found = coefficients(step_of(rule, 3, vectors[0].shape, base=base, **given_), gram_of(vectors, base))
    assert sum(found) == pytest.approx(1, abs=1e-9 * (1 + max(map(abs, found))))


@MANY
@given(cases, T)
def test_of_copies_all_coefficients_sum_to_one(case, t):
    vector = tensors(case, 1)[0] + 1e-3
    for step in (
        step_of("slerp", 2, vector.shape, t=t),
        step_of("nuslerp", 2, vector.shape, base=None, weight=[1 - t, t]),
        step_of("nuslerp", 3, vector.shape, weight=[0.0, 1 - t, t]),
        step_of("model_stock", 3, vector.shape),
        step_of("karcher", 4, vector.shape),
    ):
        copies = [vector] * len(step.sources)
        torch.testing.assert_close(merged(step, copies), vector, rtol=1e-7, atol=0)


def test_many_rows_have_the_coefficients_that_each_has_alone():
    rows = torch.randn(3, 6, 9, generator=torch.Generator().manual_seed(0)).double()  # [S, U, n]
    grams = np.stack([gram_of(list(rows[:, u]), 0) for u in range(6)])
    for step in (step_of("model_stock", 3, (9,)), step_of("nuslerp", 3, (9,), weight=[0.0, 0.4, 0.8])):
        assert np.array_equal(coefficient_rows(step, grams), [coefficients(step, gram) for gram in grams])


def test_only_these_rules_ask_for_inner_products():
    asked = {}
    for rule in RULES:
        defaults = {parameter.name: parameter.default for parameter in RULES[rule].parameters}
        asked[rule] = needs_gram(rule, defaults)
    assert {rule: between for rule, between in asked.items() if between} == {
        "slerp": "sources",
        "karcher": "sources",
        "nuslerp": "differences",
        "model_stock": "differences",
    }
    by_rows = partial(needs_gram, shared={"nuslerp_flatten": False, "filter_wise": True})
    assert by_rows("nuslerp") is None
    assert by_rows("model_stock") is None
