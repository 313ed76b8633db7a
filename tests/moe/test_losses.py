"""The balance losses against numpy, scipy, Monte Carlo and transformers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import norm
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from harness.moe.losses import auxiliary_loss, expected_load, importance_loss, squared_variation, z_loss
from tests.examples import examples

EXPERTS = 4
EVERY_K = range(1, EXPERTS + 1)


def scores(rows=20, seed=0):
    """Scores without and with noise, and its deviation [N, E]."""
    rng = np.random.default_rng(seed)
    clean, spread = rng.normal(size=(rows, EXPERTS)), rng.uniform(0.2, 2, size=(rows, EXPERTS))
    return clean, clean + rng.normal(size=clean.shape) * spread, spread


def load(clean, noisy, spread, k):
    return expected_load(*(torch.tensor(each) for each in (clean, noisy, spread)), k).numpy()


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0], [0.0, 0.0, 4.0], [0.3, 0.4, 0.1]])
def test_squared_variation_is_the_variance_over_the_squared_mean(values):
    expected = np.var(values) / np.mean(values) ** 2
    assert float(squared_variation(torch.tensor(values, dtype=torch.float64))) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("values", [[3.0, 3.0, 3.0], [2.0], [0.0, 0.0]])
def test_equal_values_do_not_vary(values):
    assert squared_variation(torch.tensor(values)) == 0


@pytest.mark.parametrize("k", EVERY_K)
def test_equal_gates_have_no_importance_loss(k):
    gates = torch.zeros(EXPERTS, EXPERTS, dtype=torch.float64)
    for row in range(EXPERTS):
        gates[row, [(row + j) % EXPERTS for j in range(k)]] = 1 / k
    assert float(importance_loss(gates)) == pytest.approx(0, abs=1e-15)
    gates[0] = torch.tensor([1.0, 0, 0, 0])
    assert importance_loss(gates) > 0 or k == 1


@pytest.mark.parametrize("k", range(1, EXPERTS))
def test_load_is_the_formula_of_the_paper(k):
    """Phi((clean - k-th largest score of the others) / spread), for every row and expert."""
    clean, noisy, spread = scores()
    chances = np.zeros_like(clean)
    for n, e in np.ndindex(*clean.shape):
        rival = sorted(np.delete(noisy[n], e), reverse=True)[k - 1]
        chances[n, e] = norm.cdf((clean[n, e] - rival) / spread[n, e])
    np.testing.assert_allclose(load(clean, noisy, spread, k), chances.sum(axis=0), atol=1e-10)


@pytest.mark.parametrize("k", EVERY_K)
def test_load_is_how_often_an_expert_is_chosen_if_its_noise_is_drawn_again(k):
    draws, (clean, noisy, spread) = 20_000, scores(6, seed=6)
    rng = np.random.default_rng(0)
    for n, e in np.ndindex(6, EXPERTS):
        again = clean[n, e] + spread[n, e] * rng.normal(size=draws)
        better = (np.delete(noisy[n], e)[:, None] > again).sum(axis=0)
        row = [each[n : n + 1] for each in (clean, noisy, spread)]
        assert load(*row, k)[e] == pytest.approx((better < k).mean(), abs=5 * 0.5 / math.sqrt(draws))


@pytest.mark.parametrize("k", range(1, EXPERTS))
def test_noise_that_has_vanished_leaves_finite_gradients(k):
    clean = torch.zeros(3, EXPERTS, requires_grad=True)
    spread = torch.zeros(3, EXPERTS, requires_grad=True)
    expected_load(clean, clean.detach(), spread, k).square().sum().backward()
    assert torch.isfinite(clean.grad).all()
    assert torch.isfinite(spread.grad).all()


@examples(20)
@given(rows=st.integers(1, 30), experts=st.integers(1, 6), data=st.data(), seed=st.integers(0, 99))
def test_auxiliary_loss_is_that_of_transformers(rows, experts, data, seed):
    k = data.draw(st.integers(1, experts))
    logits = torch.randn(rows, experts, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    probabilities = logits.softmax(dim=-1)
    found = auxiliary_loss(probabilities, probabilities.topk(k, dim=-1).indices)
    torch.testing.assert_close(found.float(), load_balancing_loss_func((logits,), experts, k))  # in float32


@pytest.mark.parametrize("k", [1, 2])
def test_auxiliary_loss_of_uniform_routing_is_k_and_of_collapsed_routing_the_number_of_experts(k):
    """So Switch's, weighted by a, is a where all experts get the same."""
    uniform = torch.full((EXPERTS, EXPERTS), 1 / EXPERTS, dtype=torch.float64)
    even = torch.stack([torch.arange(EXPERTS).roll(-j) for j in range(k)], dim=1)
    assert float(auxiliary_loss(uniform, even)) == pytest.approx(k)
    collapsed = torch.zeros(5, EXPERTS, dtype=torch.float64)
    collapsed[:, 2] = 1
    assert float(auxiliary_loss(collapsed, torch.full((5, 1), 2))) == pytest.approx(EXPERTS)


def test_the_gradient_of_the_auxiliary_loss_goes_through_the_probabilities():
    logits = torch.randn(6, EXPERTS, dtype=torch.float64, requires_grad=True)
    chosen = logits.detach().argmax(dim=-1, keepdim=True)
    torch.autograd.gradcheck(lambda given: auxiliary_loss(given.softmax(dim=-1), chosen), logits)


def test_z_loss_is_the_mean_square_of_the_log_partition():
    logits = np.random.default_rng(0).normal(size=(7, EXPERTS))
    expected = np.mean(logsumexp(logits, axis=-1) ** 2)
    assert float(z_loss(torch.tensor(logits))) == pytest.approx(expected)


@pytest.mark.parametrize("loss", [lambda rows: auxiliary_loss(rows, torch.zeros(0, 1, dtype=torch.int64)), z_loss])
def test_no_rows_have_no_loss(loss):
    assert loss(torch.zeros(0, EXPERTS)) == 0
