"""What each rule computes against mergekit's own method on the same tensors, and the laws of all rules.

Bit-equal where the operations are the same; to a few roundings of the largest number where sums are in float64 here.
The rules that make task vectors sparse are in ``test_sparse_sums``, angles in float64 in ``test_angles``.
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.streaming.definitions import combine
from harness.streaming.rules import RULES
from tests.examples import examples
from tests.streaming.steps import KINDS, SEEDS, SHAPES, WEIGHT, assert_equal, assert_near, mergekit, models, step_of

ULP = 2**-23
T = st.sampled_from([0.0, 0.1, 0.5, 1.0, -0.2, 1.3])


# Rules on weights.


@examples(60)
@given(SEEDS, SHAPES, KINDS, st.lists(st.one_of(WEIGHT, st.floats(0.1, 2)), min_size=1, max_size=5), st.booleans())
def test_linear_is_mergekits_bit_for_bit(seed, shape, kind, weights, normalize):
    normalize &= abs(sum(weights)) > 0.01
    step = step_of("linear", len(weights), shape, weight=weights, normalize=normalize)
    tensors = models(len(weights), shape, seed, kind)
    assert_equal(combine(step, tensors), mergekit(step, tensors))


@examples(30)
@given(SEEDS, SHAPES, st.sampled_from([None, 0.0, 0.3, -2.0]))
def test_passthrough_is_mergekits_bit_for_bit(seed, shape, scale):
    step, tensors = step_of("passthrough", 1, shape, scale=scale), models(1, shape, seed)
    assert_equal(combine(step, tensors), mergekit(step, tensors))


@examples(60)
@given(SEEDS, SHAPES, KINDS, st.sampled_from([0.0, 3e-7, 1e-4, 0.01, 0.1, 5.0, -1.0]), st.sampled_from([0, 1]))
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
    start, *changes = models(3, shape, seed)
    tensors = [start + (change - start).abs() for change in changes]  # no rows that are nearly opposite
    tensors.insert(base, start)
    assert_near(combine(step, tensors), mergekit(step, tensors), tensors, 8)


@examples(60)
@given(SEEDS, SHAPES, st.integers(2, 4), st.integers(0, 2), st.booleans())
def test_model_stock_is_mergekits_to_sixteen_ulp(seed, shape, tuned, base, filter_wise):
    step = step_of("model_stock", tuned + 1, shape, base=base, filter_wise=filter_wise)
    start, *changes = models(tuned + 1, shape, seed)
    tensors = [start + (change - start).abs() for change in changes]  # no rows that are near the singularity
    tensors.insert(base, start)
    assert_near(combine(step, tensors), mergekit(step, tensors), tensors, 16)


@examples(60)
@given(SEEDS, SHAPES, st.integers(1, 5))
def test_the_karcher_mean_is_mergekits_to_its_tolerance(seed, shape, sources):
    """mergekit stops where float32 has no smaller steps; ours are in float64."""
    step, tensors = step_of("karcher", sources, shape), [t.abs() + 0.1 for t in models(sources, shape, seed)]
    assert_near(combine(step, tensors), mergekit(step, tensors), tensors, 32)


@examples(60)
@given(SEEDS, SHAPES, KINDS, st.integers(1, 4), st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.sampled_from([1, 1e-4]))
def test_sce_is_mergekits_to_four_ulp(seed, shape, kind, tuned, share, less):
    step = step_of("sce", tuned + 1, shape, select_topk=share, int8_mask=less == 1)
    tensors = models(tuned + 1, shape, seed, kind)
    tensors[1] = tensors[0] + less * (tensors[1] - tensors[0])  # so little energy that its weight is next to nothing
    vectors = [tensor - tensors[0] for tensor in tensors[1:]]
    drawn = sum(vectors).abs() <= 8 * ULP * sum(vector.abs() for vector in vectors)
    found, expected = combine(step, tensors), mergekit(step, tensors)
    if kind != "grid" or less != 1:
        found, expected = torch.where(drawn, 0.0, found), torch.where(drawn, 0.0, expected)
    assert_near(found, expected, tensors, 4)


def test_how_many_elements_sce_selects_is_rounded_as_mergekit_rounds_it():
    step, tensors = step_of("sce", 3, (100,), select_topk=0.29), models(3, (100,))
    assert int((combine(step, tensors) != tensors[0]).sum()) == 29  # int(100 * 0.29) is 28
    assert_near(combine(step, tensors), mergekit(step, tensors), tensors, 4)


def test_where_all_energy_is_elsewhere_sce_hardly_moves():
    base = torch.zeros(3)
    tensors = [base, torch.tensor([1e-4, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])]
    step = step_of("sce", 3, (3,))
    assert combine(step, tensors).tolist() == pytest.approx([1e-4 * 1e-8 / 1e-6, 1.0, 0.0])  # the weight is 1e-8
    assert_near(combine(step, tensors), mergekit(step, tensors), tensors, 1)


# Laws of all rules.

GIVEN = {"weight": 1.0, "t": 0.3, "density": 0.5, "gamma": 0.1, "epsilon": 0.1, "select_topk": 0.5}


def usual(rule, shape=(4, 6), **more):
    """A step of any rule with as few sources as it may have, or three."""
    names = {parameter.name for parameter in RULES[rule].parameters}
    needed = {name: value for name, value in GIVEN.items() if name in names}
    return step_of(rule, RULES[rule].most or 3, shape, **{**needed, **more})


VARIANTS = [
    *map(usual, RULES),
    usual("nuslerp", nuslerp_flatten=False),
    usual("nuslerp", nuslerp_flatten=False, nuslerp_row_wise=True),
    usual("model_stock", filter_wise=True),
]
EACH = pytest.mark.parametrize("step", VARIANTS, ids=lambda step: step.rule)


@EACH
def test_copies_of_a_model_give_that_model(step):
    for seed in range(20):
        model = models(1, step.shape, seed)[0]
        assert_near(combine(step, [model] * len(step.sources)), model, [model], 2)


@EACH
def test_the_sources_are_only_read(step):
    tensors = models(len(step.sources), step.shape)
    before = [tensor.clone() for tensor in tensors]
    first = combine(step, tensors)
    assert_equal(combine(step, tensors), first)
    for tensor, old in zip(tensors, before, strict=True):
        assert_equal(tensor, old)


@EACH
def test_float64_stays_float64(step):
    tensors = models(len(step.sources), step.shape, dtype=torch.float64)
    found = combine(step, tensors)
    assert found.dtype == torch.float64
    if not RULES[step.rule].random:  # mergekit draws for float32 alone
        assert_near(found, mergekit(step, tensors), tensors, 1e3 if step.rule == "karcher" else 16)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
@pytest.mark.parametrize("rule", RULES)
def test_a_tensor_without_elements_stays_one(rule, shape):
    step = usual(rule, shape)
    assert combine(step, models(len(step.sources), shape)).shape == shape


@EACH
def test_where_the_base_stands_among_the_sources_does_not_matter(step):
    tensors = models(len(step.sources), step.shape)
    places = [*range(1, len(tensors)), 0]
    each = {name: tuple(values[i] for i in places) for name, values in step.each.items()}
    base = step.base if step.base is None else len(tensors) - 1
    moved = replace(step, base=base, each=each, draws=tuple(step.draws[i] for i in places))
    assert_near(combine(moved, [tensors[i] for i in places]), combine(step, tensors), tensors, 2)


@examples(30)
@given(SEEDS, SHAPES)
def test_at_its_ends_slerp_and_nuslerp_give_the_models(seed, shape):
    tensors = [tensor.abs() + 0.1 for tensor in models(2, shape, seed)]
    for t, end in enumerate(tensors):
        assert_equal(combine(step_of("slerp", 2, shape, t=float(t)), tensors), end)
        between = step_of("nuslerp", 2, shape, base=None, weight=[1.0 - t, float(t)])
        assert_near(combine(between, tensors), end, tensors, 1)


@examples(30)
@given(SEEDS, SHAPES)
def test_at_its_ends_nearswap_gives_the_models(seed, shape):
    tensors = models(2, shape, seed)
    assert_equal(combine(step_of("nearswap", 2, shape, t=0.0), tensors), tensors[0])
    assert_equal(combine(step_of("nearswap", 2, shape, t=1e6), tensors), tensors[1])
