"""What each output method promises beyond the contract that all methods share."""

import math
from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from harness.checks.pools import (
    CNN,
    CNN_BN,
    MLP,
    build_method,
    checkpoints,
    ingredients,
    member,
    on_test,
    plain_predict,
    split,
    trained,
)
from harness.errors import BadInput
from harness.models.training import Schedule, train
from harness.models.weights import module_with
from harness.pools.training import TrainingPlan
from harness.registry import METHODS
from harness.store import Store
from harness.systems.dropout import DropoutPass, dropout_layers, has_dropout
from harness.systems.fitting import accuracy, nll
from harness.systems.parts import MemberPart
from harness.systems.rules import Contrast, Linear
from harness.types import NotApplicable, Pool, Split


@cache
def skilled(k):
    """Weights that know most of the examples, each its own: sure enough for votes and weights to matter."""
    module = module_with(MLP, trained(MLP, k))
    train(module, split("train"), Schedule(8, 0.01, batch_size=20), seed=k)
    return module.state_dict()


def independent(count=3):
    return Pool("independent", "independent", tuple(member(f"i{k}", skilled(k), MLP) for k in range(count)))


def bootstrap():
    """Members with the rows that they could have been trained on."""
    rows = torch.randint(60, (3, 60), generator=torch.Generator().manual_seed(3)).tolist()
    models = [replace(m, provenance={"rows": drawn}) for m, drawn in zip(independent().members, rows, strict=True)]
    return Pool("bagged", "bootstrap", tuple(models))


@pytest.fixture(scope="module")
def pool():
    return independent()


@pytest.fixture(scope="module")
def tuned():
    """Members and a base: as the rules go, the one may be anything to the other."""
    return replace(independent(), base=member("base", trained(MLP, 3), MLP))


def stacked(models, examples):
    """Log-probabilities [M, N, C] of members, each run plainly."""
    return torch.stack([plain_predict(MemberPart(m), examples) for m in models])


def on_heldout(combination):
    """Held-out accuracy and loss."""
    log_probs = combination.combine(torch.stack([plain_predict(p, split("heldout")) for p in combination.parts()]))
    return accuracy(log_probs, split("heldout").labels), nll(log_probs, split("heldout").labels)


def heldout_singles(pool):
    return [(accuracy(p, split("heldout").labels), nll(p, split("heldout").labels)) for p in stacked_heldout(pool)]


def stacked_heldout(pool):
    return stacked(pool.members, split("heldout"))


# The members themselves


def test_best_single_has_the_best_heldout_accuracy_and_then_the_least_loss(pool):
    singles = heldout_singles(pool)
    best = min(range(3), key=lambda k: (-singles[k][0], singles[k][1]))
    found = build_method("best_single", pool)
    assert found.details["member"] == pool.members[best].name
    assert found.details["heldout_score"] == singles[best][0]
    assert torch.equal(on_test(found), stacked(pool.members, split("test"))[best])


def test_best_single_tells_equal_accuracies_apart_by_their_loss(pool):
    """The same model with its logits halved predicts the same at another loss."""
    first = pool.members[0]
    mild = {name: t / 2 if name.startswith("layers.7") else t for name, t in first.weights.items()}
    pair = (replace(first, name="a", weights=mild, digest="a"), replace(first, name="b"))
    losses = {m.name: s[1] for m, s in zip(pair, heldout_singles(Pool("pair", "independent", pair)), strict=True)}
    for order in (pair, pair[::-1]):
        found = build_method("best_single", Pool("pair", "independent", order))
        assert found.details["member"] == min(losses, key=losses.get)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("member", {"index": 3}),
        ("mc_dropout", {"member": 3, "passes": 2}),
        ("expert_anti_expert", {"on": 3, "a": 0.5}),
        ("expert_anti_expert", {"expert": 3, "a": 0.5}),
        ("expert_anti_expert", {"anti": 3, "a": 0.5}),
    ],
)
def test_a_position_past_the_pool_is_not_applicable(name, parameters, tuned):
    with pytest.raises(NotApplicable, match="no member 3: the pool has 3"):
        build_method(name, tuned, **parameters)


# Interpolations


@pytest.mark.parametrize("name", ["linear", "log_linear"])
def test_learned_weights_are_on_heldout_no_worse_than_equal_weights_and_any_single(name, pool):
    learned = on_heldout(build_method(name, pool, weights="learned"))[1]
    slack = 1e-4 if name == "log_linear" else 1e-6  # the ridge of 1e-4 pulls towards equal weights
    assert learned < on_heldout(build_method(name, pool))[1] - 0.01  # these members are not equally good
    assert learned <= min(loss for _, loss in heldout_singles(pool)) + slack


@pytest.mark.parametrize("name", ["linear", "log_linear"])
def test_learned_weights_are_reported_with_the_loss_that_they_reach(name, pool):
    for weights in ("learned", "contextual"):
        found = build_method(name, pool, weights=weights)
        assert found.details["heldout_nll"] == pytest.approx(on_heldout(found)[1], abs=1e-9)
        assert len(found.details["weights"]) == 3
        if (name, weights) != ("log_linear", "learned"):
            assert sum(found.details["weights"]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["linear", "log_linear"])
def test_given_weights_are_those_of_the_members_in_the_pools_order(name, pool):
    each = stacked(pool.members, split("test"))
    assert torch.equal(on_test(build_method(name, pool, weights=[0.0, 1.0, 0.0])), each[1])
    found = on_test(build_method(name, pool, weights=[0.2, 0.8, 0.0])).double().exp()
    p = each.double().exp()
    product = p[0] ** 0.2 * p[1] ** 0.8
    expected = 0.2 * p[0] + 0.8 * p[1] if name == "linear" else product / product.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["linear", "log_linear"])
@pytest.mark.parametrize("weights", [[], [1.0], [0.25, 0.25, 0.25, 0.25]])
def test_weights_for_another_number_of_members_are_not_applicable(name, weights, pool):
    with pytest.raises(NotApplicable, match=f"{len(weights)} weights are given for 3 members"):
        build_method(name, pool, weights=weights)


@pytest.mark.parametrize("weights", [[0.5, 0.5, 0.5], [0.0, 0.0, 0.0], [0.3, 0.3, 0.3]])
def test_linear_weights_off_the_simplex_are_not_applicable(weights, pool):
    with pytest.raises(NotApplicable, match="needs a sum of 1"):
        build_method("linear", pool, weights=weights)
    assert not on_test(build_method("log_linear", pool, weights=weights)).isnan().any()  # where any sum is allowed


def test_negative_linear_weights_are_refused(pool):
    with pytest.raises(BadInput, match="bad value"):
        build_method("linear", pool, weights=[1.5, -0.5, 0.0])


# Voting and greedy selection


def test_majority_vote_predicts_what_most_members_predict():
    pool = independent(5)
    each = stacked(pool.members, split("test"))
    found = on_test(build_method("majority_vote", pool))
    disputed = 0
    for n in range(len(split("test"))):
        votes = Counter(each[:, n].argmax(dim=-1).tolist())
        disputed += len(votes) > 1
        leaders = [label for label, count in votes.items() if count == max(votes.values())]
        mean = each[:, n].double().exp().mean(dim=0)
        assert found[n].argmax() == max(leaders, key=lambda label: mean[label])
    assert disputed > 5


@pytest.mark.parametrize("metric", ["nll", "accuracy"])
def test_greedy_ensemble_is_on_heldout_no_worse_than_the_best_single(metric, pool):
    found = build_method("greedy_ensemble", pool, rounds=10, metric=metric)
    singles, (correct, loss) = heldout_singles(pool), on_heldout(found)
    if metric == "accuracy":
        assert correct >= max(c for c, _ in singles)
    else:
        assert loss <= min(loss for _, loss in singles) + 1e-9
        assert max(point["heldout_score"] for point in found.details["curve"]) == pytest.approx(-loss, abs=1e-6)
    assert len(found.details["curve"]) == 10
    assert {part.name for part in found.parts()} == set(found.details["counts"])


def test_greedy_ensemble_of_one_round_is_the_member_with_the_least_loss(pool):
    singles = heldout_singles(pool)
    best = min(range(3), key=lambda k: singles[k][1])
    found = on_test(build_method("greedy_ensemble", pool, rounds=1))
    assert torch.equal(found, stacked(pool.members, split("test"))[best])


# Bagging


def test_a_bootstrap_leaves_out_about_a_third(tmp_path):
    count = 2000
    labels = torch.arange(count) % 2
    data = Split("train", labels.float().view(-1, 1, 1, 1) + torch.zeros(count, 1, 4, 4), labels, [""] * count, "d")
    store = Store(tmp_path)
    architecture = replace(MLP, options=(("classes", 2), ("hidden", 2), ("side", 4)))
    members = []
    for k in range(3):
        plan = TrainingPlan(f"m{k}", architecture, Schedule(1, batch_size=500), "d", seed=100 + k, bootstrap=True)
        plan.run(data, store, torch.device("cpu"))
        members.append(plan.member(store))
    drawn = [set(m.provenance["rows"]) for m in members]
    assert drawn[0] != drawn[1]
    for m, rows in zip(members, drawn, strict=True):
        assert len(m.provenance["rows"]) == count
        assert 1 - len(rows) / count == pytest.approx(math.exp(-1), abs=0.025)


@pytest.mark.parametrize("combine", ["mean", "vote"])
def test_out_of_bag_scores_are_those_of_the_members_that_did_not_see_the_example(combine):
    """On made-up predictions, in which votes are tied and contradict the mean more often than in trained ones."""
    rng = np.random.default_rng(4)  # a mean, a vote and a vote with ties to the first label: three different scores
    probabilities = np.stack([rng.dirichlet([doubt] * 3, size=60) for doubt in (0.1, 0.1, 5, 5, 5)])
    seen = [rng.integers(60, size=40).tolist() for _ in range(5)]
    models = [member(f"b{k}", skilled(0), MLP, provenance={"rows": rows}) for k, rows in enumerate(seen)]
    made_up = {m.name: torch.tensor(p).log() for m, p in zip(models, probabilities, strict=True)}
    method = METHODS.get("bagging")
    given = ingredients(
        Pool("bagged", "bootstrap", tuple(models)), tuple(method.needs), predict=lambda part, _: made_up[part.name]
    )
    details = method.apply(given, method.validate({"combine": combine})).details
    right, losses, held_out, ties, contradictions = [], [], 0, 0, 0
    for n, label in enumerate(split("train").labels.tolist()):
        judges = [k for k in range(5) if n not in seen[k]]
        held_out += len(judges)
        if not judges:
            continue
        mean = sum(probabilities[k, n] for k in judges) / len(judges)
        votes = Counter(int(probabilities[k, n].argmax()) for k in judges)
        by_vote = max(range(3), key=lambda c: (votes[c], mean[c]))
        ties += list(votes.values()).count(max(votes.values())) > 1
        contradictions += by_vote != int(mean.argmax())
        right.append((int(mean.argmax()) if combine == "mean" else by_vote) == label)
        losses.append(-math.log(mean[label]))
    assert 0 < len(right) < 60
    assert min(ties, contradictions) >= 5
    assert details["out_of_bag_fraction"] == pytest.approx(held_out / 300)
    assert details["out_of_bag_scored"] == pytest.approx(len(right) / 60)
    assert details["out_of_bag_accuracy"] == pytest.approx(np.mean(right))
    if combine == "mean":
        assert details["out_of_bag_nll"] == pytest.approx(np.mean(losses), abs=1e-6)
    else:
        assert "out_of_bag_nll" not in details


def test_bagging_without_an_unseen_example_has_no_score():
    everything = [replace(m, provenance={"rows": list(range(60))}) for m in bootstrap().members]
    details = build_method("bagging", Pool("bagged", "bootstrap", tuple(everything))).details
    assert details == {"out_of_bag_fraction": 0.0, "out_of_bag_scored": 0.0}


@pytest.mark.parametrize(("combine", "plain"), [("mean", "linear"), ("vote", "majority_vote")])
def test_bagging_combines_like_any_other_ensemble(combine, plain):
    pool = bootstrap()
    assert torch.equal(on_test(build_method("bagging", pool, combine=combine)), on_test(build_method(plain, pool)))


def test_bagging_needs_resamples(pool):
    with pytest.raises(NotApplicable, match="holds independent"):
        build_method("bagging", pool)


# Checkpoints


@pytest.mark.parametrize("rule", ["linear", "log_linear"])
def test_one_checkpoint_is_the_last_bit_for_bit(rule):
    run = checkpoints()
    found = build_method("checkpoint_ensemble", run, n=1, rule=rule)
    assert torch.equal(on_test(found), stacked(run.members, split("test"))[-1])
    assert found.details["checkpoints"] == ["epoch 3"]


def test_two_checkpoints_are_the_mean_of_the_last_two():
    run = checkpoints()
    expected = stacked(run.members[1:], split("test")).double().exp().mean(dim=0)
    found = on_test(build_method("checkpoint_ensemble", run, n=2)).double().exp()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_more_checkpoints_than_kept_and_pools_that_are_no_run_are_not_applicable(pool):
    with pytest.raises(NotApplicable, match="kept 3 checkpoints, not 4"):
        build_method("checkpoint_ensemble", checkpoints(), n=4)
    with pytest.raises(NotApplicable, match="not checkpoints of one run"):
        build_method("checkpoint_ensemble", pool, n=1)


# MC dropout


def passes(model, count, examples=None):
    """Probabilities [T, N, C] of the first passes of a member."""
    parts = [DropoutPass(MemberPart(model), t, model.seed) for t in range(count)]
    return torch.stack([plain_predict(part, examples or split("test")) for part in parts]).double().exp()


def without_dropout(architecture):
    return replace(architecture, options=tuple(sorted([*architecture.options, ("dropout", 0.0)])))


def test_without_dropout_all_passes_are_the_member():
    still = member("still", trained(CNN, 0), without_dropout(CNN))
    found, plain = passes(still, 3), plain_predict(MemberPart(still), split("test"))
    assert torch.equal(found, plain.double().exp().expand(3, -1, -1))
    assert not has_dropout(MemberPart(still).module)
    with pytest.raises(NotApplicable, match="has no dropout"):
        build_method("mc_dropout", Pool("still", "independent", (still,)), passes=3)


def test_a_network_without_a_dropout_layer_has_no_dropout():
    assert not has_dropout(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    assert not has_dropout(nn.Sequential(nn.Dropout(0.0)))
    assert has_dropout(nn.Sequential(nn.Dropout(0.0), nn.Sequential(nn.Dropout2d(0.1))))


@pytest.mark.parametrize("architecture", [CNN, MLP], ids=lambda a: a.name)
def test_the_variance_of_the_mean_of_passes_falls_as_one_over_their_number(architecture):
    drawn = passes(member("drop", trained(architecture, 1), architecture), 240)  # [T, N, C]
    single = drawn.var(dim=0).mean()
    assert single > 1e-4
    for count in (2, 5, 10):
        means = drawn.unflatten(0, (-1, count)).mean(dim=1)
        assert float(single / means.var(dim=0).mean()) == pytest.approx(count, rel=0.2)


def test_the_spread_curve_is_measured_over_disjoint_groups(pool):
    found = build_method("mc_dropout", pool, passes=7, member=1)
    drawn = passes(pool.members[1], 7, split("heldout")).numpy()
    labels = split("heldout").labels.numpy()
    curve = {point["passes"]: point for point in found.details["spread_curve"]}
    assert list(curve) == [1, 2, 3, 5, 7]
    for count, point in curve.items():
        mean = drawn[:count].mean(axis=0)
        assert point["accuracy"] == (mean.argmax(axis=1) == labels).mean()
        assert point["nll"] == pytest.approx(-np.log(mean[np.arange(60), labels]).mean(), abs=1e-6)
        groups = [drawn[start : start + count].mean(axis=0) for start in range(0, 7 - count + 1, count)]
        if len(groups) > 1:
            assert point["std"] == pytest.approx(np.sqrt(np.var(groups, axis=0, ddof=1).mean()), rel=1e-6)
        else:
            assert "std" not in point


def test_five_passes_are_the_first_five_of_thirty(pool):
    five, thirty = (build_method("mc_dropout", pool, passes=n, member=0) for n in (5, 30))
    assert len(thirty.parts()) == 30
    assert [p.digest for p in five.parts()] == [p.digest for p in thirty.parts()[:5]]
    assert len({p.digest for p in thirty.parts()}) == 30
    for few, many in zip(five.parts(), thirty.parts(), strict=False):
        assert torch.equal(plain_predict(few, split("test")), plain_predict(many, split("test")))
    expected = passes(pool.members[0], 5).mean(dim=0)
    torch.testing.assert_close(on_test(five).double().exp(), expected, atol=1e-6, rtol=0)


def test_masks_differ_between_passes_examples_batches_and_seeds():
    model = member("drop", trained(CNN, 1))
    same = split("test").inputs[:1].expand(50, -1, -1, -1)
    found = DropoutPass(MemberPart(model), 0, 1).log_probs(same)
    assert len(found.unique(dim=0)) > 10  # one example fifty times: a few of the masks may agree
    assert not torch.equal(found, DropoutPass(MemberPart(model), 1, 1).log_probs(same))
    assert not torch.equal(found, DropoutPass(MemberPart(model), 0, 2).log_probs(same))
    other = torch.cat([same[1:], split("test").inputs[1:2]])
    assert not torch.equal(found[:49], DropoutPass(MemberPart(model), 0, 1).log_probs(other)[:49])  # same rows
    assert torch.equal(found, DropoutPass(MemberPart(model), 0, 1).log_probs(same))


@pytest.mark.parametrize("fails", [False, True])
def test_a_pass_leaves_the_network_as_it_was(fails):
    weights = trained(CNN_BN, 1)
    part = DropoutPass(MemberPart(member("drop", weights, CNN_BN)), 0, 1)
    layers = dropout_layers(part.module)
    layers[1].training = True  # a state that is neither all on nor all off
    flags = [layer.training for layer in part.module.modules()]
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    if fails:
        with pytest.raises(RuntimeError):
            part.log_probs(torch.zeros(2, 5, 4, 4))
    else:
        part.log_probs(split("test").inputs)
    assert [layer.training for layer in part.module.modules()] == flags
    assert torch.equal(torch.random.get_rng_state(), before)
    state = part.module.state_dict()
    assert all(torch.equal(state[name], weights[name]) for name in weights)  # BatchNorm's statistics among them


def test_a_pass_runs_with_dropout_on_and_batch_norm_in_eval():
    part = DropoutPass(MemberPart(member("drop", trained(CNN_BN, 1), CNN_BN)), 0, 1)
    states = {}
    for name, layer in part.module.named_modules():
        layer.register_forward_hook(lambda layer, *_, name=name: states.update({name: (type(layer), layer.training)}))
    part.log_probs(split("test").inputs)
    assert {training for kind, training in states.values() if kind is nn.Dropout} == {True}
    assert {training for kind, training in states.values() if kind is not nn.Dropout} == {False}
    assert nn.BatchNorm2d in {kind for kind, _ in states.values()}


def test_mc_dropout_takes_the_best_member(pool):
    best = build_method("best_single", pool).details["member"]
    assert build_method("mc_dropout", pool, passes=2).details["member"] == best


# Temperature


@pytest.mark.parametrize("of", ["best_single", "linear", "log_linear"])
def test_temperature_keeps_every_prediction_and_does_not_raise_the_heldout_loss(of, pool):
    found, plain = build_method("temperature", pool, of=of), build_method(of, pool)
    assert torch.equal(on_test(found).argmax(dim=-1), on_test(plain).argmax(dim=-1))
    before, after = on_heldout(plain), on_heldout(found)
    assert after[0] == before[0]
    assert after[1] <= before[1] + 1e-9
    assert found.details["heldout_nll_before"] == pytest.approx(before[1], abs=1e-6)
    assert found.details["heldout_nll"] == pytest.approx(after[1], abs=1e-6)


def test_temperature_cools_a_member_that_is_too_sure(pool):
    first = pool.members[0]
    loud = {name: 6 * t if name.startswith("layers.7") else t for name, t in first.weights.items()}
    models = (replace(first, weights=loud, digest="loud"),)
    found = build_method("temperature", Pool("loud", "independent", models), of="best_single")
    calm = build_method("temperature", Pool("calm", "independent", (first,)), of="best_single")
    assert found.details["temperature"] == pytest.approx(6 * calm.details["temperature"], rel=1e-3)
    torch.testing.assert_close(on_test(found), on_test(calm), atol=1e-2, rtol=1e-2)


# Negative evidence


@pytest.mark.parametrize("mask", ["none", "contrastive", "dexperts"])
def test_no_negative_evidence_is_the_model_it_is_used_on(mask, tuned):
    each, base = stacked(tuned.members, split("test")), plain_predict(MemberPart(tuned.base), split("test"))
    for on, expected in ((0, each[0]), (2, each[2]), ("base", base)):
        found = on_test(build_method("expert_anti_expert", tuned, a=0.0, on=on, expert=1, anti=0, mask=mask))
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_an_expert_against_itself_is_the_model_it_is_used_on(tuned):
    found = on_test(build_method("expert_anti_expert", tuned, a=3.0, on="base", expert=1, anti=1))
    torch.testing.assert_close(found, plain_predict(MemberPart(tuned.base), split("test")), atol=1e-6, rtol=0)


def test_the_roles_are_the_best_the_worst_and_the_base_on_heldout(tuned):
    singles = heldout_singles(tuned)
    order = sorted(range(3), key=lambda k: (-singles[k][0], singles[k][1]))
    best, worst = (tuned.members[order[k]].name for k in (0, -1))
    found = build_method("expert_anti_expert", tuned, a=0.5)
    assert found.details["roles"] == {"on": best, "expert": best, "anti": "base"}
    found = build_method("expert_anti_expert", tuned, a=0.5, on="base", anti="worst")
    assert found.details["roles"] == {"on": "base", "expert": best, "anti": worst}


def test_negative_evidence_is_the_difference_of_the_logits(tuned):
    inputs = split("test").inputs
    logits = [module_with(MLP, m.weights)(inputs).double() for m in tuned.members]
    found = on_test(build_method("expert_anti_expert", tuned, a=0.7, on=0, expert=1, anti=2))
    expected = torch.log_softmax(logits[0] + 0.7 * (logits[1] - logits[2]), dim=-1)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


def test_a_is_chosen_on_heldout(tuned):
    found = build_method("expert_anti_expert", tuned, on=0, expert=1, anti=2)
    each, labels = stacked_heldout(tuned), split("heldout").labels
    losses = {a / 10: nll(Contrast(a / 10, "none", 0.9)(each), labels) for a in range(21)}
    assert [point["a"] for point in found.details["curve"]] == list(losses)
    assert [point["nll"] for point in found.details["curve"]] == pytest.approx(list(losses.values()), abs=1e-9)
    assert found.details["a"] == min(losses, key=losses.get)
    assert on_heldout(found)[1] <= losses[0.0] + 1e-9


def test_negative_evidence_needs_a_base_only_where_it_is_a_role(pool):
    with pytest.raises(NotApplicable, match="has no base"):
        build_method("expert_anti_expert", pool, a=0.5)
    found = on_test(build_method("expert_anti_expert", pool, a=0.0, anti="worst", on=0))
    torch.testing.assert_close(found, stacked(pool.members, split("test"))[0], atol=1e-6, rtol=0)


def test_the_mean_of_members_is_not_the_mean_of_their_logits(pool):
    """A trap: averaged logits are the log-linear rule, whatever they are called."""
    each = stacked(pool.members, split("test"))
    assert not torch.allclose(on_test(build_method("linear", pool)), torch.log_softmax(each.mean(dim=0), dim=-1))
    assert torch.equal(on_test(build_method("linear", pool)), Linear(torch.full((3,), 1 / 3).double())(each))
