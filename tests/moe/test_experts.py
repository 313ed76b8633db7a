"""Stacked experts are the modules that their slices make, one by one and all at once."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from harness.moe import ModuleExperts, PerceptronExperts, SwiGLUExperts
from tests.moe.cases import EXPERTS, Twice


@pytest.mark.parametrize("bias", [True, False])
def test_perceptrons_are_linear_layers_with_a_relu(bias):
    experts, x = PerceptronExperts(3, 5, 7, 2, bias=bias), torch.randn(4, 5)
    for e, expert in enumerate(experts.each(x.dtype)):
        module = nn.Sequential(nn.Linear(5, 7, bias=bias), nn.ReLU(), nn.Linear(7, 2, bias=bias))
        state = {"0.weight": experts.up_proj[e], "2.weight": experts.down_proj[e]}
        if bias:
            state |= {"0.bias": experts.up_proj_bias[e], "2.bias": experts.down_proj_bias[e]}
        module.load_state_dict(state)
        torch.testing.assert_close(expert(x), module(x))
    assert experts.parameters_of_one == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("bias", [True, False])
def test_without_outputs_they_are_one_linear_layer_and_the_relu(bias):
    experts, x = PerceptronExperts(3, 5, 7, bias=bias), torch.randn(4, 5)
    for e, expert in enumerate(experts.each(x.dtype)):
        bias_of_one = experts.up_proj_bias[e] if bias else None
        torch.testing.assert_close(expert(x), functional.relu(functional.linear(x, experts.up_proj[e], bias_of_one)))
    assert experts.outputs == 7
    assert experts.parameters_of_one == 7 * 5 + 7 * bias


@pytest.mark.parametrize("bias", [True, False])
def test_swiglu_is_down_of_silu_of_gate_times_up(bias):
    experts, x = SwiGLUExperts(3, 5, 7, 2, bias=bias), torch.randn(4, 5)
    for e, expert in enumerate(experts.each(x.dtype)):
        gate, up = experts.gate_up_proj[e].chunk(2)
        gate_bias, up_bias = experts.gate_up_proj_bias[e].chunk(2) if bias else (None, None)
        hidden = functional.silu(functional.linear(x, gate, gate_bias)) * functional.linear(x, up, up_bias)
        expected = functional.linear(hidden, experts.down_proj[e], experts.down_proj_bias[e] if bias else None)
        torch.testing.assert_close(expert(x), expected)
    assert experts.outputs == 2
    assert SwiGLUExperts(3, 5, 7).outputs == 5


@pytest.mark.parametrize("kind", [kind for kind in EXPERTS if kind != "modules"])
def test_all_at_once_is_each_on_its_own(kind):
    experts, x = EXPERTS[kind](3, 5, 7, 2), torch.randn(3, 4, 5)

    def linear(rows, weight, bias):
        return torch.stack([functional.linear(r, w, None if bias is None else bias[e])
                            for e, (r, w) in enumerate(zip(rows, weight, strict=True))])  # fmt: skip

    expected = torch.stack([expert(rows) for expert, rows in zip(experts.each(x.dtype), x, strict=True)])
    torch.testing.assert_close(experts.run(x, linear), expected)


@pytest.mark.parametrize("kind", [kind for kind in EXPERTS if kind != "modules"])
def test_each_expert_starts_as_a_linear_layer_does(kind):
    torch.manual_seed(0)
    experts = EXPERTS[kind](3, 100, 400, 50)
    for weight, bias in experts.layers():
        bound = 1 / math.sqrt(weight.shape[-1])
        for tensor in (weight, *([] if bias is None else [bias])):
            assert 0.9 * bound < tensor.detach().abs().max() <= bound
            assert len({values.sum().item() for values in tensor.detach()}) == 3  # and with weights of its own


def test_modules_are_taken_as_they_are():
    modules = [Twice(5, 2), nn.Linear(5, 2)]
    experts = ModuleExperts(modules, 5, 2)
    assert experts.each(torch.float32) == modules
    assert experts.count == 2
    assert experts.parameters_of_one == 24
    with pytest.raises(ValueError, match="at least one expert"):
        ModuleExperts([], 5, 2)
