"""What each rule computes against mergekit's own method on the same tensors, in float32.

Bit-equal (``EXACT``, of up to three fine-tunes, whose sums have one order) or to a few roundings of the largest number
(``NEAR``): where inner products are summed, here in float64. DARE and DELLA with our draws, and in distribution.
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mergekit.sparsify import RescaleNorm, SparsificationMethod, sparsify

from harness.errors import BadInput
from harness.streaming.checking import check
from harness.streaming.definitions import combine
from harness.streaming.rules import RULES
from harness.streaming.sparse_sums import ELECTING, sparse_task_vector
from tests.examples import examples
from tests.streaming.steps import mergekit, models, settled, step_of

ULP = 2**-23
SHAPES = st.sampled_from([(), (1,), (7,), (40,), (4, 6), (5, 1), (3, 5, 2), (2, 3, 2, 2)])
SEEDS = st.integers(0, 2**32 - 1)
KINDS = st.sampled_from(["random", "grid"])
WEIGHT = st.sampled_from([0.0, 0.25, 0.5, 1.0, -0.5, 1.75])
DENSITY = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.99, 1.0, 1.5])
T = st.sampled_from([0.0, 0.1, 0.5, 1.0, -0.2, 1.3])
TASK_VECTORS = [name for name, rule in RULES.items() if any(p.name == "lambda" for p in rule.parameters)]
EXACT = ["linear", "passthrough", "nearswap", "arcee_fusion"]
BY_ANGLES = ["slerp", "nuslerp", "model_stock", "karcher"]


def assert_equal(found, expected, message=""):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected), f"{message}: {found} is not {expected}"


def assert_near(found, expected, tensors, ulps):
    """To so many roundings of the largest number that takes part."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    largest = max(float(tensor.abs().max()) for tensor in [*tensors, expected])
    ulp = torch.finfo(found.dtype).eps
    assert float((found - expected).abs().max()) <= ulps * ulp * largest


# Rules on weights.


@examples(60)
@given(SEEDS, SHAPES, KINDS, st.lists(WEIGHT, min_size=1, max_size=5), st.booleans())
def test_linear_is_mergekits_bit_for_bit(seed, shape, kind, weights, normalize):
    normalize &= sum(weights) != 0
    step = step_of("linear", len(weights), shape, weight=weights, normalize=normalize)
    tensors = models(len(weights), shape, seed, kind)
    assert_equal(combine(step, tensors), mergekit(step, tensors))


@examples(30)
@given(SEEDS, SHAPES, st.sampled_from([None, 0.0, 0.3, -2.0]))
def test_passthrough_is_mergekits_bit_for_bit(seed, shape, scale):
    step, tensors = step_of("passthrough", 1, shape, scale=scale), models(1, shape, seed)
    assert_equal(combine(step, tensors), mergekit(step, tensors))


@examples(60)
@given(SEEDS, SHAPES, KINDS, st.sampled_from([0.0, 1e-4, 0.01, 0.1, 5.0, -1.0]), st.sampled_from([0, 1]))
def test_nearswap_is_mergekits_bit_for_bit(seed, shape, kind, t, base):
    step, tensors = step_of("nearswap", 2, shape, base=base, t=t), models(2, shape, seed, kind)
    assert_equal(combine(step, tensors), mergekit(step, tensors))


@examples(60)
@given(SEEDS, SHAPES, KINDS, st.sampled_from([0, 1]))
def test_arcee_fusion_is_mergekits_bit_for_bit(seed, shape, kind, base):
    step, tensors = step_of("arcee_fusion", 2, shape, base=base), models(2, shape, seed, kind)
    assert_equal(combine(step, tensors), mergekit(step, tensors))


def test_the_quartiles_of_arcee_fusion_are_exact_where_mergekit_samples():
    shape = (1100, 1000)
    step, tensors = step_of("arcee_fusion", 2, shape), models(2, shape)
    found = [combine(step, tensors) for _ in range(2)]
    assert_equal(*found)
    kept, estimated = (float((t != tensors[0]).float().mean()) for t in (found[0], mergekit(step, tensors)))
    assert kept == pytest.approx(estimated, abs=3e-3)


# Rules by angles, whose parity in float64 is in test_angles.


@examples(60)
@given(SEEDS, SHAPES, T, st.sampled_from([0, 1]))
def test_slerp_is_mergekits_to_four_ulp(seed, shape, t, base):
    step, tensors = step_of("slerp", 2, shape, base=base, t=t), models(2, shape, seed)
    assert_near(combine(step, tensors), mergekit(step, tensors), tensors, 4)


@examples(60)
@given(SEEDS, SHAPES, st.sampled_from([(0.5, 0.5), (0.2, 0.8), (1.0, 0.0), (0.3, -0.3)]), st.booleans(), st.booleans())
def test_nuslerp_between_models_is_mergekits_to_four_ulp(seed, shape, weights, flatten, row_wise):
    given_ = {"nuslerp_flatten": flatten, "nuslerp_row_wise": row_wise}
    step = step_of("nuslerp", 2, shape, base=None, weight=weights, **given_)
    tensors = [tensor.abs() + 0.1 for tensor in models(2, shape, seed)]  # no rows that are nearly opposite
    assert_near(combine(step, tensors), mergekit(step, tensors), tensors, 4)


@examples(60)
@given(SEEDS, SHAPES, st.integers(0, 2), st.booleans(), st.booleans())
def test_nuslerp_between_task_vectors_is_mergekits_to_eight_ulp(seed, shape, base, flatten, row_wise):
    given_ = {"nuslerp_flatten": flatten, "nuslerp_row_wise": row_wise}
    step = step_of("nuslerp", 3, shape, base=base, weight=[0.3, 0.5, 0.9], **given_)
    tensors = models(3, shape, seed)
    tensors = [tensor if i == base else tensors[base] + (tensor - tensors[base]).abs() for i, tensor in enumerate(tensors)]
    assert_near(combine(step, tensors), mergekit(step, tensors), tensors, 8)


@examples(60)
@given(SEEDS, SHAPES, st.integers(2, 4), st.integers(0, 2), st.booleans())
def test_model_stock_is_mergekits_to_sixteen_ulp(seed, shape, tuned, base, filter_wise):
    step, tensors = step_of("model_stock", tuned + 1, shape, base=base, filter_wise=filter_wise), models(tuned + 1, shape, seed)
    change = tensors[-1].abs().clamp(max=0.1)  # that they have in common, so that no row is near the singularity
    tensors = [tensor if i == base else tensors[base] + 0.1 * tensor.abs() + change for i, tensor in enumerate(tensors)]
    assert_near(combine(step, tensors), mergekit(step, tensors), tensors, 16)


@examples(60)
@given(SEEDS, SHAPES, st.integers(1, 5))
def test_the_karcher_mean_is_mergekits_to_its_tolerance(seed, shape, sources):
    """mergekit stops where float32 has no smaller steps; ours are in float64."""
    step, tensors = step_of("karcher", sources, shape), [t.abs() + 0.1 for t in models(sources, shape, seed)]
    assert_near(combine(step, tensors), mergekit(step, tensors), tensors, 32)


# Rules that add sparse task vectors.

METHODS = {
    "ties": SparsificationMethod.magnitude,
    "dare_linear": SparsificationMethod.random,
    "breadcrumbs": SparsificationMethod.magnitude_outliers,
    "della": SparsificationMethod.della_magprune,
}


@st.composite
def sparse_steps(draw, rules=TASK_VECTORS, most=3, **given_):
    """A step with a base and fine-tunes, and its tensors; not what mergekit stumbles over."""
    rule, shape = draw(st.sampled_from(rules)), draw(SHAPES)
    count, seed = draw(st.integers(1, most)) + 1, draw(SEEDS)
    if rule.startswith("della"):
        given_["density"] = [draw(st.sampled_from([0.0, 0.3, 0.6, 1.0])) for _ in range(count)]
        given_["epsilon"] = draw(st.sampled_from([0.0, 0.05, 0.25]))
        shape = shape if len(shape) > 1 and shape[1] > 1 else (7,)  # mergekit divides 0 by 0 in rows of one
    elif rule != "task_arithmetic":
        given_["density"] = [draw(DENSITY) for _ in range(count)]
    if rule.startswith("breadcrumbs"):
        given_["gamma"] = draw(st.sampled_from([0.0, 0.01, 0.2, 0.9]))
    given_ = {
        "weight": [draw(WEIGHT) for _ in range(count)],
        "normalize": draw(st.booleans()),
        "lambda_": draw(st.sampled_from([1.0, 0.5, 0.0, -1.0])),
        "rescale": draw(st.booleans()),
        **given_,
    }
    step = step_of(rule, count, shape, base=draw(st.integers(0, count - 1)), seed=seed % 1000, **given_)
    return step, models(count, shape, seed, draw(KINDS))


def sparse_by_mergekit(step, source, vector):
    """One task vector as mergekit makes it sparse, with our draws."""
    only = {name: tuple(v if i == source else None for i, v in enumerate(vs)) for name, vs in step.each.items()}
    more = {name: values[source] for name, values in only.items() if name in ("density", "gamma", "epsilon")}
    norm = RescaleNorm.l1 if step.shared["rescale"] else None
    with settled(replace(step, each=only)):
        return sparsify(vector, method=METHODS[step.rule], rescale_norm=norm, **more)


@examples(200)
@given(sparse_steps(rules=list(METHODS), rescale=False))
def test_sparse_task_vectors_are_mergekits_bit_for_bit(case):
    step, tensors = case
    for i, tensor in enumerate(tensors):
        if i != step.base:
            vector = tensor - tensors[step.base]
            found = sparse_task_vector(step, i, tensor, tensors[step.base])
            assert_equal(found, sparse_by_mergekit(step, i, vector), f"{step.rule} {step.each}")


@examples(120)
@given(sparse_steps(rules=list(METHODS), rescale=True))
def test_rescaled_task_vectors_are_mergekits_to_four_ulp(case):
    step, tensors = case
    for i, tensor in enumerate(tensors):
        if i != step.base:
            vector = tensor - tensors[step.base]
            found = sparse_task_vector(step, i, tensor, tensors[step.base])
            assert_near(found, sparse_by_mergekit(step, i, vector), [vector], 4)


def draws_in_signs(step, tensors):
    """Where the sum of the weighted task vectors, and so the elected sign, is within the rounding of float32 of 0."""
    vectors = [
        step.each["weight"][i] * sparse_task_vector(step, i, tensor, tensors[step.base]).double()
        for i, tensor in enumerate(tensors)
        if i != step.base
    ]
    return sum(vectors).abs() <= 8 * ULP * sum(vector.abs() for vector in vectors)


@examples(250)
@given(sparse_steps(rescale=False))
def test_sums_of_sparse_task_vectors_are_mergekits_bit_for_bit(case):
    step, tensors = case
    found, expected = combine(step, tensors), mergekit(step, tensors)
    drawn = draws_in_signs(step, tensors)
    exact = (found == expected) | drawn if step.rule in ELECTING and len(tensors) > 3 else found == expected
    assert bool(exact.all()), f"{step.rule} {step.shared} {step.each}: {found} is not {expected}"


@examples(120)
@given(sparse_steps(most=6, normalize=False, weight=0.25))
def test_sums_of_many_and_rescaled_task_vectors_are_mergekits_to_eight_ulp(case):
    step, tensors = case
    drawn = draws_in_signs(step, tensors)
    found, expected = combine(step, tensors), mergekit(step, tensors)
    if step.rule in ELECTING:
        found, expected = torch.where(drawn, 0.0, found), torch.where(drawn, 0.0, expected)
    assert_near(found, expected, tensors, 8)


@examples(60)
@given(SEEDS, SHAPES, KINDS, st.integers(1, 4), st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.booleans())
def test_sce_is_mergekits_to_four_ulp(seed, shape, kind, tuned, share, int8_mask):
    step = step_of("sce", tuned + 1, shape, select_topk=share, int8_mask=int8_mask)
    tensors = models(tuned + 1, shape, seed, kind)
    vectors = [tensor - tensors[0] for tensor in tensors[1:]]
    drawn = sum(vectors).abs() <= 8 * ULP * sum(vector.abs() for vector in vectors)
    found, expected = combine(step, tensors), mergekit(step, tensors)
    if kind == "random":
        found, expected = torch.where(drawn, 0.0, found), torch.where(drawn, 0.0, expected)
    assert_near(found, expected, tensors, 4)
