"""The method around Model Stock's ratio: the base it needs, and what it says of members that disagree."""

from dataclasses import replace

import pytest
import torch

from harness.checks.pools import build_method, fine_tunes, independent, member
from harness.merging.model_stock import model_stock
from harness.types import NotApplicable


@pytest.mark.parametrize("filter_wise", [False, True])
def test_it_is_the_kernel_on_the_pools_base(filter_wise):
    pool = fine_tunes(3)
    found = build_method("model_stock", pool, filter_wise=filter_wise)
    weights, ratios = model_stock(pool.base.weights, [m.weights for m in pool.members], filter_wise=filter_wise)
    torch.testing.assert_close(dict(found.module.state_dict()), weights)
    told = found.details["ratios"]
    assert (told["least"], told["largest"]) == (min(ratios), max(ratios))
    assert told["mean"] == pytest.approx(sum(ratios) / len(ratios))


def test_members_whose_updates_point_apart_are_warned_of():
    pool = fine_tunes(1)
    base, tuned = pool.base.weights, pool.members[0].weights
    mirrored = {n: t - 0.5 * (tuned[n] - t) + 0.1 * t.abs().mean() for n, t in base.items()}
    found = build_method("model_stock", replace(pool, members=(pool.members[0], member("mirror", mirrored))))
    assert found.details["ratios"]["least"] < 0
    assert "point away from each other" in found.details["warnings"][0]


def test_it_needs_two_members_and_a_base():
    with pytest.raises(NotApplicable, match="angle between two fine-tunes"):
        build_method("model_stock", fine_tunes(1))
    with pytest.raises(NotApplicable, match="no base model"):
        build_method("model_stock", independent(2))
