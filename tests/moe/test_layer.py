"""The mixture-of-experts layer against a row-by-row reading of the papers in numpy."""

import math

import numpy as np
import pytest
import torch
from scipy import special
from torch import nn

from harness import keys
from harness.cost.flops import count
from harness.errors import BadInput
from harness.moe import (
    MixtureOfExperts,
    ModuleExperts,
    NoisyTopK,
    PerceptronExperts,
    SoftmaxTopK,
    SwiGLUExperts,
    Switch,
)
from harness.moe.layer import classifier_layer
from harness.registry import DISPATCHES

INPUTS, HIDDEN, OUTPUTS, EXPERTS = 5, 7, 3, 4
EVERY_K = range(1, EXPERTS + 1)


def layer_with(k, *, routing="sparse", seed=0, **options):
    """A classifier's layer in float64 whose gates and noise are not zero."""
    torch.manual_seed(seed)
    layer = classifier_layer(INPUTS, OUTPUTS, experts=EXPERTS, k=k, routing=routing, **options).double()
    with torch.no_grad():
        layer.gate.weight.normal_()
        layer.gate.noise.normal_()
    return layer


def batch(rows=20, seed=1):
    return torch.randn(rows, INPUTS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def array(tensor):
    return tensor.detach().numpy()


def one_layer(experts, e, row):
    return np.maximum(array(experts.up_proj[e]) @ row + array(experts.up_proj_bias[e]), 0)


def perceptron(experts, e, row):
    return array(experts.down_proj[e]) @ one_layer(experts, e, row) + array(experts.down_proj_bias[e])


def swiglu(experts, e, row):
    gate, up = np.split(array(experts.gate_up_proj[e]) @ row, 2)
    return array(experts.down_proj[e]) @ (gate * special.expit(gate) * up)


def expected(layer, x, expert=one_layer):
    """The gated sum over the k best experts; the gates have tests of their own."""
    gates = array(layer.gate(x).gates())
    return [sum(g * expert(layer.experts, e, row) for e, g in enumerate(gates[n])) for n, row in enumerate(array(x))]


def with_gradients(layer, x, seed):
    """Outputs, losses and the gradients of both by everything, in training mode after a seed."""
    x = x.clone().requires_grad_()
    torch.manual_seed(seed)
    out = layer.train()(x)
    loss = (out * torch.arange(1.0, 1 + out.numel()).view_as(out)).sum() + 10 * layer.aux_loss
    return [out, layer.aux_loss, *torch.autograd.grad(loss, [x, *layer.parameters()])]


# The mixture


@pytest.mark.parametrize("path", DISPATCHES.all())
@pytest.mark.parametrize("k", EVERY_K)
def test_the_output_is_the_gated_sum_of_the_k_best_experts(path, k):
    torch.manual_seed(0)
    experts = SwiGLUExperts(EXPERTS, 16, 32)
    layer = MixtureOfExperts(SoftmaxTopK(16, EXPERTS, k), experts, dispatch=path).eval()
    x = torch.randn(11, 16)
    np.testing.assert_allclose(array(layer(x)), expected(layer, x, swiglu), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("routing", ["sparse", "dense"])
@pytest.mark.parametrize("k", EVERY_K)
def test_a_classifiers_layer_is_the_gated_sum_of_rectified_linear_layers(k, routing):
    layer, x = layer_with(k, routing=routing).eval(), batch()
    np.testing.assert_allclose(array(layer(x)), expected(layer, x), atol=1e-12)


@pytest.mark.parametrize("k", EVERY_K)
def test_sparse_and_dense_agree_and_so_do_their_gradients(k):
    sparse, dense = layer_with(k), layer_with(k, routing="dense")
    found, wanted = with_gradients(sparse, batch(), 3), with_gradients(dense, batch(), 3)
    assert len(found) == 7
    assert all(gradient.abs().max() > 0 for gradient in wanted if k < EXPERTS)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_all_experts_are_the_dense_softmax_mixture():
    layer, x = layer_with(EXPERTS).eval(), batch()
    weights = special.softmax(array(x) @ array(layer.gate.weight).T, axis=-1)
    each = np.stack([[one_layer(layer.experts, e, row) for e in range(EXPERTS)] for row in array(x)])
    np.testing.assert_allclose(array(layer(x)), np.einsum("ne,neo->no", weights, each), atol=1e-12)


@pytest.mark.parametrize("gate", [NoisyTopK(INPUTS, EXPERTS, 2), SoftmaxTopK(INPUTS, EXPERTS, 3)])
def test_copies_of_one_expert_are_that_expert_where_weights_sum_to_one(gate):
    layer, x = MixtureOfExperts(gate, PerceptronExperts(EXPERTS, INPUTS, HIDDEN, OUTPUTS), dispatch="sorted"), batch()
    layer.double()
    with torch.no_grad():
        for weight in layer.experts.parameters():
            weight.copy_(weight[:1].expand_as(weight))
    for mode in (True, False):
        wanted = [perceptron(layer.experts, 0, row) for row in array(x)]
        np.testing.assert_allclose(array(layer.train(mode)(x)), wanted, atol=1e-12)


def test_modules_are_experts_too():
    torch.manual_seed(0)
    modules = [nn.Linear(INPUTS, OUTPUTS), nn.Sequential(nn.Linear(INPUTS, 50), nn.Tanh(), nn.Linear(50, OUTPUTS))]
    layer = MixtureOfExperts(SoftmaxTopK(INPUTS, 2, 1), ModuleExperts(modules, INPUTS, OUTPUTS)).double().eval()
    x, best = batch(), layer.gate(batch()).chosen[:, 0]
    torch.testing.assert_close(layer(x), torch.stack([modules[e](row) for e, row in zip(best, x, strict=True)]))
    assert set(best.tolist()) == {0, 1}
    largest = sum(p.numel() for p in modules[1].parameters())
    assert layer.active_parameters == 2 * INPUTS + largest


@pytest.mark.parametrize("path", DISPATCHES.all())
def test_rows_may_stand_in_any_shape(path):
    layer = MixtureOfExperts(SoftmaxTopK(16, EXPERTS, 2), SwiGLUExperts(EXPERTS, 16, 32, 48), dispatch=path).eval()
    x = torch.randn(2, 3, 4, 16)
    assert layer(x).shape == (2, 3, 4, 48)
    torch.testing.assert_close(layer(x).view(-1, 48), layer(x.view(-1, 16)))
    assert layer(x[:, :0]).shape == (2, 0, 4, 48)
    torch.testing.assert_close(layer(x[1, 2, 3]), layer(x)[1, 2, 3], rtol=1e-4, atol=1e-6)


def test_no_row_is_dropped_where_all_want_the_same_expert():
    layer, x = layer_with(1).eval(), batch(200).abs()
    with torch.no_grad():
        layer.gate.weight.zero_()[2] = 5.0
    np.testing.assert_allclose(array(layer(x)), [one_layer(layer.experts, 2, row) for row in array(x)], atol=1e-12)
    assert layer.dropped == 0


@pytest.mark.parametrize("path", DISPATCHES.all())
def test_rows_over_the_capacity_are_zeros_and_counted(path):
    """So a residual connection carries them."""
    torch.manual_seed(0)
    layer = MixtureOfExperts(Switch(16, EXPERTS), PerceptronExperts(EXPERTS, 16, 16, 16), dispatch=path, capacity=1.0)
    with torch.no_grad():
        layer.gate.weight.zero_()[1] = 1.0  # all rows want expert 1, which has room for a fourth
    x = torch.randn(10, 16).abs()
    out, room = layer.eval()(x), math.ceil(10 / EXPERTS)
    layer.capacity = None
    torch.testing.assert_close(out[:room], layer(x)[:room], rtol=1e-4, atol=1e-6)
    assert layer.dropped == 0
    layer.capacity = 1.0
    layer(x)
    assert not out[room:].any()
    assert layer.dropped == 10 - room


@pytest.mark.parametrize(("routing", "rows_per_example"), [("sparse", 2), ("dense", EXPERTS)])
def test_experts_run_only_on_their_own_rows(routing, rows_per_example, monkeypatch):
    layer, x, rows = layer_with(2, routing=routing).eval(), batch(30), []
    relu = torch.nn.functional.relu
    monkeypatch.setattr(
        torch.nn.functional,
        "relu",
        lambda hidden, **how: (rows.append(hidden.numel() // OUTPUTS), relu(hidden, **how))[1],
    )
    layer(x)
    assert sum(rows) == rows_per_example * 30


def test_an_expert_that_no_row_chooses_has_no_gradient():
    layer, x = layer_with(1).eval(), batch().abs()
    with torch.no_grad():
        layer.gate.weight.zero_()[1] = 5.0
    layer(x).sum().backward()
    assert [bool(layer.experts.up_proj.grad[e].any()) for e in range(EXPERTS)] == [False, True, False, False]


# Training


@pytest.mark.parametrize("routing", ["sparse", "dense"])
def test_eval_has_no_noise_and_no_loss_and_leaves_the_generator_alone(routing):
    layer, x = layer_with(2, routing=routing).eval(), batch()
    before = torch.random.get_rng_state()
    first = layer(x)
    assert layer.aux_loss == 0
    assert torch.equal(layer(x), first)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.testing.assert_close(layer(x[3:7]), first[3:7])
    layer.train()(x)
    assert layer.aux_loss > 0
    assert not torch.equal(layer(x), first)
    layer.eval()(x)
    assert layer.aux_loss == 0


def test_the_layers_loss_is_the_gates():
    layer, x = layer_with(2, balance_weight=0.7).train(), batch()
    torch.manual_seed(5)
    layer(x)
    torch.manual_seed(5)
    assert torch.equal(layer.aux_loss, layer.gate(x).loss)


@pytest.mark.parametrize("same_scores", [True, False])
def test_noise_that_has_vanished_leaves_finite_gradients(same_scores):
    layer, x = layer_with(2).float().train(), batch().float().abs() + 1
    with torch.no_grad():
        layer.gate.noise.fill_(-30)  # softplus of it is 0 in float32
        if same_scores:
            layer.gate.weight.zero_()
    assert all(torch.isfinite(result).all() for result in with_gradients(layer, x, 9))


@pytest.mark.parametrize("path", ["dense", "sorted", "index", "grouped"])
def test_under_autocast_experts_compute_in_the_lower_precision(path):
    torch.manual_seed(0)
    layer = MixtureOfExperts(SoftmaxTopK(16, EXPERTS, 2), SwiGLUExperts(EXPERTS, 16, 32), dispatch=path)
    x = torch.randn(9, 16)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), layer(x), rtol=0.05, atol=0.02)
    out.float().sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in layer.parameters())


# Sizes, paths and refusals


@pytest.mark.parametrize(("routing", "k", "running"), [("sparse", 1, 1), ("sparse", 3, 3), ("dense", 1, 4)])
def test_active_parameters_by_hand(routing, k, running):
    layer = classifier_layer(5, 7, experts=4, k=k, routing=routing)
    assert layer.active_parameters == 5 * 4 + running * (5 * 7 + 7)
    assert sum(p.numel() for p in layer.parameters()) == 2 * 5 * 4 + 4 * (5 * 7 + 7)


def test_a_counter_of_operations_does_not_see_the_measurement():
    def layer(dispatch):
        torch.manual_seed(0)
        return MixtureOfExperts(SoftmaxTopK(5, 3, 2), PerceptronExperts(3, 5, 4, 5), dispatch=dispatch).eval()

    x, found = torch.randn(6, 5), layer("auto")
    counted = count(lambda: found(x))
    assert found.choice.milliseconds
    assert counted == count(lambda: layer(found.choice.path)(x))


@pytest.mark.parametrize("path", DISPATCHES.all())
def test_the_code_of_the_layer_covers_every_path(path, monkeypatch):
    """Else a change to a path would leave what was trained on it in the store."""
    version, facts = keys.code_version.__wrapped__, keys._module_facts
    before, changed = version("harness.moe.layer"), DISPATCHES.get(path).module
    monkeypatch.setattr(
        keys, "_module_facts", lambda name: ("other", *facts(name)[1:]) if name == changed else facts(name)
    )
    assert version("harness.moe.layer") != before


def test_a_gate_and_experts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="for 4 experts with 5 inputs, but there are 3 with 5"):
        MixtureOfExperts(SoftmaxTopK(5, 4), PerceptronExperts(3, 5, 7, 3))


@pytest.mark.parametrize("capacity", [0.0, -1.0, math.nan])
def test_a_capacity_that_is_none_is_refused(capacity):
    with pytest.raises(ValueError, match="a capacity must be greater than 0"):
        MixtureOfExperts(SoftmaxTopK(5, 4), PerceptronExperts(4, 5, 7, 3), capacity=capacity)


def test_an_unknown_path_or_routing_is_answered_with_the_nearest():
    with pytest.raises(BadInput, match="unknown dispatch path 'sortd'; did you mean 'sorted'"):
        MixtureOfExperts(SoftmaxTopK(5, 4), PerceptronExperts(4, 5, 7, 3), dispatch="sortd")
    with pytest.raises(BadInput, match=r"unknown routing 'capacity' \(known: dense, sparse\)"):
        classifier_layer(5, 7, routing="capacity")
