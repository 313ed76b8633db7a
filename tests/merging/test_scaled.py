"""Models along a task vector, one module for all: the same as built one by one."""

import pytest
import torch

from harness.checks.pools import CNN, CNN_BN, MLP, fine_tunes, split
from harness.merging.flat import FlatModule
from harness.merging.scaled import ScaledTaskVector
from harness.merging.task_vectors import TaskVectors, apply_task_vector, merge_task_vectors, trimming
from harness.merging.ties import STOCKPOT, SUM
from harness.models.architectures import build
from harness.models.weights import load_module
from harness.systems.systems import batches_of, merged_model
from harness.types import Architecture

LLAMA = Architecture("tiny_llama", (("heads", 2), ("hidden", 16), ("layers", 1), ("vocab", 11)))
TRAIN = split("train").inputs


def ties_vector(base, tuned):
    vectors = TaskVectors(base, tuned)
    return merge_task_vectors(vectors, trimming(vectors, 0.5, STOCKPOT), STOCKPOT).tensors


def of(pool):
    """The weights that a task vector is made of."""
    return [m.weights for m in (pool.base, *pool.members)]


def candidates(architecture):
    """A pool, its TIES vector, and the models along it."""
    pool = fine_tunes(3, architecture)
    base, *tuned = of(pool)
    vector = ties_vector(base, tuned)
    return pool, vector, ScaledTaskVector(load_module(pool.base), pool.base.weights, vector, list(batches_of(TRAIN)))


def assert_same(module, expected):
    found, wanted = module.state_dict(), expected.state_dict()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)
        assert found[name].stride() == tensor.stride()  # channels-last stays so
    batch = split("test").inputs
    with torch.inference_mode():
        torch.testing.assert_close(module(batch), expected(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", [CNN, CNN_BN, MLP], ids=lambda a: a.name)
def test_every_scale_is_the_model_built_for_it_in_any_order(architecture):
    """With BatchNorm the statistics of one candidate leave no trace in the next."""
    pool, vector, models = candidates(architecture)
    for scale in (1.5, 0.0, -0.5, 1.5):
        weights = apply_task_vector(pool.base.weights, vector, scale)
        assert_same(models.at(scale), merged_model(architecture, weights, of(pool), TRAIN))


def test_task_arithmetic_goes_along_a_vector_too():
    pool = fine_tunes(3)
    weights = [m.weights for m in pool.members]
    vector = merge_task_vectors(TaskVectors(pool.base.weights, weights), lambda t, *_: t, SUM, [1.0, -0.5, 2.0]).tensors
    models = ScaledTaskVector(load_module(pool.base), pool.base.weights, vector, [])
    found = models.at(0.3).state_dict()
    for name, start in pool.base.weights.items():
        expected = start + 0.3 * sum(c * (w[name] - start) for c, w in zip([1.0, -0.5, 2.0], weights, strict=True))
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_those_of_apply_task_vector_to_the_bit(dtype):
    """In half precision too, where each sum is rounded once: what is scored is what will be saved."""
    pool = fine_tunes(3, MLP)
    base, *tuned = ({n: t.to(dtype) for n, t in m.weights.items()} for m in (pool.base, *pool.members))
    vector = ties_vector(base, tuned)
    models = ScaledTaskVector(load_module(pool.base), base, vector, [])
    for scale in (0.3, 1.7):
        expected = apply_task_vector(base, vector, scale)
        for module in (models.at(scale), models.at_each(dict.fromkeys(models.layers, scale))):
            assert all(torch.equal(t, expected[n].float()) for n, t in module.state_dict().items())


@pytest.mark.parametrize("architecture", [CNN, CNN_BN, MLP], ids=lambda a: a.name)
def test_each_layer_takes_its_own_scale(architecture):
    pool, vector, models = candidates(architecture)
    scales = {layer: 0.25 * (i + 1) for i, layer in enumerate(models.layers)}
    each = {n: scales[n.rpartition(".")[0]] * tau for n, tau in vector.items()}
    expected = merged_model(architecture, apply_task_vector(pool.base.weights, each, 1.0), of(pool), TRAIN)
    assert_same(models.at_each(scales), expected)
    assert_same(models.at_each(dict.fromkeys(models.layers, 0.7)), load_copy(models.at(0.7), architecture))


def load_copy(module, architecture):
    copy = build(architecture).eval()
    copy.load_state_dict(module.state_dict())
    return copy


def test_scale_0_is_the_base_bit_for_bit_and_so_is_a_layer_that_is_not_named():
    pool, _, models = candidates(CNN)
    for module in (models.at(0.0), models.at_each({})):
        assert all(torch.equal(module.state_dict()[n], t) for n, t in pool.base.weights.items())


def test_tensors_without_a_task_vector_stay_the_bases():
    pool, vector, _ = candidates(CNN)
    models = ScaledTaskVector(load_module(pool.base), pool.base.weights, {"head.2.bias": vector["head.2.bias"]}, [])
    assert models.layers == ["head.2"]
    moved = models.at(3.0).state_dict()
    assert [n for n, t in pool.base.weights.items() if not torch.equal(moved[n], t)] == ["head.2.bias"]


def test_no_candidate_is_a_new_module_and_the_base_is_unchanged():
    pool, _, models = candidates(CNN)
    before = {n: t.clone() for n, t in pool.base.weights.items()}
    assert models.at(0.5) is models.at(1.0) is models.at_each({})
    assert all(torch.equal(pool.base.weights[n], t) for n, t in before.items())


# The flat vector.


def test_the_vector_is_what_the_module_computes_with():
    module = build(MLP).eval()
    flat = FlatModule(module)
    states = [build(MLP).state_dict() for _ in range(2)]
    for state in states:
        flat.vector.copy_(flat.flatten(state))
        other = build(MLP).eval()
        other.load_state_dict(state)
        assert torch.equal(module(TRAIN), other(TRAIN))
    assert len(flat.vector) == sum(p.numel() for p in module.parameters())


def test_tied_weights_have_one_place():
    module = build(LLAMA)
    flat = FlatModule(module)
    assert "lm_head.weight" not in flat.places
    state = build(LLAMA).state_dict()
    flat.vector.copy_(flat.flatten(state))
    assert torch.equal(module.state_dict()["lm_head.weight"], state["model.embed_tokens.weight"])
