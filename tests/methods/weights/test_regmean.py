"""The method around RegMean: on which inputs, at what cost."""

import pytest
import torch

from harness.checks.pools import CNN, CNN_BN, MLP, build_method, fine_tunes, independent, split
from harness.merging.arithmetic import average
from harness.merging.regmean import input_grams, regression_mean
from harness.models.weights import load_module


@pytest.mark.parametrize("architecture", [CNN, MLP], ids=lambda a: a.name)
def test_it_is_the_kernel_on_the_first_training_inputs_and_says_what_it_cost(architecture):
    pool = fine_tunes(3, architecture)
    found = build_method("regmean", pool, alpha=0.7, examples=25)
    grams = [input_grams(load_module(m), [split("train").inputs[:25]]) for m in pool.members]
    weights = [m.weights for m in pool.members]
    expected = regression_mean(weights, grams, 0.7)
    torch.testing.assert_close(dict(found.module.state_dict()), expected, rtol=1e-4, atol=1e-5)
    sizes = [8 * gram.numel() for gram in grams[0].values()]
    assert found.details == {"forward_passes": 75, "regressed_tensors": len(sizes), "gram_bytes": sum(sizes)}
    assert max((expected[n] - t).abs().max() for n, t in average(weights).items()) > 1e-3


def test_biases_and_norms_are_averaged():
    pool = fine_tunes(3, CNN_BN)
    found = build_method("regmean", pool).module.state_dict()
    mean = average([m.weights for m in pool.members])
    for name in ("trunk.1.weight", "trunk.1.bias", "hidden.bias", "head.2.bias"):
        torch.testing.assert_close(found[name], mean[name])


def test_it_is_nearer_to_every_members_last_layer_than_the_mean_is():
    """For the last layer's own inputs, summed over the members: what the regression is for."""
    pool = fine_tunes(3, MLP)
    merged = build_method("regmean", pool, alpha=1.0).module.state_dict()["layers.7.weight"]
    mean = average([m.weights for m in pool.members])["layers.7.weight"]

    def distance(weight):
        total = 0.0
        for m in pool.members:
            inputs = load_module(m).layers[:7](split("train").inputs).detach()
            total += float((inputs @ (weight - m.weights["layers.7.weight"]).T).square().sum())
        return total

    assert distance(merged) < distance(mean)


def test_members_from_different_starts_warn():
    assert "3 different initialisations" in build_method("regmean", independent(3)).details["warnings"][0]
