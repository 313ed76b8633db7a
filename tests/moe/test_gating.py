"""Gates against a row-by-row reading of the papers in numpy."""

import numpy as np
import pytest
import torch
from scipy import special

from harness.moe import NoisyTopK, SoftmaxTopK, Switch
from harness.moe.losses import auxiliary_loss, expected_load, importance_loss, squared_variation, z_loss

INPUTS, EXPERTS = 5, 4
EVERY_K = range(1, EXPERTS + 1)
GATES = {
    "noisy": lambda k=2, **options: NoisyTopK(INPUTS, EXPERTS, k, **options),
    "softmax": lambda k=2, **options: SoftmaxTopK(INPUTS, EXPERTS, k, **options),
    "softmax, not normalised": lambda k=2, **options: SoftmaxTopK(INPUTS, EXPERTS, k, normalise=False, **options),
    "Switch": lambda k=1, **options: Switch(INPUTS, EXPERTS, **options),
}


def made(name, seed=0, **options):
    """A gate in float64 with random weights."""
    torch.manual_seed(seed)
    gate = GATES[name](**options).double()
    with torch.no_grad():
        for weight in gate.parameters():
            weight.normal_()
    return gate


def batch(rows=20, seed=1):
    return torch.randn(rows, INPUTS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def array(tensor):
    return tensor.detach().numpy()


def best(values, k):
    return np.argsort(-values, kind="stable")[:k]


def top_then_softmax(scores, k):
    """Softmax over the k largest scores of each row, 0 elsewhere."""
    gates = np.zeros_like(scores)
    for row, values in zip(gates, scores, strict=True):
        row[best(values, k)] = special.softmax(values[best(values, k)])
    return gates


def softmax_then_top(scores, k, normalised):
    gates = np.zeros_like(scores)
    for row, shares in zip(gates, special.softmax(scores, axis=-1), strict=True):
        kept = shares[best(shares, k)]
        row[best(shares, k)] = kept / kept.sum() if normalised else kept
    return gates


def noisy_scores(gate, x, seed):
    """Scores without and with the noise that the gate draws after this seed, and the noise's deviation."""
    torch.manual_seed(seed)
    clean, spread = array(x @ gate.weight.T), np.log1p(np.exp(array(x @ gate.noise.T)))
    return clean, clean + array(torch.randn(len(x), EXPERTS, dtype=torch.float64)) * spread, spread


# Which experts, with what weight


@pytest.mark.parametrize("k", EVERY_K)
def test_noisy_gates_in_eval_mode_are_the_softmax_of_the_k_best(k):
    gate, x = made("noisy", k=k).eval(), batch()
    np.testing.assert_allclose(array(gate(x).gates()), top_then_softmax(array(x @ gate.weight.T), k), atol=1e-12)


@pytest.mark.parametrize("k", EVERY_K)
def test_noisy_gates_in_training_are_those_of_noisy_scores(k):
    gate, x = made("noisy", k=k).train(), batch()
    _, noisy, _ = noisy_scores(gate, x, seed=4)
    torch.manual_seed(4)
    np.testing.assert_allclose(array(gate(x).gates()), top_then_softmax(noisy, k), atol=1e-12)


@pytest.mark.parametrize("k", EVERY_K)
@pytest.mark.parametrize("normalised", [True, False])
def test_softmax_gates_are_the_k_largest_shares(k, normalised):
    gate, x = made("softmax" if normalised else "softmax, not normalised", k=k), batch()
    expected = softmax_then_top(array(x @ gate.weight.T), k, normalised)
    for mode in (True, False):
        np.testing.assert_allclose(array(gate.train(mode)(x).gates()), expected, atol=1e-12)


def test_switch_weighs_one_expert_with_its_probability():
    gate, x = made("Switch"), batch()
    np.testing.assert_allclose(array(gate(x).gates()), softmax_then_top(array(x @ gate.weight.T), 1, False), atol=1e-12)
    assert gate(x).chosen.shape == (20, 1)


@pytest.mark.parametrize("name", GATES)
def test_choices_are_best_first_and_logits_are_free_of_noise(name):
    gate, x = made(name).train(), batch()
    routing = gate(x)
    assert (routing.weights.diff(dim=-1) <= 0).all()
    torch.testing.assert_close(routing.logits, x @ gate.weight.T)
    assert routing.experts == EXPERTS


@pytest.mark.parametrize("name", GATES)
def test_equal_scores_go_to_the_lowest_index(name):
    gate = made(name).eval()
    with torch.no_grad():
        gate.weight.zero_()
    assert (gate(batch(7)).chosen == torch.arange(gate.k)).all()


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_gate_computes_in_float32_whatever_the_inputs_are(name, dtype):
    """Under autocast too; in their own precision the scores would be rounded, and other experts chosen."""
    gate, x = made(name).to(dtype).eval(), batch().to(dtype)
    expected = gate.float()(x.float())
    for routing in (gate.to(dtype)(x), *(_under_autocast(gate, x) for _ in [0] if dtype == torch.bfloat16)):
        assert routing.weights.dtype == routing.logits.dtype == torch.float32
        assert torch.equal(routing.logits, expected.logits)
        assert torch.equal(routing.weights, expected.weights)
        assert torch.equal(routing.chosen, expected.chosen)


def _under_autocast(gate, x):
    with torch.autocast("cpu", torch.bfloat16):
        return gate(x)


@pytest.mark.parametrize("name", GATES)
def test_weights_are_differentiable_by_rows_and_parameters(name):
    gate, x = made(name).eval(), batch(3).requires_grad_()
    torch.autograd.gradcheck(lambda given: gate(given).weights, x)

    def weights(*values):
        named = dict(zip(names, values, strict=True))
        return torch.func.functional_call(gate, named, (x.detach(),)).weights

    names, values = zip(*gate.named_parameters(), strict=True)
    torch.autograd.gradcheck(weights, [value.detach().requires_grad_() for value in values])


# Losses


@pytest.mark.parametrize("k", EVERY_K)
@pytest.mark.parametrize(("weight", "z_weight"), [(0.0, 0.0), (0.1, 0.0), (2.0, 0.3)])
def test_noisy_losses_are_importance_load_and_z(k, weight, z_weight):
    gate, x = made("noisy", k=k, balance_weight=weight, z_weight=z_weight).train(), batch()
    clean, noisy, spread = map(torch.tensor, noisy_scores(gate, x, seed=7))
    gates = torch.tensor(top_then_softmax(noisy.numpy(), k))
    balance = importance_loss(gates) + squared_variation(expected_load(clean, noisy, spread, k))
    torch.manual_seed(7)
    torch.testing.assert_close(gate(x).loss, weight * balance + z_weight * z_loss(clean))


@pytest.mark.parametrize("name", ["softmax", "softmax, not normalised", "Switch"])
@pytest.mark.parametrize(("weight", "z_weight"), [(0.0, 0.0), (0.01, 0.0), (0.0, 0.3), (2.0, 0.3)])
def test_softmax_losses_are_the_auxiliary_one_and_z(name, weight, z_weight):
    gate, x = made(name, balance_weight=weight, z_weight=z_weight).train(), batch()
    logits = x @ gate.weight.T
    chosen = logits.topk(gate.k).indices
    expected = weight * auxiliary_loss(logits.softmax(dim=-1), chosen) + z_weight * z_loss(logits)
    torch.testing.assert_close(gate(x).loss, expected)


def test_uniform_routing_costs_switch_its_factor():
    gate = Switch(EXPERTS, EXPERTS, balance_weight=0.01).train()
    with torch.no_grad():
        gate.weight.copy_(1e-6 * torch.eye(EXPERTS))
    assert float(gate(torch.eye(EXPERTS).repeat(5, 1)).loss.detach()) == pytest.approx(0.01, rel=1e-5)


@pytest.mark.parametrize("name", GATES)
def test_eval_has_no_noise_and_no_loss_and_leaves_the_generator_alone(name):
    gate, x = made(name, balance_weight=1.0, z_weight=1.0).eval(), batch()
    before = torch.random.get_rng_state()
    first, again = gate(x), gate(x)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.loss == 0
    assert torch.equal(first.weights, again.weights)
    assert gate.train()(x).loss > 0


def test_noise_differs_from_pass_to_pass():
    gate, x = made("noisy", k=EXPERTS).train(), batch()
    assert not torch.equal(gate(x).gates(), gate(x).gates())


# Starts, sizes and refusals


def test_a_noisy_gate_starts_at_zero_and_experts_with_an_equal_share():
    torch.manual_seed(8)
    gate = NoisyTopK(INPUTS, EXPERTS, 2)
    assert not any(parameter.any() for parameter in gate.parameters())
    share = torch.full((EXPERTS,), 0.5, dtype=torch.float64)  # k of the experts
    torch.testing.assert_close(gate(batch(4000)).load() / 4000, share, atol=0.04, rtol=0, check_dtype=False)


def test_a_switch_starts_with_small_weights():
    torch.manual_seed(0)
    weight = Switch(1000, 8).weight
    assert float(weight.detach().std()) == pytest.approx(0.88 * 0.01, rel=0.05)  # cut off at two deviations
    assert weight.abs().max() <= 0.02


@pytest.mark.parametrize("name", GATES)
def test_no_rows_are_no_choices(name):
    routing = made(name).train()(batch(0))
    assert routing.weights.shape == (0, 1 if name == "Switch" else 2)
    assert torch.isfinite(routing.loss)


@pytest.mark.parametrize("k", [0, -1, 5])
@pytest.mark.parametrize("gate", [NoisyTopK, SoftmaxTopK])
def test_k_out_of_range_is_refused(gate, k):
    with pytest.raises(ValueError, match=rf"between 1 and the number of experts \(4\), not {k}"):
        gate(5, 4, k)
