"""Sparse task vectors and their sums against mergekit's, and the laws of the random ones.

With mergekit's sorts made stable and its draws made ours both are bit-equal, but for ``rescale``, whose sums of
magnitudes are in float64 here, and the sign that three or more elect where their sum is within rounding of 0.
"""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mergekit.sparsify import RescaleNorm, SparsificationMethod, sparsify

from harness.merging.sparsify import magprune_probabilities
from harness.streaming.definitions import combine
from harness.streaming.rules import RULES
from harness.streaming.sparse_sums import ELECTING, sparse_task_vector
from tests.examples import examples
from tests.streaming.steps import (
    KINDS,
    SEEDS,
    SHAPES,
    WEIGHT,
    assert_equal,
    assert_near,
    mergekit,
    models,
    settled,
    step_of,
)

ULP = 2**-23
DENSITY = st.sampled_from([-0.5, 0.0, 0.1, 0.3, 0.5, 0.99, 1.0, 1.5])
TASK_VECTORS = [name for name, rule in RULES.items() if any(p.name == "lambda" for p in rule.parameters)]
RANDOM = [name for name, rule in RULES.items() if rule.random]

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
        given_["density"] = [draw(st.sampled_from([-0.5, 0.0, 0.3, 0.6, 1.0])) for _ in range(count)]
        given_["epsilon"] = draw(st.sampled_from([0.0, 0.05, 0.25]))
        shape = shape if len(shape) > 1 and shape[1] > 1 else (7,)  # mergekit divides 0 by 0 in rows of one
    elif rule != "task_arithmetic":
        given_["density"] = [max(0, draw(DENSITY)) if rule in RANDOM else draw(DENSITY) for _ in range(count)]
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
    exact = (found == expected) | drawn if step.rule in ELECTING else found == expected
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


# Laws.


@pytest.mark.parametrize("rule", TASK_VECTORS)
def test_lambda_zero_gives_the_base(rule):
    tensors = models(3, (4, 6))
    assert_equal(combine(step_of(rule, 3, weight=[0.0, 0.7, -0.2], density=0.5, lambda_=0.0), tensors), tensors[0])


@pytest.mark.parametrize("rule", TASK_VECTORS)
def test_without_fine_tunes_there_is_the_base(rule):
    base = models(1, (4, 6))
    assert_equal(combine(step_of(rule, 1, weight=1.0), base), base[0])


@pytest.mark.parametrize("rule", TASK_VECTORS)
@pytest.mark.parametrize("normalize", [True, False])
def test_density_one_is_no_sparsification(rule, normalize):
    tensors = models(4, (4, 6))
    given_ = {"weight": 0.7, "density": 1.0, "normalize": normalize}
    plain = "ties" if rule in ELECTING else "task_arithmetic"
    found = combine(step_of(rule, 4, rescale=True, **given_), tensors)
    assert_equal(found, combine(step_of(plain, 4, rescale=False, **given_), tensors))


def vectors_of(step, tensors):
    return {
        step.draws[i]: sparse_task_vector(step, i, tensor, tensors[step.base])
        for i, tensor in enumerate(tensors)
        if i != step.base
    }


@pytest.mark.parametrize("rule", RANDOM)
def test_a_mask_belongs_to_its_model_whatever_the_others_and_their_order(rule):
    tensors = models(4, (4, 6))
    names = ["base", "a", "b", "c"]
    given_ = {"weight": 0.5, "density": 0.5, "draws": names}
    step = step_of(rule, 4, **given_)
    alone = vectors_of(step, tensors)
    torch.manual_seed(7)  # which has no part in it
    for order in ([0, 3, 2, 1], [2, 0, 1, 3], [0, 2]):
        others = step_of(rule, len(order), base=order.index(0), **given_ | {"draws": [names[i] for i in order]})
        for name, vector in vectors_of(others, [tensors[i] for i in order]).items():
            assert_equal(vector, alone[name], name)
    turned = step_of(rule, 4, **given_ | {"draws": [names[i] for i in (0, 3, 2, 1)]})
    assert_near(combine(turned, [tensors[i] for i in (0, 3, 2, 1)]), combine(step, tensors), tensors, 1)


@pytest.mark.parametrize("rule", RANDOM)
def test_another_seed_model_or_tensor_has_another_mask(rule):
    tensors = models(2, (40, 5))
    step = step_of(rule, 2, (40, 5), weight=1.0, density=0.5)
    others = [step, replace(step, seed=1), replace(step, name="v"), replace(step, draws=("model 0", "other"))]
    masks = {tuple(sparse_task_vector(other, 1, tensors[1], tensors[0]).flatten().ne(0).tolist()) for other in others}
    assert len(masks) == 4


def test_an_entry_alone_in_its_row_is_kept_with_the_density():
    """mergekit divides 0 by 0 there."""
    shape = (4000, 1)
    tensors = models(2, shape)
    step = step_of("della_linear", 2, shape, weight=1.0, density=0.3, rescale=False)
    kept = float(sparse_task_vector(step, 1, tensors[1], tensors[0]).ne(0).float().mean())
    assert kept == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 4000))


@pytest.mark.parametrize("rule", ["dare_linear", "della"])
def test_entries_are_kept_with_mergekits_probabilities(rule):
    """Our share of many draws and mergekit's both lie within five standard errors of the probability."""
    times, (base, tuned) = 1500, models(2, (2, 6))
    step = step_of(rule, 2, (2, 6), weight=1.0, density=0.4, rescale=False)
    torch.manual_seed(0)
    more = {"epsilon": 0.15} if rule == "della" else {}
    pairs = [
        (
            sparse_task_vector(replace(step, seed=seed), 1, tuned, base).ne(0),
            sparsify(tuned - base, 0.4, METHODS[rule], **more).ne(0),
        )
        for seed in range(times)
    ]
    chances = torch.full((2, 6), 0.4)
    if rule == "della":
        chances = magprune_probabilities(tuned - base, 0.4, 0.15, "second_axis")
    error = (chances * (1 - chances) / times).sqrt()
    for kept in zip(*pairs, strict=True):
        assert bool(((torch.stack(kept).float().mean(dim=0) - chances).abs() < 5 * error).all())


@pytest.mark.parametrize("rule", RANDOM)
def test_the_mean_over_seeds_is_mergekits(rule):
    times, tensors = 600, models(3, (2, 6))
    step = step_of(rule, 3, (2, 6), weight=[0.0, 0.5, 1.5], density=[0.0, 0.4, 0.6])
    ours = torch.stack([combine(replace(step, seed=seed), tensors) for seed in range(times)])
    torch.manual_seed(0)
    theirs = torch.stack([mergekit(step, tensors, settle=False) for _ in range(times)])
    error = ((ours.var(dim=0) + theirs.var(dim=0)) / times).sqrt()
    assert bool(((ours.mean(dim=0) - theirs.mean(dim=0)).abs() <= 5 * error + 1e-6).all())
