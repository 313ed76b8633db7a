"""Weight matching against brute force, on shuffled networks that it must recover, and on ones trained apart."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.checks.pools import CNN_BN, MLP, split
from harness.evaluate.barrier import barrier, interpolate
from harness.merging.alignment import align, align_to_mean, assignment, best_order, descend
from harness.merging.permutations import Axis, Units, interchangeable, reordered
from harness.models.architectures import build
from harness.models.training import Schedule, train
from harness.models.weights import without_ties
from harness.types import Architecture
from tests.examples import examples
from tests.merging.test_permutations import MODELS, Residual, distinct, hub_model, shuffled

WIDE = Architecture("small_cnn", (("classes", 3), ("hidden", 24), ("side", 4), ("width", 8)))
WIDE_BN = Architecture("small_cnn_bn", WIDE.options)
WIDE_MLP = Architecture("mlp", (("classes", 3), ("hidden", 32), ("side", 4)))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_weights(module, seed):
    """Gaussian weights under the module's names."""
    drawn = generator(seed)
    return {name: torch.randn(tensor.shape, generator=drawn) for name, tensor in without_ties(module).items()}


def inner_product(first, second, names):
    return sum(float((first[n].double().numpy() * second[n].double().numpy()).sum()) for n in names)


def learned(layers):
    return sorted({axis.tensor for units in layers for axis in units.axes if axis.learned})


# One layer.


@examples(60)
@given(st.integers(1, 5), st.integers(0, 2**31), st.booleans())
def test_the_order_of_one_layer_is_the_best_of_all_orders(size, seed, ties):
    """Brute force over all n! orders, each scored by what it makes of the weights."""
    drawn = generator(seed)

    def values(*shape):
        return torch.randint(-1, 2, shape, generator=drawn).float() if ties else torch.randn(shape, generator=drawn)

    reference, model = (
        {"in": values(size, 2), "bias": values(size), "out": values(3, 2 * size), "mean": values(size)}
        for _ in range(2)
    )
    units = Units("in", size, (Axis("in", 0), Axis("bias", 0), Axis("out", 1), Axis("mean", 0, learned=False)))

    def value(order):
        return inner_product(reference, reordered(model, units, torch.tensor(order)), ("in", "bias", "out"))

    best = max(value(order) for order in itertools.permutations(range(size)))
    assert value(best_order(reference, model, units).tolist()) == pytest.approx(best, abs=1e-6)


@examples(60)
@given(st.sampled_from([(1, 3), (2, 2), (3, 1), (2, 3), (3, 2), (4, 1)]), st.integers(0, 2**31))
def test_groups_are_kept_together_and_the_order_is_the_best_of_those(shape, seed):
    """Brute force over all orders of all units, of which those that break a group up are left out."""
    groups, size = shape
    drawn = generator(seed)
    of_units = torch.randn(groups * size, groups * size, generator=drawn, dtype=torch.float64)
    of_groups = 2 * torch.randn(groups, groups, generator=drawn, dtype=torch.float64)
    best = -math.inf
    for order in itertools.permutations(range(groups * size)):
        owners = np.array(order).reshape(groups, size) // size
        if (owners == owners[:, :1]).all():
            value = sum(float(of_units[i, j]) for i, j in enumerate(order))
            best = max(best, value + sum(float(of_groups[g, owner]) for g, owner in enumerate(owners[:, 0])))
    found = assignment(of_units, of_groups)
    assert sorted(found.tolist()) == list(range(groups * size))
    owners = found.view(groups, size) // size
    assert (owners == owners[:, :1]).all()
    value = of_units[torch.arange(groups * size), found].sum() + of_groups[torch.arange(groups), owners[:, 0]].sum()
    assert float(value) == pytest.approx(best, abs=1e-9)


# A shuffled model.


@pytest.mark.parametrize("name", [name for name in MODELS if name != "residual"])
@pytest.mark.parametrize("seed", range(3))
def test_a_shuffled_model_is_recovered_exactly(name, seed):
    """Bit for bit, and by the inverse of what had been done to it."""
    module = distinct(MODELS[name]())
    weights, layers = without_ties(module), interchangeable(module)
    moved, orders = shuffled(weights, layers, seed)
    found = align(weights, moved, layers, generator(seed))
    assert all(torch.equal(found.weights[key], tensor) for key, tensor in weights.items())
    assert {key: order.tolist() for key, order in found.orders.items()} == {
        key: order.argsort().tolist() for key, order in orders.items()
    }
    assert found.similarity[-1] == pytest.approx(inner_product(weights, weights, learned(layers)))


def test_tiny_shuffled_networks_are_nearly_always_recovered():
    """It is a search: where two or four units are all a layer has, it can end beside the best."""
    recovered = 0
    for seed in range(40):
        torch.manual_seed(seed)
        module = build(CNN_BN)
        weights, layers = without_ties(module), interchangeable(module)
        moved, _ = shuffled(weights, layers, seed)
        found = align(weights, moved, layers, generator(seed))
        recovered += all(torch.equal(found.weights[key], tensor) for key, tensor in weights.items())
    assert recovered >= 35


def test_what_is_in_order_already_is_left_as_it_is():
    module = distinct(build(WIDE_BN))
    weights, layers = without_ties(module), interchangeable(module)
    found = align(weights, weights, layers, generator())
    assert not found.moved
    assert all(torch.equal(found.weights[key], tensor) for key, tensor in weights.items())
    assert len(found.similarity) == 2  # one sweep, which gained nothing


def test_equal_units_stay_in_place():
    """Of orders that are equally good none is a gain, so the search ends."""
    module = build(WIDE_MLP)
    layers = interchangeable(module)
    weights = {name: torch.ones(tensor.shape) / 3 for name, tensor in without_ties(module).items()}
    found = descend(weights, weights, layers, generator())
    assert not found.moved
    assert len(found.similarity) == 2


def test_aligning_changes_neither_model():
    module = build(WIDE)
    layers = interchangeable(module)
    first, second = random_weights(module, 0), random_weights(module, 1)
    copies = [{name: tensor.clone() for name, tensor in model.items()} for model in (first, second)]
    align(first, second, layers, generator())
    align_to_mean([first, second], layers, generator())
    for model, copy in zip((first, second), copies, strict=True):
        assert all(torch.equal(model[name], tensor) for name, tensor in copy.items())


def test_the_same_generator_gives_the_same_orders():
    module = build(WIDE)
    layers = interchangeable(module)
    models = [random_weights(module, seed) for seed in (0, 1)]
    first, again = (align(*models, layers, generator(7)) for _ in range(2))
    assert first.similarity == again.similarity
    assert all(torch.equal(first.orders[name], order) for name, order in again.orders.items())


# The objective.

RANDOM = {
    "mlp": lambda: build(MLP),
    "small_cnn_bn": lambda: build(CNN_BN),
    "residual": Residual,
    "qwen2": lambda: hub_model("qwen2"),
}


@examples(40)
@given(st.sampled_from(sorted(RANDOM)), st.integers(0, 2**31))
def test_the_similarity_never_falls_and_is_that_of_the_weights(name, seed):
    """Also where a weight both reads and writes the same units, of which the assignment says too much."""
    module = RANDOM[name]()
    layers = interchangeable(module)
    first, second = random_weights(module, seed), random_weights(module, seed + 1)
    found = descend(first, second, layers, generator(seed))
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(found.similarity))
    names = learned(layers)
    assert found.similarity[0] == pytest.approx(inner_product(first, second, names), abs=1e-6)
    assert found.similarity[-1] == pytest.approx(inner_product(first, found.weights, names), abs=1e-6)
    rebuilt = second
    for units in layers:
        rebuilt = reordered(rebuilt, units, found.orders[units.name])
    assert all(torch.equal(found.weights[key], tensor) for key, tensor in rebuilt.items())
    again = descend(first, found.weights, layers, generator(seed + 2))
    assert again.similarity[-1] >= found.similarity[-1] - 1e-9


def test_more_starts_are_never_worse():
    module = RANDOM["mlp"]()
    layers = interchangeable(module)
    reached = []
    for starts in (1, 2, 4, 8):
        found = align(random_weights(module, 0), random_weights(module, 1), layers, generator(3), starts)
        reached.append(found.similarity[-1])
    assert reached == sorted(reached)


@examples(15)
@given(st.integers(2, 4), st.integers(0, 2**31))
def test_aligning_to_the_mean_never_lowers_the_sum_over_all_pairs(count, seed):
    module = RANDOM["mlp"]()
    layers = interchangeable(module)
    models = [random_weights(module, seed + k) for k in range(count)]
    aligned = align_to_mean(models, layers, generator(seed))

    def pairs(of):
        return sum(inner_product(a, b, learned(layers)) for a, b in itertools.combinations(of, 2))

    assert pairs(aligned) >= pairs(models) - 1e-9
    again = align_to_mean(aligned, layers, generator(seed + 1))
    assert pairs(again) >= pairs(aligned) - 1e-9


def test_aligning_shuffled_copies_to_their_mean_makes_them_one_again():
    module = distinct(build(WIDE))
    weights, layers = without_ties(module), interchangeable(module)
    copies = [shuffled(weights, layers, seed)[0] for seed in range(3)]
    first, *others = align_to_mean(copies, layers, generator())
    for other in others:
        assert all(torch.equal(other[name], tensor) for name, tensor in first.items())


# Trained apart.


def trained_apart(architecture, seed):
    torch.manual_seed(seed)
    module = build(architecture)
    train(module, split("train", 400), Schedule(20, 0.01, batch_size=40), seed=seed)
    return without_ties(module)


@pytest.mark.parametrize("architecture", [WIDE, WIDE_BN, WIDE_MLP], ids=lambda a: a.name)
@pytest.mark.parametrize("seed", [0, 2, 4])
def test_between_networks_that_were_trained_apart_the_barrier_falls(architecture, seed):
    first, second = (trained_apart(architecture, k) for k in (seed, seed + 1))
    aligned = align(first, second, interchangeable(build(architecture)), generator(seed))
    assert aligned.similarity[-1] > aligned.similarity[0]
    before, after = (
        interpolate(architecture, first, other, split("train", 400).inputs, split("heldout", 400))
        for other in (second, aligned.weights)
    )
    assert barrier(before) > 0.1
    assert barrier(after) < barrier(before) / 2
    for end in (0, -1):  # the same two functions
        assert before[end]["nll"] == pytest.approx(after[end]["nll"], abs=1e-5)
