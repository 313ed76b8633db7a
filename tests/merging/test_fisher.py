"""Fisher merging against gradients worked out by hand, torch.func, and its limits."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from harness.checks.pools import CNN, CNN_BN, MLP, copied, split, trained
from harness.merging.arithmetic import average
from harness.merging.fisher import diagonal_fisher, fisher_average
from harness.models.architectures import build
from harness.types import Architecture


def network(architecture):
    module = build(architecture).eval()
    module.load_state_dict(trained(architecture, 0))
    return module


def by_vmap(module, inputs, labels):
    """The empirical Fisher with torch.func: all examples at once."""
    state = {name: tensor.detach() for name, tensor in module.state_dict(keep_vars=True).items()}

    def likelihood(parameters, example, label):
        logits = functional_call(module, {**state, **parameters}, (example.unsqueeze(0),))
        return torch.log_softmax(logits, dim=-1)[0].gather(0, label.unsqueeze(0)).squeeze()

    parameters = {name: state[name] for name, _ in module.named_parameters()}
    gradients = vmap(grad(likelihood), (None, 0, 0))(parameters, inputs, labels)
    return {name: gradient.square().mean(dim=0) for name, gradient in gradients.items()}


@pytest.mark.parametrize("architecture", [CNN, CNN_BN, MLP], ids=lambda a: a.name)
def test_it_is_the_mean_of_the_squares_of_each_examples_gradient(architecture):
    module, examples = network(architecture), split("heldout")
    found = diagonal_fisher(module, examples.inputs[:20], examples.labels[:20])
    torch.testing.assert_close(found, by_vmap(module, examples.inputs[:20], examples.labels[:20]), rtol=1e-3, atol=1e-8)


def softmax_regression(weight):
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    module.weight.data = weight.clone()
    return module.eval()


def test_of_softmax_regression_it_is_the_closed_form():
    """The gradient by W is (e_y - p) x^T; drawn from the model, y averages to p (1 - p) x^2."""
    torch.manual_seed(0)
    weight, inputs, labels = torch.randn(3, 4), torch.randn(50, 4), torch.randint(3, (50,))
    p = torch.softmax(inputs @ weight.T, dim=1)
    one_hot = nn.functional.one_hot(labels, 3)
    expected = ((one_hot - p).square().unsqueeze(2) * inputs.square().unsqueeze(1)).mean(dim=0)
    module = softmax_regression(weight)
    torch.testing.assert_close(diagonal_fisher(module, inputs, labels)["weight"], expected)
    many = inputs.repeat(60, 1)
    sampled = diagonal_fisher(module, many, labels.repeat(60), torch.Generator().manual_seed(1))["weight"]
    exact = ((p * (1 - p)).unsqueeze(2) * inputs.square().unsqueeze(1)).mean(dim=0)
    torch.testing.assert_close(sampled, exact, rtol=0.1, atol=0)
    assert (expected / exact - 1).abs().max() > 0.2  # labels that have nothing to do with the model


def test_a_token_window_is_one_example():
    module = build(Architecture("tiny_llama", (("heads", 2), ("hidden", 16), ("layers", 1), ("vocab", 11)))).eval()
    windows = torch.randint(11, (3, 6), generator=torch.Generator().manual_seed(0))
    found = diagonal_fisher(module, windows, windows[:, 1:].flatten())
    expected = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    for window in windows:
        module.zero_grad()
        logits = module(input_ids=window[None, :-1]).logits[0]
        (-nn.functional.cross_entropy(logits, window[1:], reduction="sum")).backward()
        for name, parameter in module.named_parameters():
            expected[name] += parameter.grad.square() / len(windows)
    torch.testing.assert_close(found, expected)


def test_a_parameter_that_nothing_depends_on_has_no_information():
    """A gate's noise, which is for training only."""
    module = build(Architecture(CNN.name, (*CNN.options, ("experts", 3)))).eval()
    found = diagonal_fisher(module, split("heldout").inputs[:5], split("heldout").labels[:5])
    assert float(found["hidden.gate.noise"].abs().max()) == 0
    assert float(found["hidden.gate.weight"].abs().max()) > 0


# The average.


def models(count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [{"w": torch.randn(4, 3, generator=generator), "n": torch.tensor(k)} for k in range(count)]


def fishers(count=3, seed=9):
    generator = torch.Generator().manual_seed(seed)
    return [{"w": torch.rand(4, 3, generator=generator) + 0.1} for _ in range(count)]


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("coefficients", [[1.0, 1.0, 1.0], [0.2, 0.0, 3.0]])
def test_it_is_its_formula(normalise, coefficients):
    found = fisher_average(models(), fishers(), coefficients, normalise=normalise)
    f = np.stack([fisher["w"].double().numpy() for fisher in fishers()])
    if normalise:
        f = f / np.sqrt((f**2).sum(axis=(1, 2), keepdims=True))
    say = f * np.array(coefficients)[:, None, None]
    theta = np.stack([model["w"].double().numpy() for model in models()])
    np.testing.assert_allclose(found["w"], (say * theta).sum(axis=0) / say.sum(axis=0), rtol=1e-5, atol=1e-6)
    assert int(found["n"]) == 0  # counters are the first member's


def test_equal_information_gives_the_plain_mean():
    same = [fishers()[0]] * 3
    torch.testing.assert_close(fisher_average(models(), same, [1.0] * 3), average(models()))


@pytest.mark.parametrize("floor", [1e-6, 1e-30])
def test_weights_that_nobody_has_information_on_are_averaged(floor):
    nothing = [{"w": torch.zeros(4, 3)}] * 3
    found = fisher_average(models(), nothing, [1.0] * 3, floor=floor, normalise=False)
    torch.testing.assert_close(found, average(models()))


def test_the_member_with_all_the_information_on_a_weight_decides_it():
    information = [{"w": torch.zeros(4, 3)} for _ in range(3)]
    information[1]["w"][2] = 1.0
    information[2]["w"][0] = 1.0
    found = fisher_average(models(), information, [1.0] * 3, floor=1e-12)["w"]
    torch.testing.assert_close(found[2], models()[1]["w"][2])
    torch.testing.assert_close(found[0], models()[2]["w"][0])
    torch.testing.assert_close(found[1], average(models())["w"][1])


def test_normalised_a_member_that_is_less_sure_of_everything_does_not_outweigh_the_others():
    loud = [{"w": 1000 * fishers()[0]["w"]}, *fishers()[1:]]
    expected = fisher_average(models(), fishers(), [1.0] * 3)
    torch.testing.assert_close(fisher_average(models(), loud, [1.0] * 3), expected, rtol=1e-4, atol=1e-5)
    plain = fisher_average(models(), loud, [1.0] * 3, normalise=False)["w"]
    torch.testing.assert_close(plain, models()[0]["w"], rtol=0, atol=0.1)


def test_one_member_and_copies_of_one_are_that_member_bit_for_bit():
    only = models(1)
    for count in (1, 3):
        found = fisher_average(only * count, fishers(count), [1.0] * count)
        assert torch.equal(found["w"], only[0]["w"])


def test_tied_weights_stay_tied():
    shared = [copied(model) for model in models()]
    tied = [{**model, "head": model["w"]} for model in shared]
    found = fisher_average(tied, fishers(), [1.0] * 3)
    assert found["head"].data_ptr() == found["w"].data_ptr()
    torch.testing.assert_close(found["w"], fisher_average(models(), fishers(), [1.0] * 3)["w"])


def test_only_one_members_information_is_held_at_a_time():
    drawn = []

    def one_by_one():
        for fisher in fishers():
            drawn.append(len(drawn))
            yield fisher

    found = fisher_average(models(), one_by_one(), [1.0] * 3)
    assert drawn == [0, 1, 2]
    torch.testing.assert_close(found, fisher_average(models(), fishers(), [1.0] * 3))
