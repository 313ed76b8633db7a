"""Alignment as a method: shuffled copies are one model again, and which member the others are aligned to."""

from functools import cache

import pytest
import torch

from harness.checks.pools import CNN as TINY
from harness.checks.pools import (
    MLP,
    build_method,
    independent,
    ingredients,
    member,
    mixed,
    on_test,
    plain_predict,
    split,
)
from harness.merging.permutations import interchangeable
from harness.models.architectures import build
from harness.models.training import Schedule, train
from harness.models.weights import module_with, without_ties
from harness.registry import METHODS
from harness.systems.parts import MemberPart
from harness.types import Architecture, NotApplicable, Pool, Split
from tests.merging.test_permutations import shuffled

CNN = Architecture("small_cnn", (("classes", 3), ("hidden", 16), ("side", 4), ("width", 8)))
CNN_BN = Architecture("small_cnn_bn", CNN.options)
TO = pytest.mark.parametrize("to", ["best", "mean"])


@cache
def skilled(architecture, seed):
    """Weights that know the three patterns well."""
    torch.manual_seed(seed)
    module = build(architecture)
    train(module, split("train", 400), Schedule(15, 0.01, batch_size=40), seed=seed)
    return without_ties(module)


def pool_of(*models, architecture=CNN):
    members = (member(f"m{k}", weights, architecture, start=f"start {k}") for k, weights in enumerate(models))
    return Pool("independent", "independent", tuple(members))


def heldout_nll(module):
    log_probs = torch.log_softmax(module(split("heldout").inputs), 1).double()
    return -float(log_probs.gather(1, split("heldout").labels.unsqueeze(1)).mean())


@TO
@pytest.mark.parametrize("architecture", [CNN, CNN_BN], ids=lambda a: a.name)
def test_the_average_of_shuffled_copies_is_the_model(architecture, to):
    """Their plain mean is another one, and bad."""
    weights = skilled(architecture, 0)
    layers = interchangeable(build(architecture))
    pool = pool_of(weights, *(shuffled(weights, layers, seed)[0] for seed in (1, 2)), architecture=architecture)
    found = build_method("align_average", pool, to=to)
    original = module_with(architecture, weights)
    if architecture is CNN:
        torch.testing.assert_close(on_test(found), torch.log_softmax(original(split("test").inputs), 1).detach())
    else:  # its statistics are measured anew, and so are those of one that was never shuffled
        copies = pool_of(weights, weights, architecture=architecture)
        torch.testing.assert_close(on_test(found), on_test(build_method("uniform_soup", copies)), atol=1e-5, rtol=1e-5)
    soup = on_test(build_method("uniform_soup", pool))
    assert (soup - on_test(found)).abs().max() > 0.5
    assert found.details["barrier"]["after"] == pytest.approx(0, abs=1e-6)
    assert found.details["barrier"]["before"] > 0.1


@TO
def test_of_members_trained_apart_it_beats_their_plain_mean(to):
    pool = pool_of(*(skilled(CNN, seed) for seed in range(4)))
    found = build_method("align_average", pool, to=to)
    assert found.details["barrier"]["after"] < found.details["barrier"]["before"] / 2
    with torch.no_grad():
        aligned, soup = (heldout_nll(c.module) for c in (found, build_method("uniform_soup", pool)))
    assert aligned < soup / 2


def test_the_reference_is_the_best_member_on_heldout_whatever_its_place():
    models = [skilled(CNN, seed) for seed in range(3)]
    with torch.no_grad():
        accuracy_and_loss = []
        for weights in models:
            logits = module_with(CNN, weights)(split("heldout").inputs)
            right = float((logits.argmax(1) == split("heldout").labels).double().mean())
            loss = float(torch.nn.functional.cross_entropy(logits, split("heldout").labels))
            accuracy_and_loss.append((-right, loss))
    ranked = sorted(range(3), key=accuracy_and_loss.__getitem__)
    for order in ((0, 1, 2), (2, 0, 1)):
        details = build_method("align_average", pool_of(*models).subset(order)).details
        assert details["reference"] == f"m{ranked[0]}"
        assert details["interpolation"]["between"] == [f"m{ranked[0]}", f"m{ranked[1]}"]


@TO
def test_the_ends_of_the_curves_are_the_same_functions(to):
    pool = pool_of(*(skilled(CNN_BN, seed) for seed in (0, 1)), architecture=CNN_BN)
    found = build_method("align_average", pool, to=to).details["interpolation"]
    before, after = found["before"], found["after"]
    for end in (0, -1):
        assert before[end]["nll"] == pytest.approx(after[end]["nll"], abs=1e-5)
        assert before[end]["accuracy"] == after[end]["accuracy"]


@TO
def test_one_member_is_itself(to):
    weights = skilled(CNN_BN, 0)
    found = build_method("align_average", pool_of(weights, architecture=CNN_BN), to=to)
    assert all(torch.equal(found.module.state_dict()[name], tensor) for name, tensor in weights.items())
    assert not found.details


def test_language_models_with_tied_weights_stay_tied_and_are_recovered():
    options = (("context", 12), ("heads", 4), ("hidden", 32), ("layers", 1), ("vocab", 30))
    architecture = Architecture("tiny_llama", options)
    torch.manual_seed(0)
    module = build(architecture)
    weights = {name: tensor.clone() for name, tensor in without_ties(module).items()}
    pool = pool_of(weights, shuffled(weights, interchangeable(module), 1)[0], architecture=architecture)
    windows = torch.randint(30, (6, 9), generator=torch.Generator().manual_seed(0))
    text = Split("text", windows, windows[:, 1:].flatten(), [str(k) for k in range(6)], "text", criterion="nll")
    method = METHODS.get("align_average")
    given = ingredients(pool, tuple(method.needs), train_=text, heldout_=text)
    found = method.apply(given, method.validate({}))
    state = found.module.state_dict()
    assert state["lm_head.weight"].data_ptr() == state["model.embed_tokens.weight"].data_ptr()
    kept = pool.members[int(found.details["reference"][1:])].weights  # whichever of the two rounding prefers
    assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())
    merged, original = (plain_predict(part, text) for part in (found.parts()[0], MemberPart(pool.members[0])))
    torch.testing.assert_close(merged, original, atol=1e-5, rtol=1e-5)


def test_what_cannot_be_aligned_says_why():
    with pytest.raises(NotApplicable, match="different architectures"):
        build_method("align_average", mixed())
    experts = Architecture("small_cnn", (*TINY.options, ("experts", 2)))
    models = [build(experts).state_dict() for _ in range(2)]
    with pytest.raises(NotApplicable, match=r"layer 'hidden' \(MixtureOfExperts\)"):
        build_method("align_average", pool_of(*models, architecture=experts))


def test_it_is_one_model_at_inference():
    (part,) = build_method("align_average", independent(3, MLP)).parts()
    shapes = {name: tensor.shape for name, tensor in part.module.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in build(MLP).state_dict().items()}
