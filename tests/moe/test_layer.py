"""The mixture-of-experts layer against a row-by-row reading of the paper in numpy."""

import math

import numpy as np
import pytest
import torch
from scipy import special
from scipy.stats import norm
from torch.nn import functional

from harness.moe.layer import MixtureOfExperts, squared_variation

INPUTS, HIDDEN, OUTPUTS, EXPERTS = 5, 7, 3, 4
EVERY_K = range(1, EXPERTS + 1)


def layer_with(k, *, routing="sparse", seed=0, **options):
    """A layer in float64 whose gates and noise are not zero."""
    torch.manual_seed(seed)
    layer = MixtureOfExperts(INPUTS, HIDDEN, OUTPUTS, experts=EXPERTS, k=k, routing=routing, **options).double()
    with torch.no_grad():
        layer.gate.normal_()
        layer.noise.normal_()
    return layer


def batch(rows=20, seed=1):
    return torch.randn(rows, INPUTS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def array(tensor):
    return tensor.detach().numpy()


def expert_output(layer, expert, row):
    hidden = np.maximum(row @ array(layer.up[expert]) + array(layer.up_bias[expert]), 0)
    return hidden @ array(layer.down[expert]) + array(layer.down_bias[expert])


def plain_gates(scores, k):
    """Softmax over the k largest scores of each row, 0 elsewhere."""
    gates = np.zeros_like(scores)
    for row, values in zip(gates, scores, strict=True):
        best = np.argsort(-values)[:k]
        row[best] = special.softmax(values[best])
    return gates


def noisy_scores(layer, x, seed):
    """Scores without and with the noise that the layer draws after this seed, and the noise's deviation."""
    torch.manual_seed(seed)
    clean, spread = array(x @ layer.gate), np.log1p(np.exp(array(x @ layer.noise)))
    return clean, clean + array(torch.randn(len(x), EXPERTS, dtype=torch.float64)) * spread, spread


def with_gradients(layer, x, seed):
    """Outputs, losses and the gradients of both by everything, in training mode after a seed."""
    x = x.clone().requires_grad_()
    torch.manual_seed(seed)
    out = layer.train()(x)
    loss = (out * torch.arange(1.0, 1 + out.numel()).view_as(out)).sum() + 10 * layer.aux_loss
    return [out, layer.aux_loss, *torch.autograd.grad(loss, [x, *layer.parameters()])]


# Routing


@pytest.mark.parametrize("k", EVERY_K)
def test_sparse_and_dense_agree_and_so_do_their_gradients(k):
    sparse, dense = layer_with(k), layer_with(k, routing="dense")
    found, expected = with_gradients(sparse, batch(), 3), with_gradients(dense, batch(), 3)
    assert len(found) == 9
    assert all(gradient.abs().max() > 0 for gradient in expected if k < EXPERTS)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("routing", ["sparse", "dense"])
@pytest.mark.parametrize("k", EVERY_K)
def test_the_output_is_the_gated_sum_of_the_k_best_experts(k, routing):
    layer, x = layer_with(k, routing=routing).eval(), batch()
    gates = plain_gates(array(x) @ array(layer.gate), k)
    expected = [
        sum(gates[n, e] * expert_output(layer, e, row) for e in range(EXPERTS)) for n, row in enumerate(array(x))
    ]
    np.testing.assert_allclose(array(layer(x)), expected, atol=1e-12)
    np.testing.assert_allclose(array(layer.gates(x)[0]), gates, atol=1e-12)


def test_all_experts_are_the_dense_softmax_mixture():
    layer, x = layer_with(EXPERTS).eval(), batch()
    weights = special.softmax(array(x) @ array(layer.gate), axis=-1)
    each = np.stack([[expert_output(layer, e, row) for e in range(EXPERTS)] for row in array(x)])
    np.testing.assert_allclose(array(layer(x)), np.einsum("ne,neo->no", weights, each), atol=1e-12)


def test_copies_of_one_expert_are_that_expert():
    layer, x = layer_with(2), batch()
    with torch.no_grad():
        for weight in (layer.up, layer.up_bias, layer.down, layer.down_bias):
            weight.copy_(weight[:1].expand_as(weight))
    for mode in (True, False):
        expected = [expert_output(layer, 0, row) for row in array(x)]
        np.testing.assert_allclose(array(layer.train(mode)(x)), expected, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("k", EVERY_K)
def test_every_row_has_k_gates_that_sum_to_one(k, training):
    gates, _ = layer_with(k).train(training).gates(batch(100))
    assert ((gates > 0).sum(dim=1) == k).all()
    torch.testing.assert_close(gates.sum(dim=1), torch.ones(100, dtype=torch.float64))


def test_no_row_is_dropped_where_all_want_the_same_expert():
    layer, x = layer_with(1).eval(), batch(200).abs()
    with torch.no_grad():
        layer.gate.zero_()[:, 2] = 5.0
    np.testing.assert_allclose(array(layer(x)), [expert_output(layer, 2, row) for row in array(x)], atol=1e-12)


@pytest.mark.parametrize(("routing", "rows_per_example"), [("sparse", 2), ("dense", EXPERTS)])
def test_experts_run_only_on_their_own_rows(routing, rows_per_example, monkeypatch):
    layer, x, rows = layer_with(2, routing=routing).eval(), batch(30), []
    relu = functional.relu
    monkeypatch.setattr(functional, "relu", lambda hidden: (rows.append(hidden.numel() // HIDDEN), relu(hidden))[1])
    layer(x)
    assert sum(rows) == rows_per_example * 30


def test_an_expert_that_no_row_chooses_has_no_gradient():
    layer, x = layer_with(1).eval(), batch().abs()
    with torch.no_grad():
        layer.gate.zero_()[:, 1] = 5.0
    layer(x).sum().backward()
    assert [bool(layer.up.grad[e].any()) for e in range(EXPERTS)] == [False, True, False, False]


@pytest.mark.parametrize("routing", ["sparse", "dense"])
def test_no_rows_are_no_outputs(routing):
    assert layer_with(2, routing=routing).eval()(batch(0)).shape == (0, OUTPUTS)


# Noise


@pytest.mark.parametrize("routing", ["sparse", "dense"])
def test_eval_has_no_noise_no_loss_and_leaves_the_generator_alone(routing):
    layer, x = layer_with(2, routing=routing).eval(), batch()
    before = torch.random.get_rng_state()
    first = layer(x)
    assert layer.aux_loss == 0
    assert torch.equal(layer(x), first)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.testing.assert_close(layer(x[3:7]), first[3:7])
    layer.train()(x)
    assert layer.aux_loss > 0
    layer.eval()(x)
    assert layer.aux_loss == 0


@pytest.mark.parametrize("k", EVERY_K)
def test_training_gates_are_those_of_noisy_scores(k):
    layer, x = layer_with(k).train(), batch()
    _, noisy, _ = noisy_scores(layer, x, seed=4)
    torch.manual_seed(4)
    np.testing.assert_allclose(array(layer.gates(x)[0]), plain_gates(noisy, k), atol=1e-12)
    assert not torch.equal(layer(x), layer(x))


# Balance


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0], [0.0, 0.0, 4.0], [0.3, 0.4, 0.1]])
def test_squared_variation_is_the_variance_over_the_squared_mean(values):
    expected = np.var(values) / np.mean(values) ** 2
    assert float(squared_variation(torch.tensor(values, dtype=torch.float64))) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("values", [[3.0, 3.0, 3.0], [2.0], [0.0, 0.0]])
def test_equal_values_do_not_vary(values):
    assert squared_variation(torch.tensor(values)) == 0


def chance_by_hand(clean, noisy, spread, k):
    """Phi((clean - k-th largest score of the others) / spread), for every row and expert."""
    chances = np.zeros_like(clean)
    for n, e in np.ndindex(*clean.shape):
        rival = sorted(np.delete(noisy[n], e), reverse=True)[k - 1]
        chances[n, e] = norm.cdf((clean[n, e] - rival) / spread[n, e])
    return chances


@pytest.mark.parametrize("k", range(1, EXPERTS))
def test_load_is_the_formula_of_the_paper(k):
    layer, x = layer_with(k).train(), batch()
    expected = chance_by_hand(*noisy_scores(layer, x, seed=5), k)
    torch.manual_seed(5)
    np.testing.assert_allclose(array(layer.gates(x)[1]), expected.sum(axis=0), atol=1e-10)


@pytest.mark.parametrize("k", EVERY_K)
def test_load_is_how_often_an_expert_is_chosen_if_its_noise_is_drawn_again(k):
    layer, x, draws = layer_with(k).train(), batch(6), 20_000
    clean, noisy, spread = noisy_scores(layer, x, seed=6)
    rng = np.random.default_rng(0)
    for n, e in np.ndindex(6, EXPERTS):
        again = clean[n, e] + spread[n, e] * rng.normal(size=draws)
        better = (np.delete(noisy[n], e)[:, None] > again).sum(axis=0)
        row = [torch.tensor(scores[n : n + 1]) for scores in (clean, noisy, spread)]
        assert float(layer.load(*row)[e]) == pytest.approx((better < k).mean(), abs=5 * 0.5 / math.sqrt(draws))


@pytest.mark.parametrize("k", EVERY_K)
@pytest.mark.parametrize("weight", [0.0, 0.1, 2.0])
def test_the_balance_losses_are_the_weighted_variations_of_importance_and_load(k, weight):
    layer, x = layer_with(k, balance_weight=weight).train(), batch()
    clean, noisy, spread = noisy_scores(layer, x, seed=7)
    importance = plain_gates(noisy, k).sum(axis=0)
    load = chance_by_hand(clean, noisy, spread, k).sum(axis=0) if k < EXPERTS else np.ones(EXPERTS)
    expected = weight * sum(np.var(v) / np.mean(v) ** 2 for v in (importance, load))
    torch.manual_seed(7)
    layer(x)
    assert float(layer.aux_loss.detach()) == pytest.approx(expected, rel=1e-7, abs=1e-12)


def test_equal_gates_cost_nothing():
    layer, x = layer_with(EXPERTS).train(), batch().abs() + 1
    with torch.no_grad():
        layer.gate.zero_()
        layer.noise.fill_(-200)  # noise of next to nothing
    layer(x)
    assert float(layer.aux_loss.detach()) == pytest.approx(0, abs=1e-12)


def test_gates_start_at_zero_and_experts_with_an_equal_share():
    torch.manual_seed(8)
    layer = MixtureOfExperts(INPUTS, HIDDEN, OUTPUTS, experts=EXPERTS, k=2)
    assert not layer.gate.any()
    assert not layer.noise.any()
    gates, load = layer.gates(batch(4000).float())
    share = torch.full((EXPERTS,), 0.5)  # k of the experts
    torch.testing.assert_close((gates > 0).float().mean(dim=0), share, atol=0.04, rtol=0)
    torch.testing.assert_close(load.detach() / 4000, share, atol=0.04, rtol=0)
    assert len({weights.sum().item() for weights in layer.up}) == EXPERTS  # and with weights of their own


@pytest.mark.parametrize("same_scores", [True, False])
def test_noise_that_has_vanished_leaves_finite_gradients(same_scores):
    layer, x = layer_with(2).float().train(), batch().float().abs() + 1
    with torch.no_grad():
        layer.noise.fill_(-30)  # softplus of it is 0 in float32
        if same_scores:
            layer.gate.zero_()
    results = with_gradients(layer, x, 9)
    assert all(torch.isfinite(result).all() for result in results)


# Sizes and refusals


@pytest.mark.parametrize(("routing", "k", "running"), [("sparse", 1, 1), ("sparse", 3, 3), ("dense", 1, 4)])
def test_active_parameters_by_hand(routing, k, running):
    layer = MixtureOfExperts(5, 7, 3, experts=4, k=k, routing=routing)
    assert layer.active_parameters == 5 * 4 + running * (5 * 7 + 7 + 7 * 3 + 3)
    assert sum(p.numel() for p in layer.parameters()) == 2 * 5 * 4 + 4 * (5 * 7 + 7 + 7 * 3 + 3)


@pytest.mark.parametrize("k", [0, -1, 5])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(ValueError, match=rf"between 1 and the number of experts \(4\), not {k}"):
        MixtureOfExperts(5, 7, 3, experts=4, k=k)


def test_an_unknown_routing_is_refused():
    with pytest.raises(ValueError, match="unknown routing 'capacity'"):
        MixtureOfExperts(5, 7, 3, routing="capacity")
