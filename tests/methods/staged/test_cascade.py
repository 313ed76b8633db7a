"""Cascades on real small networks: the laws of their thresholds, and stages of every kind."""

import pytest
import torch

from harness.checks.pools import (
    CNN,
    MLP,
    build_method,
    fine_tunes,
    independent,
    member,
    on_test,
    plain_predict,
    split,
    trained,
)
from harness.cost.relative import CALLS, relative_costs
from harness.errors import BadInput
from harness.registry import METHODS
from harness.systems.fitting import accuracy
from harness.systems.parts import MemberPart
from harness.systems.systems import SingleModel
from harness.types import NotApplicable, Pool

POOL = independent(3)
KINDS = ("confidence", "margin", "entropy", "agreement")


def run(combination):
    with torch.inference_mode():
        return combination.run(split("test").inputs)


def cost(combination):
    """Mean calls on test."""
    return float(run(combination)[1].sum(dim=1).double().mean())


@pytest.mark.parametrize("accept", KINDS)
def test_accepting_always_is_the_first_and_never_the_last_at_the_summed_cost(accept):
    stages = ["0+1", "0+1+2"]
    for threshold, same, calls in ((0.0, [0, 1], [1, 1, 0]), (1.5, [0, 1, 2], [1, 1, 1])):
        found = build_method("cascade", POOL, stages=stages, accept=accept, threshold=threshold)
        expected = build_method("linear", POOL.subset(same))
        log_probs, called = run(found)
        torch.testing.assert_close(log_probs, on_test(expected))
        assert called.unique(dim=0).tolist() == [calls]


@pytest.mark.parametrize("accept", KINDS)
def test_a_higher_threshold_never_costs_less(accept):
    costs = [
        cost(build_method("cascade", POOL, stages=["0+1", 2], accept=accept, threshold=threshold))
        for threshold in torch.linspace(0, 1.1, 12).tolist()
    ]
    assert costs == sorted(costs)
    assert costs[0] == 2
    assert costs[-1] == 3


def heldout(combination):
    """Accuracy and mean calls on held-out."""
    with torch.inference_mode():
        log_probs, calls = combination.run(split("heldout").inputs)
    return accuracy(log_probs, split("heldout").labels), float(calls.sum(dim=1).double().mean())


@pytest.mark.parametrize("accept", KINDS)
@pytest.mark.parametrize("stages", [["0+1", "0+1+2"], ["0+1", 2], ["1+2", "uniform_soup", "linear"]])
def test_on_heldout_it_is_as_good_as_every_stage_of_its_cost_and_costs_what_it_says(stages, accept):
    pool = fine_tunes(3)
    found = build_method("cascade", pool, stages=stages, accept=accept)
    score, calls = heldout(found)
    said = found.details["heldout"]
    assert score == pytest.approx(said["accuracy"], rel=1e-5)
    everything = len(build_method("cascade", pool, stages=stages, accept=accept, threshold=1.5).parts())
    assert calls == pytest.approx(said["cost"] * everything, rel=1e-5)
    for stage in stages:
        alone = build_method("cascade", pool, stages=[stage, "linear"], threshold=0.0)
        alone_score, alone_calls = heldout(alone)
        assert alone_calls > calls + 1e-9 or alone_score <= score + 1e-9


@pytest.mark.parametrize("share", [0.5, 0.7, 1.0])
def test_a_budget_is_kept_on_heldout_and_nothing_within_it_is_better(share):
    found = build_method("cascade", POOL, stages=[0, "0+1+2"], cost=share)
    score, calls = heldout(found)
    assert calls <= 3 * share + 1e-9
    values = plain_predict(MemberPart(POOL.members[0]), split("heldout")).exp().amax(dim=1).unique()
    for threshold in [*((values[1:] + values[:-1]) / 2).tolist(), 0.0, 1.5]:
        other, of_other = heldout(build_method("cascade", POOL, stages=[0, "0+1+2"], threshold=threshold))
        assert of_other > 3 * share + 1e-9 or other <= score + 1e-9


def test_a_quality_is_kept_at_the_least_cost():
    first, last = (heldout(build_method("member", POOL, index=0))[0], heldout(build_method("linear", POOL))[0])
    costs = []
    for share in (0.0, 0.5, 1.0):
        found = build_method("cascade", POOL, stages=[0, "0+1+2"], quality=share)
        score, calls = heldout(found)
        assert score >= first + share * (last - first) - 1e-9
        costs.append(calls)
    assert costs == sorted(costs)
    assert last <= first or costs[-1] > costs[0]


def test_a_stage_can_be_a_soup_or_any_combination():
    pool = fine_tunes(3)
    found = build_method("cascade", pool, stages=["uniform_soup", "linear"], threshold=0.7)
    soup = build_method("uniform_soup", pool)
    said, everyone = on_test(soup), on_test(build_method("linear", pool))
    goes_on = said.exp().amax(dim=1) < 0.7
    assert goes_on.any()
    assert not goes_on.all()
    torch.testing.assert_close(on_test(found), torch.where(goes_on[:, None], everyone, said), atol=1e-5, rtol=1e-5)
    assert isinstance(found.stages[0], SingleModel)


def test_combine_mean_is_the_mean_of_the_stages_so_far():
    found = build_method("cascade", POOL, stages=[0, "1+2"], combine="mean", threshold=1.5)
    said = torch.stack([plain_predict(MemberPart(m), split("test")) for m in POOL.members]).double().exp()
    expected = (0.5 * said[0] + 0.25 * said[1] + 0.25 * said[2]).log().float()
    torch.testing.assert_close(on_test(found), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(NotApplicable, match="weighted mean"):
        build_method("cascade", POOL, stages=[0, "log_linear"], combine="mean")


def test_ties_are_broken_alike_for_every_order_of_examples():
    found = build_method("cascade", POOL, stages=["0+1", "linear"], accept="agreement", threshold=1.0)
    inputs = split("test").inputs
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        one, calls = found.run(inputs)
        two, others = found.run(inputs[order])
    torch.testing.assert_close(one[order], two)
    assert torch.equal(calls[order], others)


def test_costs_are_flops_and_stages_of_other_networks_cost_what_they_do():
    members = (member("cnn", trained(CNN, 0)), member("mlp", trained(MLP, 0), MLP, start="other"))
    pool = Pool("mixed", "architectures", members)
    (cnn, mlp), unit = relative_costs([MemberPart(m) for m in members], split("heldout"))
    assert unit == "FLOPs"
    assert cnn != mlp
    found = build_method("cascade", pool, stages=[1, 0])
    assert found.details["stage_costs"] == pytest.approx([mlp / (cnn + mlp), 1.0])


def test_a_single_stage_is_taken_where_no_thresholds_beat_it():
    """The last stage, where the first one knows nothing: asking both costs more, and helps nobody."""
    weights = {name: torch.zeros_like(tensor) for name, tensor in trained(CNN, 0).items()}
    pool = Pool("one", "independent", (member("blind", weights), *POOL.members[:1]))
    found = build_method("cascade", pool, stages=[0, 1])
    best = heldout(build_method("member", pool, index=1))[0]
    assert heldout(found) == pytest.approx((best, found.details["heldout"]["cost"] * 2), rel=1e-5)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"stages": [0, 7]}, "no member 7"),
        ({"cost": 0.1}, "first stage alone takes"),
        ({"cost": 0.5, "quality": 0.5}, "one of them is enough"),
        ({"accept": "agreement", "stages": [0, "linear"]}, "always agrees with itself"),
    ],
)
def test_what_cannot_be_says_why(parameters, reason):
    with pytest.raises(NotApplicable, match=reason):
        build_method("cascade", POOL, **parameters)


@pytest.mark.parametrize(
    ("stages", "problem"),
    [(["best_sinlge", "linear"], "did you mean 'best_single'"), (["cascade", "linear"], "without stages"),
     ([0], "it takes"), ([-1, 0], "counted from 0"), (["0+", "linear"], "unknown method")],
)  # fmt: skip
def test_bad_stages_are_one_line(stages, problem):
    with pytest.raises(BadInput, match=problem) as caught:
        METHODS.get("cascade").validate({"stages": stages}, "suite.yaml:3")
    assert str(caught.value).startswith("suite.yaml:3: ")
    assert "\n" not in str(caught.value)


def test_of_answers_agreement_is_enough_and_the_stages_vote():
    members = [type(m)(**{**vars(m), "says": "answers"}) for m in POOL.members]
    pool = Pool(POOL.name, POOL.kind, tuple(members))
    found = build_method("cascade", pool, stages=["0+1", "0+1+2"], accept="agreement", threshold=1.0)
    votes = torch.stack([plain_predict(MemberPart(m), split("test")).argmax(dim=1) for m in POOL.members])
    agree = votes[0] == votes[1]
    assert found.says == "answers"
    assert run(found)[1][:, 2].bool().tolist() == (~agree).tolist()
    with pytest.raises(NotApplicable, match="answers without probabilities"):
        build_method("cascade", pool, stages=["0+1", "0+1+2"])


def test_where_operations_cannot_be_counted_costs_are_calls():
    parts = [MemberPart(m) for m in POOL.members[:2]]
    for part in parts:
        part.log_probs = lambda batch: torch.zeros(len(batch), 3).log_softmax(dim=1)
    assert relative_costs(parts, split("heldout")) == ([1.0, 1.0], CALLS)
