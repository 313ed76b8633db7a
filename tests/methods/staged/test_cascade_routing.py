"""Cascade routing, fitted on held-out: the laws at the ends of its dials."""

import pytest
import torch

from harness.checks.pools import (
    CNN,
    MLP,
    build_method,
    independent,
    member,
    on_test,
    plain_predict,
    split,
    trained,
)
from harness.types import NotApplicable, Pool

POOL = independent(3)


def run(combination, name="test"):
    with torch.inference_mode():
        return combination.run(split(name).inputs)


def in_order_of_cost():
    """A cheap member and a dear one, in this order."""
    return Pool(
        "mixed",
        "architectures",
        (member("mlp", trained(MLP, 0), MLP, start="other"), member("cnn", trained(CNN, 0)), *independent(1).members),
    )


@pytest.mark.parametrize("router", ["logistic", "neighbours"])
@pytest.mark.parametrize("settings", [{}, {"price": 0.02}, {"cost": 0.6}])
def test_with_one_decision_it_is_the_router(router, settings):
    pool = in_order_of_cost()
    routed = build_method("routed_members", pool, router=router, **settings)
    positions = {m.name: k for k, m in enumerate(pool.members)}
    order = [positions[part.name] for part in routed.members]
    first = order[routed.asked]
    stages = [first, *(k for k in order if k != first)]
    found = build_method("cascade_routing", pool, stages=stages, router=router, decisions=1, **settings)
    assert found.details["heldout"] == pytest.approx(routed.details["heldout"])
    ours, theirs = run(found), run(routed)
    torch.testing.assert_close(ours[0], theirs[0])
    of_part = {part.name: ours[1][:, k] for k, part in enumerate(found.parts())}
    for k, part in enumerate(routed.members):
        assert torch.equal(of_part[part.name], theirs[1][:, k]), part.name


def test_at_any_price_the_cheapest_is_left():
    pool = in_order_of_cost()
    found = build_method("cascade_routing", pool, price=1e9)
    first = found.parts()[0]
    assert first.name == min(zip(found.shares, (p.name for p in found.parts()), strict=True))[1]
    torch.testing.assert_close(on_test(found), plain_predict(first, split("test")))
    assert run(found)[1].sum(dim=1).tolist() == [1] * len(split("test"))


def test_stages_that_are_not_given_grow_to_the_whole_pool():
    found = build_method("cascade_routing", independent(5))
    assert [len(names) for names in found.details["stages"]] == [1, 2, 4, 5]
    everything = [part.log_probs for part in found.stages[-1].parts()]
    assert len(everything) == 5
    for before, after in zip(found.details["stages"], found.details["stages"][1:], strict=False):
        assert before == after[: len(before)]


@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
def test_a_budget_is_kept_on_heldout_where_the_routers_have_not_seen_the_examples(share):
    found = build_method("cascade_routing", POOL, cost=share)
    assert found.details["heldout"]["cost"] <= share + 1e-9
    affordable = [point["accuracy"] for point in found.details["curve"] if point["cost"] <= share + 1e-9]
    assert found.details["heldout"]["accuracy"] == max(affordable)


def test_the_paths_are_told_with_their_shares():
    found = build_method("cascade_routing", POOL, price=0.0)
    assert sum(path["share"] for path in found.details["paths"]) == pytest.approx(1)
    assert all(path["stages"][0] == 0 for path in found.details["paths"])


def test_methods_may_be_stages():
    found = build_method("cascade_routing", POOL, stages=["best_single", "uniform_soup", "linear"], price=0.0)
    assert len(found.stages) == 3
    assert len(found.parts()) == 4  # three members, one of which is the first stage, and the soup


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"price": 1.0, "cost": 0.5}, "one of them is enough"),
        ({"cost": 0.1}, "is the least"),
        ({"stages": [0, 7]}, "there is no member 7: the pool has 3"),
    ],
)
def test_what_cannot_be_says_why(parameters, reason):
    with pytest.raises(NotApplicable, match=reason):
        build_method("cascade_routing", POOL, **parameters)


def test_one_member_leaves_nothing_to_decide():
    with pytest.raises(NotApplicable, match="one stage leaves nothing to decide"):
        build_method("cascade_routing", independent(1))
