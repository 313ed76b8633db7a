"""RegMean against numpy's least squares on the layers' own inputs."""

import numpy as np
import pytest
import torch
from torch import nn

from harness.checks.pools import CNN, CNN_BN, MLP, fine_tunes, split
from harness.merging.arithmetic import average
from harness.merging.regmean import input_grams, regression_mean
from harness.models.architectures import build
from harness.types import Architecture


def problem(members=3, rows=20, seed=0):
    """Linear layers [5, 4] and inputs [rows, 4] of each."""
    generator = torch.Generator().manual_seed(seed)
    layers = [{"weight": torch.randn(5, 4, generator=generator)} for _ in range(members)]
    mixing = torch.randn(members, 4, 4, generator=generator)
    inputs = [torch.randn(rows, 4, generator=generator) @ m for m in mixing]
    return layers, inputs


def grams_of(inputs):
    return [{"weight": x.double().T @ x.double()} for x in inputs]


def least_squares(layers, inputs):
    """argmin_W sum_k |X_k W^T - X_k W_k^T|^2, all rows in one system."""
    x = np.concatenate([i.double().numpy() for i in inputs])
    y = np.concatenate(
        [i.double().numpy() @ w["weight"].double().numpy().T for w, i in zip(layers, inputs, strict=True)]
    )
    return np.linalg.lstsq(x, y, rcond=None)[0].T


def test_without_shrinkage_it_is_the_least_squares_solution():
    layers, inputs = problem()
    found = regression_mean(layers, grams_of(inputs), 1.0)["weight"]
    np.testing.assert_allclose(found, least_squares(layers, inputs), rtol=1e-5, atol=1e-6)
    assert (found - average(layers)["weight"]).abs().max() > 0.1


def test_with_alpha_0_it_is_a_mean_of_columns_weighted_by_the_power_of_their_input():
    layers, inputs = problem()
    power = np.stack([x.double().square().sum(dim=0).numpy() for x in inputs])
    weights = np.stack([layer["weight"].double().numpy() for layer in layers])
    expected = (weights * power[:, None]).sum(axis=0) / power.sum(axis=0)
    np.testing.assert_allclose(regression_mean(layers, grams_of(inputs), 0.0)["weight"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.3, 0.9])
def test_alpha_multiplies_what_is_off_the_diagonal(alpha):
    layers, inputs = problem()
    total, pull = 0, 0
    for layer, gram in zip(layers, grams_of(inputs), strict=True):
        g = gram["weight"].numpy()
        g = np.where(np.eye(4) > 0, g, alpha * g)
        total, pull = total + g, pull + layer["weight"].double().numpy() @ g
    found = regression_mean(layers, grams_of(inputs), alpha)["weight"]
    np.testing.assert_allclose(found, np.linalg.solve(total, pull.T).T, rtol=1e-5, atol=1e-6)


def test_equal_grams_give_the_mean():
    layers, inputs = problem()
    torch.testing.assert_close(regression_mean(layers, grams_of(inputs[:1] * 3), 0.9), average(layers))


def test_what_the_inputs_leave_open_is_the_mean():
    """An input that is always 0, and one that always equals another: the optimum is met, and the rest is the mean."""
    layers, inputs = problem()
    for x in inputs:
        x[:, 1] = 0
        x[:, 3] = x[:, 2]
    found = regression_mean(layers, grams_of(inputs), 1.0)["weight"]
    torch.testing.assert_close(found[:, 1], average(layers)["weight"][:, 1])
    expected = least_squares(layers, inputs)
    for x in inputs:
        np.testing.assert_allclose(x @ found.T, x.double().numpy() @ expected.T, rtol=1e-4, atol=1e-5)


def test_copies_of_one_member_are_that_member_bit_for_bit():
    layers, inputs = problem()
    found = regression_mean(layers[:1] * 3, grams_of(inputs), 0.9)
    assert torch.equal(found["weight"], layers[0]["weight"])


# Gram matrices.


class Conv(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, bias=False, **options)

    def forward(self, images):
        return self.conv(images)


@pytest.mark.parametrize("options", [{}, {"padding": 1}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": 2}])
def test_a_convolutions_outputs_are_nearest_to_those_of_the_members(options):
    torch.manual_seed(0)
    modules = [Conv(**options).eval() for _ in range(2)]
    batches = [[torch.randn(6, 2, 7, 7) * scale for _ in range(2)] for scale in (1.0, 2.0)]
    grams = [input_grams(m, b) for m, b in zip(modules, batches, strict=True)]
    states = [m.state_dict() for m in modules]
    weight = regression_mean(states, grams, 1.0)["conv.weight"].double()

    def distance(kernel):
        pairs = [(m, x) for m, b in zip(modules, batches, strict=True) for x in b]
        return sum(
            (nn.functional.conv2d(x.double(), kernel - m.conv.weight.double(), **options)).square().sum()
            for m, x in pairs
        )

    kernel = weight.detach().requires_grad_()
    (slope,) = torch.autograd.grad(distance(kernel), kernel)
    (at_mean,) = torch.autograd.grad(distance(mean := average(states)["conv.weight"].double().requires_grad_()), mean)
    assert slope.abs().max() < 1e-5 * at_mean.abs().max()


def test_grams_are_those_of_all_inputs_however_they_are_batched():
    members, inputs = fine_tunes(1, CNN).members, split("train").inputs
    module = build(CNN).eval()
    module.load_state_dict(members[0].weights)
    whole, parts = input_grams(module, [inputs]), input_grams(module, inputs.split(7))
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-5)
    first = inputs.flatten(2)  # the images themselves are what the middle of each kernel sees
    assert float(whole["trunk.0.weight"][4, 4]) == pytest.approx(float(first.square().sum()), rel=1e-5)


@pytest.mark.parametrize("architecture", [CNN, CNN_BN, MLP], ids=lambda a: a.name)
def test_every_linear_and_convolution_layer_is_regressed_and_no_hook_is_left(architecture):
    module = build(architecture).eval()
    grams = input_grams(module, [split("train").inputs])
    expected = [f"{n}.weight" for n, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert list(grams) == expected
    assert all(gram.dtype == torch.float64 and gram.diag().sum() > 0 for gram in grams.values())
    assert not any(m._forward_pre_hooks for m in module.modules())


def test_tied_weights_and_grouped_convolutions_are_left_out():
    module = nn.Sequential(nn.Conv2d(2, 2, 1, groups=2), nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"))
    assert input_grams(module.eval(), [torch.randn(2, 2, 4, 4)]) == {}
    llama = build(Architecture("tiny_llama", (("heads", 2), ("hidden", 16), ("layers", 1), ("vocab", 11)))).eval()
    names = list(input_grams(llama, [torch.randint(11, (2, 5))]))
    assert "model.layers.0.mlp.down_proj.weight" in names
    assert not any("lm_head" in name or "embed" in name for name in names)
