"""Routed members: the laws at the ends of their dials, and the whole against a plain loop."""

import pytest
import torch

from harness.checks.pools import (
    CNN,
    MLP,
    build_method,
    copied,
    independent,
    member,
    on_test,
    plain_predict,
    split,
    trained,
)
from harness.systems.fitting import accuracy
from harness.systems.parts import MemberPart
from harness.systems.routers import evidence_of
from harness.types import NotApplicable, Pool

POOL = independent(3)
ROUTERS = [(by, router) for by in ("prediction", "inputs") for router in ("logistic", "neighbours")]


def of_two_sizes():
    members = (member("cnn", trained(CNN, 0)), member("mlp", trained(MLP, 0), MLP, start="other"))
    return Pool("mixed", "architectures", members)


def run(combination, name="test"):
    with torch.inference_mode():
        return combination.run(split(name).inputs)


@pytest.mark.parametrize(("by", "router"), ROUTERS)
def test_all_members_are_the_linear_ensemble(by, router):
    found = build_method("routed_members", POOL, by=by, router=router, pick=3)
    torch.testing.assert_close(on_test(found), on_test(build_method("linear", POOL)), atol=1e-5, rtol=1e-5)
    assert run(found)[1].unique(dim=0).tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(("by", "router"), ROUTERS)
def test_at_any_price_the_cheapest_is_left(by, router):
    pool = of_two_sizes()
    found = build_method("routed_members", pool, by=by, router=router, price=1e9)
    costs = found.details["member_costs"]
    cheapest = min(range(2), key=costs.__getitem__)
    assert costs[cheapest] < 0.5
    name = found.members[cheapest].name
    expected = plain_predict(MemberPart(next(m for m in pool.members if m.name == name)), split("test"))
    torch.testing.assert_close(on_test(found), expected)
    assert run(found)[1][:, 1 - cheapest].sum() == 0


@pytest.mark.parametrize(("by", "router"), ROUTERS)
def test_it_is_a_plain_loop(by, router):
    found = build_method("routed_members", POOL, by=by, router=router, price=0.0)
    said = {part.name: plain_predict(part, split("test")) for part in found.members}
    log_probs, calls = run(found)
    for row, inputs in enumerate(split("test").inputs):
        asked = found.members[found.asked].name if by == "prediction" else None
        evidence = evidence_of(said[asked][row : row + 1]) if asked else inputs.reshape(1, -1)
        best = found.members[int(found.router(evidence)[0].argmax())].name
        torch.testing.assert_close(log_probs[row], said[best][row], atol=1e-5, rtol=1e-5)
        assert {part.name for part, n in zip(found.members, calls[row], strict=True) if n} == {best} | {asked} - {None}
    if router == "logistic":  # 32 neighbours are half of all that it has seen
        assert len(calls.unique(dim=0)) > 1


@pytest.mark.parametrize("share", [0.4, 0.7, 1.0])
def test_a_budget_is_kept_on_heldout_where_the_router_has_not_seen_the_examples(share):
    found = build_method("routed_members", POOL, cost=share)
    assert found.details["heldout"]["cost"] <= share + 1e-9
    curve = found.details["curve"]
    affordable = [point["accuracy"] for point in curve if point["cost"] <= share + 1e-9]
    assert found.details["heldout"]["accuracy"] == max(affordable)


def test_a_dearer_price_never_costs_more_where_one_is_picked():
    pool = of_two_sizes()
    costs = [point["cost"] for point in build_method("routed_members", pool).details["curve"]]
    assert costs == sorted(costs, reverse=True)


def test_a_router_finds_who_knows_what():
    """Two members, each of which is blind to some of the inputs: the router beats both."""
    weights = trained(CNN, 0)
    blind = []
    for label in (0, 1):
        changed = copied(weights)
        bias = next(name for name in reversed(changed) if changed[name].shape == (3,))
        changed[bias][label] -= 100.0
        blind.append(member(f"not_{label}", changed, start=f"start {label}"))
    pool = Pool("blind", "independent", tuple(blind))
    truth = split("test").labels
    single = max(accuracy(plain_predict(MemberPart(m), split("test")), truth) for m in pool.members)
    for router in ("logistic", "neighbours"):
        found = on_test(build_method("routed_members", pool, by="inputs", router=router))
        assert accuracy(found, truth) > single


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"price": 1.0, "cost": 0.5}, "one of them is enough"),
        ({"pick": 4}, "the pool has 3"),
        ({"cost": 0.1}, "is the least"),
    ],
)
def test_what_cannot_be_says_why(parameters, reason):
    with pytest.raises(NotApplicable, match=reason):
        build_method("routed_members", POOL, **parameters)
