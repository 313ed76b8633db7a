"""The method around the learned soup: what is learned, on held-out, and what is left out."""

import pytest
import torch

from harness.checks.pools import CNN, CNN_BN, build_method, copies, fine_tunes, independent, split
from harness.evaluate.heldout import predict_module
from harness.systems.fitting import nll


@pytest.mark.parametrize("architecture", [CNN, CNN_BN], ids=lambda a: a.name)
def test_one_member_is_itself_bit_for_bit(architecture):
    only = fine_tunes(1, architecture)
    found = build_method("learned_soup", only)
    assert found.details == {"weights": [1.0]}
    assert all(torch.equal(found.module.state_dict()[n], t) for n, t in only.members[0].weights.items())


@pytest.mark.parametrize("by_layer", [False, True])
def test_the_soup_is_the_members_mixed_by_the_reported_weights(by_layer):
    pool = fine_tunes(3)
    found = build_method("learned_soup", pool, by_layer=by_layer)
    shares = found.details["weights"]
    for name, tensor in found.module.state_dict().items():
        of_layer = shares[name.rpartition(".")[0]] if by_layer else shares
        expected = sum(share * m.weights[name] for share, m in zip(of_layer, pool.members, strict=True))
        torch.testing.assert_close(tensor, expected)
    assert len(found.details["heldout_loss"]) == 1 + 5


def test_without_a_temperature_the_reported_loss_is_the_soups():
    heldout = split("heldout")
    found = build_method("learned_soup", fine_tunes(3), temperature=False)
    assert found.details["temperature"] == 1.0
    loss = nll(predict_module(found.module, heldout), heldout.labels)
    assert loss == pytest.approx(min(found.details["heldout_loss"]), rel=1e-4)
    uniform = nll(predict_module(build_method("uniform_soup", fine_tunes(3)).module, heldout), heldout.labels)
    assert loss <= uniform + 1e-6


def test_copies_of_one_member_are_that_member():
    pool = copies(fine_tunes(3))
    found = build_method("learned_soup", pool).module.state_dict()
    for name, tensor in pool.members[0].weights.items():
        torch.testing.assert_close(found[name], tensor)


def test_members_from_different_starts_warn():
    assert "2 different initialisations" in build_method("learned_soup", independent(2)).details["warnings"][0]
