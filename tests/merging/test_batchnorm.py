"""Recomputed BatchNorm statistics against those worked out by hand, and all that must be left alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from harness.merging.batchnorm import recalibrate, shared_statistics
from harness.types import NotApplicable

SIZES = (5, 5, 2, 7)
"""Unequal batches: a mean over batches that are counted alike would be another one."""


def inputs(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 + 2 * torch.randn(sum(SIZES), *shape, generator=generator)


def unbiased(batch):
    """Mean and variance of each channel of [B, C, ...] in float64, divided by n - 1 as BatchNorm keeps it."""
    values = np.moveaxis(batch.double().numpy(), 1, 0).reshape(batch.shape[1], -1)
    return values.mean(axis=1), values.var(axis=1, ddof=1)


def averaged_by_hand(batches):
    """Statistics of each batch, averaged with weights proportional to the batches' sizes."""
    statistics = [unbiased(batch) for batch in batches]
    weights = np.array([len(batch) for batch in batches]) / sum(map(len, batches))
    return [sum(w * s[i] for w, s in zip(weights, statistics, strict=True)) for i in (0, 1)]


def assert_statistics(layer, expected):
    np.testing.assert_allclose(layer.running_mean.double().numpy(), expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.running_var.double().numpy(), expected[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.BatchNorm1d(3), (3,)), (nn.BatchNorm1d(3), (3, 6)), (nn.BatchNorm2d(3), (3, 4, 5))],
    ids=["vectors", "sequences", "images"],
)
def test_statistics_are_those_of_the_batches_weighted_by_their_sizes(layer, shape):
    batches = inputs(*shape).split(SIZES)
    layer.running_mean.fill_(1e6)  # what was there before is forgotten
    layer.running_var.fill_(1e6)
    recalibrate(layer, batches)
    assert_statistics(layer, averaged_by_hand(batches))


def test_the_mean_is_that_of_all_examples_however_they_are_cut_into_batches():
    whole = inputs(3)
    layer = nn.BatchNorm1d(3)
    for sizes in (SIZES, (len(whole),), (2,) * 8 + (3,)):
        recalibrate(layer, whole.split(sizes))
        np.testing.assert_allclose(layer.running_mean.numpy(), whole.double().mean(dim=0).numpy(), rtol=1e-5)


def test_a_deep_layer_sees_what_the_layers_below_make_of_each_batch():
    """Below, a batch is normalised by its own statistics, as in training; dropout is off throughout."""
    torch.manual_seed(0)
    first, second = nn.BatchNorm1d(4), nn.BatchNorm1d(6)
    linear = nn.Linear(4, 6)
    batches = inputs(4).split(SIZES)
    recalibrate(nn.Sequential(first, nn.ReLU(), nn.Dropout(0.9), linear, second), batches)
    hidden = []
    for batch in batches:
        values = batch.double()
        normalised = (values - values.mean(dim=0)) / (values.var(dim=0, unbiased=False) + first.eps).sqrt()
        hidden.append(normalised.relu() @ linear.weight.double().T + linear.bias.double())
    assert_statistics(first, averaged_by_hand(batches))
    assert_statistics(second, averaged_by_hand([h.detach() for h in hidden]))


def test_afterwards_the_module_normalises_with_them():
    module = nn.Sequential(nn.BatchNorm1d(3))
    batches = inputs(3).split(SIZES)
    recalibrate(module, batches)
    mean, variance = averaged_by_hand(batches)
    example = inputs(3, seed=1)[:4]
    expected = (example.double().numpy() - mean) / np.sqrt(variance + module[0].eps)
    np.testing.assert_allclose(module.eval()(example).detach().double().numpy(), expected, rtol=1e-4, atol=1e-5)


def network():
    return nn.Sequential(
        nn.Linear(3, 3), nn.BatchNorm1d(3, momentum=0.3), nn.Dropout(0.5), nn.BatchNorm1d(3, momentum=None)
    )


def flags(module):
    return [part.training for part in module.modules()]


@pytest.mark.parametrize("training", [True, False])
def test_flags_and_momenta_are_put_back_and_weights_are_not_touched(training):
    module = network().train(training)
    module[1].training = not training  # a mixture, so that "all on" and "all off" are both wrong
    before, weights = flags(module), [p.clone() for p in module.parameters()]
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    recalibrate(module, inputs(3).split(SIZES))
    assert flags(module) == before
    assert (module[1].momentum, module[3].momentum) == (0.3, None)
    assert all(torch.equal(p, w) for p, w in zip(module.parameters(), weights, strict=True))
    assert all(p.grad is None for p in module.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_they_are_put_back_after_a_batch_that_fails_too():
    module = network().train()
    module[2].eval()
    before = flags(module)
    with pytest.raises(RuntimeError, match="shape"):
        recalibrate(module, [inputs(3), inputs(4)])
    assert flags(module) == before
    assert (module[1].momentum, module[3].momentum) == (0.3, None)


def test_a_model_without_batchnorm_is_not_run():
    def never():
        raise AssertionError("a batch was asked for")
        yield

    for module in (nn.Sequential(nn.Linear(3, 3), nn.Dropout()), nn.BatchNorm1d(3, track_running_stats=False)):
        before = flags(module)
        recalibrate(module, never())
        assert flags(module) == before


def test_without_inputs_there_are_no_statistics_and_what_has_none_to_keep_does_without():
    module = network().train()
    before = flags(module)
    for nothing in ([], [inputs(3)[:0]]):
        with pytest.raises(NotApplicable, match="there are none"):
            recalibrate(module, nothing)
        assert flags(module) == before
    recalibrate(nn.Linear(3, 3), [])


def test_layers_that_keep_no_statistics_are_left_in_eval_beside_those_that_do():
    keeps, keeps_not = nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False)
    recalibrate(nn.Sequential(keeps, keeps_not), inputs(3).split(SIZES))
    assert_statistics(keeps, averaged_by_hand(inputs(3).split(SIZES)))
    assert keeps_not.running_mean is None


# Statistics that models share.


def states(count, layers=("1", "3")):
    """Weights of networks that start as copies, and the names of all their statistics."""
    module = network()
    recalibrate(module, [inputs(3)])
    names = {f"{layer}.{statistic}" for layer in layers for statistic in ("running_mean", "running_var")}
    return [{n: t.clone() for n, t in module.state_dict().items()} for _ in range(count)], names


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["1", "3"]), st.sampled_from(["mean", "var"])), max_size=3),
)
def test_a_layer_is_shared_where_neither_its_mean_nor_its_variance_differs_in_any_model(count, changes):
    models, names = states(count)
    for model, layer, statistic in changes:
        if 0 < model < count:  # the first is what others are held against
            models[model][f"{layer}.running_{statistic}"][0] += 1e-6
            names -= {f"{layer}.running_mean", f"{layer}.running_var"}
    found = shared_statistics(models)
    assert set(found) == names
    assert all(torch.equal(found[n], models[0][n]) for n in names)


def test_other_weights_and_counters_are_no_statistics():
    models, names = states(2)
    for name, tensor in models[1].items():
        if name not in names:
            tensor += 1
    assert set(shared_statistics(models)) == names
    assert shared_statistics([nn.Linear(2, 2).state_dict()] * 2) == {}
    assert set(shared_statistics([nn.BatchNorm1d(2).state_dict()] * 2)) == {"running_mean", "running_var"}


def test_layers_that_are_kept_normalise_with_what_they_have_while_the_others_are_measured():
    module = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    module[0].running_mean.copy_(torch.tensor([1.0, -2.0, 5.0]))
    module[0].running_var.copy_(torch.tensor([0.5, 4.0, 9.0]))
    before = {n: t.clone() for n, t in module[0].state_dict().items()}
    batches = inputs(3).split(SIZES)
    recalibrate(module, batches, keep={"0.running_mean", "0.running_var"})
    assert all(torch.equal(module[0].state_dict()[n], t) for n, t in before.items())
    with torch.no_grad():
        assert_statistics(module[1], averaged_by_hand([module[0].eval()(batch) for batch in batches]))


def test_nothing_is_run_where_all_are_kept():
    (state, *_), names = states(1)
    module = network()
    module.load_state_dict(state)
    recalibrate(module, [], keep=names)
    assert all(torch.equal(module.state_dict()[n], state[n]) for n in names)
