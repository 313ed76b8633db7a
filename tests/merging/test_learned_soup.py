"""The learned soup: its gradient, its identities, and that it learns."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from harness.checks.pools import CNN, CNN_BN, MLP, fine_tunes, split, trained
from harness.evaluate.heldout import predict_module
from harness.merging.arithmetic import average
from harness.merging.learned_soup import Descent, MixLoss, learn_mix, mix
from harness.models.architectures import build
from harness.models.weights import module_with
from harness.systems.fitting import nll
from harness.types import Architecture

HELDOUT = split("heldout")


def states(pool):
    return [member.weights for member in pool.members]


def learn(models, architecture=CNN, **changes):
    options = {"by_layer": False, "temperature": False, "descent": Descent(epochs=5, batch_size=10), **changes}
    generator = torch.Generator().manual_seed(0)
    module = options.pop("module", None) or build(architecture).eval()
    return learn_mix(module, models, HELDOUT, generator=generator, **options)


def heldout_loss(weights, architecture=CNN):
    return nll(predict_module(module_with(architecture, weights), HELDOUT), HELDOUT.labels)


@pytest.mark.parametrize("architecture", [CNN, CNN_BN, MLP], ids=lambda a: a.name)
@pytest.mark.parametrize("by_layer", [False, True])
def test_the_mix_has_the_loss_that_was_fitted_and_is_no_worse_than_uniform(architecture, by_layer):
    models = states(fine_tunes(3, architecture))
    found = learn(models, architecture, by_layer=by_layer)
    assert found.losses[0] == pytest.approx(heldout_loss(average(models), architecture), rel=1e-4)
    assert heldout_loss(mix(models, found), architecture) == pytest.approx(min(found.losses), rel=1e-4)
    for shares in found.shares.values():
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert min(shares) >= 0


@pytest.mark.parametrize("by_layer", [False, True])
def test_it_is_about_as_good_as_the_best_of_uniform_and_every_member(by_layer):
    models = states(fine_tunes(4))
    found = learn(models, by_layer=by_layer, descent=Descent(epochs=20, batch_size=10))
    losses = [heldout_loss(w) for w in (*models, average(models))]
    assert heldout_loss(mix(models, found)) <= min(losses) + 0.01 < max(losses)


@pytest.mark.parametrize("by_layer", [False, True])
def test_it_leaves_out_a_member_that_harms(by_layer):
    good, generator = trained(CNN, 0), torch.Generator().manual_seed(0)
    harmful = {n: t + torch.randn(t.shape, generator=generator) for n, t in good.items()}
    found = learn([good, harmful], by_layer=by_layer, descent=Descent(epochs=20))
    assert all(shares[0] > 0.8 for shares in found.shares.values())
    assert min(found.losses) < 0.5 * found.losses[0]


@pytest.mark.parametrize("by_layer", [False, True])
@pytest.mark.parametrize("architecture", [CNN, CNN_BN], ids=lambda a: a.name)
def test_its_gradient_is_the_chain_rules(architecture, by_layer):
    """dL/da_k = p_k (dL/dtheta . (theta_k - sum_j p_j theta_j)), p = softmax(a), summed over a group's tensors."""
    models = states(fine_tunes(3, architecture))
    fit = MixLoss(build(architecture).eval(), models, by_layer)
    with torch.no_grad():
        fit.scores.copy_(torch.randn(fit.scores.shape, generator=torch.Generator().manual_seed(0)))
    fit.loss(HELDOUT.inputs, HELDOUT.labels).backward()
    shares = fit.shares()
    mixed = {n: torch.tensordot(shares[g].detach(), fit.stacks[n], dims=1) for n, g in fit.groups.items()}
    module = module_with(architecture, {**models[0], **mixed})
    nn.functional.cross_entropy(module(HELDOUT.inputs), HELDOUT.labels).backward()
    for group, share, found in zip(shares, shares.values(), fit.scores.grad, strict=True):
        expected = torch.zeros(3)
        for name, parameter in module.named_parameters():
            if fit.groups[name] == group:
                slopes = (parameter.grad * (fit.stacks[name] - mixed[name])).flatten(1).sum(dim=1)
                expected += share.detach() * slopes
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_it_is_adamw_on_the_scores_with_no_weight_decay():
    models = states(fine_tunes(3))
    found = learn(models, descent=Descent(lr=0.1, epochs=4, batch_size=len(HELDOUT)))
    fit = MixLoss(build(CNN).eval(), models, False)
    first, second = torch.zeros(1, 3), torch.zeros(1, 3)
    for step in range(1, 5):
        (slope,) = torch.autograd.grad(fit.loss(HELDOUT.inputs, HELDOUT.labels), fit.scores)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope.square()
        change = 0.1 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        fit.scores = (fit.scores.detach() - change).requires_grad_()
    assert found.losses[-1] == min(found.losses)
    expected = fit.shares()["model"].detach()
    torch.testing.assert_close(torch.tensor(found.shares["model"]), expected, rtol=1e-4, atol=1e-5)


def test_one_member_is_itself_bit_for_bit():
    (only,) = states(fine_tunes(1))
    found = learn([only])
    assert found.shares == {"model": [1.0]}
    assert all(torch.equal(mix([only], found)[n], t) for n, t in only.items())


def test_each_layer_has_its_own_shares_and_a_layers_tensors_the_same():
    models = states(fine_tunes(2))
    found = learn(models, by_layer=True)
    assert list(found.shares) == ["trunk.0", "trunk.2", "hidden", "head.2"]
    assert len({tuple(shares) for shares in found.shares.values()}) == 4
    merged = mix(models, found)
    for name in ("head.2.weight", "head.2.bias"):
        expected = sum(share * m[name] for share, m in zip(found.shares["head.2"], models, strict=True))
        torch.testing.assert_close(merged[name], expected)


def test_the_temperature_is_fitted_where_asked_and_helps_an_over_confident_pool():
    sharp = [{n: 4 * t if n.startswith("head") else t for n, t in w.items()} for w in states(fine_tunes(3))]
    fixed, fitted = (learn(sharp, temperature=on, descent=Descent(epochs=20)) for on in (False, True))
    assert fixed.temperature == 1.0
    assert fitted.temperature > 1.2
    assert min(fitted.losses) < min(fixed.losses)


def test_a_rate_that_diverges_still_gives_the_best_that_was_met():
    models = states(fine_tunes(3))
    found = learn(models, descent=Descent(lr=1e3, epochs=3))
    assert min(found.losses) <= found.losses[0]
    assert heldout_loss(mix(models, found)) == pytest.approx(min(found.losses), rel=1e-4)


def test_the_members_and_the_global_generator_are_left_alone():
    models = states(fine_tunes(2))
    before = [{n: t.clone() for n, t in m.items()} for m in models]
    module = build(CNN).eval()
    state = torch.random.get_rng_state()
    learn(models, module=module)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(m[n], t) for m, b in zip(models, before, strict=True) for n, t in b.items())


def test_a_language_model_is_mixed_too():
    llama = Architecture("tiny_llama", (("heads", 2), ("hidden", 16), ("layers", 1), ("vocab", 11)))
    torch.manual_seed(0)
    models = [build(llama).state_dict() for _ in range(2)]
    windows = torch.randint(11, (12, 6))
    examples = replace(HELDOUT, inputs=windows, labels=windows[:, 1:].flatten(), batch=5)
    found = learn_mix(
        build(llama).eval(),
        models,
        examples,
        by_layer=True,
        temperature=True,
        descent=Descent(),
        generator=torch.Generator().manual_seed(0),
    )
    merged = mix(models, found)
    assert merged["lm_head.weight"].data_ptr() == merged["model.embed_tokens.weight"].data_ptr()
    assert isinstance(module_with(llama, merged), nn.Module)
    assert min(found.losses) <= found.losses[0]
