"""The method around Fisher merging: which examples, which weights of the members, what it refuses."""

import pytest
import torch

from harness.checks.pools import build_method, fine_tunes, independent, split
from harness.merging.fisher import diagonal_fisher, fisher_average
from harness.models.weights import load_module
from harness.types import NotApplicable


@pytest.mark.parametrize("on", ["heldout", "train"])
def test_it_is_the_kernel_on_the_first_examples_of_a_split(on):
    pool, examples = fine_tunes(3), split(on)
    found = build_method("fisher", pool, on=on, examples=12, weights=[1.0, 2.0, 0.5], floor=1e-4)
    fishers = [diagonal_fisher(load_module(m), examples.inputs[:12], examples.labels[:12]) for m in pool.members]
    weights = [m.weights for m in pool.members]
    expected = fisher_average(weights, fishers, [1.0, 2.0, 0.5], floor=1e-4)
    torch.testing.assert_close(dict(found.module.state_dict()), expected)
    assert found.details == {"gradients": 36}


def test_sampled_labels_are_drawn_by_the_seed_and_are_not_the_true_ones():
    pool = fine_tunes(2)
    drawn, again, true = (
        build_method("fisher", pool, labels=labels).module.state_dict() for labels in ("sampled", "sampled", "true")
    )
    assert all(torch.equal(drawn[n], again[n]) for n in drawn)
    assert any((drawn[n] - true[n]).abs().max() > 1e-4 for n in drawn)


@pytest.mark.parametrize("k", [0, 2])
def test_a_member_with_all_the_weight_is_the_result(k):
    pool = fine_tunes(3)
    found = build_method("fisher", pool, weights=[float(i == k) for i in range(3)]).module.state_dict()
    for name, tensor in pool.members[k].weights.items():
        torch.testing.assert_close(found[name], tensor)


def test_what_it_refuses_and_warns_of():
    pool = fine_tunes(3)
    with pytest.raises(NotApplicable, match="2 weights are given for 3 members"):
        build_method("fisher", pool, weights=[1.0, 1.0])
    for weights in ([0.0, 0.0, 0.0], [1.0, -0.1, 1.0]):
        with pytest.raises(NotApplicable, match="none is negative and one is above 0"):
            build_method("fisher", pool, weights=weights)
    assert "2 different initialisations" in build_method("fisher", independent(2)).details["warnings"][0]
