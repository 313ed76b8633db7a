"""The weight-space methods against plain readings of their papers, on real small networks."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from harness.checks import pools
from harness.checks.pools import (
    MLP,
    build_method,
    copies,
    fine_tunes,
    independent,
    member,
    mixed,
    on_test,
    split,
    trained,
)
from harness.models.weights import module_with
from harness.registry import METHODS
from harness.types import Architecture, NotApplicable, Pool

# wider than those of harness.checks.pools, which are too small to learn the three patterns
CNN = Architecture("small_cnn", (("classes", 3), ("hidden", 16), ("side", 4), ("width", 8)))
CNN_BN = Architecture("small_cnn_bn", CNN.options)
POOLS = {
    "cnn": lambda: fine_tunes(5, CNN),
    "mlp": lambda: fine_tunes(5, MLP),
    "apart": lambda: independent(4, CNN),
    "batchnorm": lambda: fine_tunes(5, CNN_BN),
    "tiny batchnorm": lambda: fine_tunes(5, pools.CNN_BN),
}
ONE_MODEL = ("uniform_soup", "greedy_soup", "task_arithmetic", "ties")


@cache
def pool(name):
    return POOLS[name]()


def in_float64(members):
    """Every tensor of the members, stacked in float64."""
    return {n: np.stack([m.weights[n].double().numpy() for m in members]) for n in members[0].weights}


def module_of(architecture, arrays):
    return module_with(architecture, {n: torch.from_numpy(a).float() for n, a in arrays.items()})


def heldout_scores(module, name="heldout"):
    """Accuracy and NLL by hand."""
    with torch.no_grad():
        log_probs = torch.log_softmax(module(split(name).inputs).double(), dim=1).numpy()
    labels = split(name).labels.numpy()
    right = log_probs.argmax(axis=1) == labels
    return right.mean(), -log_probs[np.arange(len(labels)), labels].mean()


def member_scores(members):
    return [heldout_scores(module_with(m.architecture, m.weights)) for m in members]


def assert_weights(combination, expected, tolerance=1e-5):
    for name, tensor in combination.module.state_dict().items():
        np.testing.assert_allclose(tensor.double().numpy(), expected[name], rtol=tolerance, atol=tolerance)


# Uniform soup.


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_the_uniform_soup_is_the_mean_of_the_weights(name):
    found = build_method("uniform_soup", pool(name))
    assert_weights(found, {n: t.mean(axis=0) for n, t in in_float64(pool(name).members).items()})
    assert found.details == {}


def test_a_soup_of_one_member_is_that_member():
    for architecture in (CNN, MLP, CNN_BN):
        only = fine_tunes(1, architecture)
        for name in ("uniform_soup", "greedy_soup"):
            found = build_method(name, only).module.state_dict()
            assert all(torch.equal(found[n], t) for n, t in only.members[0].weights.items())


def test_a_soup_of_members_from_different_starts_warns():
    (warning,) = build_method("uniform_soup", pool("apart")).details["warnings"]
    assert "4 different initialisations" in warning


# Greedy soup.


def greedy_by_hand(members, accept):
    """Recipe 1 of the paper: the order, which of them are taken, and the accuracy of each trial."""
    scores = member_scores(members)
    order = sorted(range(len(members)), key=lambda k: (-scores[k][0], scores[k][1], members[k].name))
    stacked, inside, steps, best = in_float64(members), [], [], None
    for k in order:
        trial = module_of(members[0].architecture, {n: t[[*inside, k]].mean(axis=0) for n, t in stacked.items()})
        accuracy = heldout_scores(trial)[0]
        taken = best is None or (accuracy >= best if accept == "not_worse" else accuracy > best)
        if taken:
            inside, best = [*inside, k], accuracy
        steps.append((members[k].name, accuracy, taken))
    return steps


@pytest.mark.parametrize("accept", ["not_worse", "better"])
@pytest.mark.parametrize("name", ["cnn", "mlp", "apart"])
def test_the_greedy_soup_takes_what_the_paper_takes(name, accept):
    members = pool(name).members
    found = build_method("greedy_soup", pool(name), accept=accept)
    expected = greedy_by_hand(members, accept)
    steps = found.details["steps"]
    assert [(s["member"], s["heldout_score"], s["taken"]) for s in steps] == expected
    inside = [n for n, _, taken in expected if taken]
    assert found.details["members"] == inside
    chosen = [m for m in members if m.name in inside]
    assert_weights(found, {n: t.mean(axis=0) for n, t in in_float64(chosen).items()})
    assert found.details["heldout_score"] == heldout_scores(found.module)[0]


@pytest.mark.parametrize("accept", ["not_worse", "better"])
@pytest.mark.parametrize("name", POOLS)
def test_the_greedy_soup_is_never_worse_on_heldout_than_the_best_member(name, accept):
    """With BatchNorm too: measured anew, the best member's own statistics could be worse than those it came with."""
    found = build_method("greedy_soup", pool(name), accept=accept)
    best = max(accuracy for accuracy, _ in member_scores(pool(name).members))
    assert heldout_scores(found.module)[0] >= best


@pytest.mark.parametrize(("accept", "taken"), [("not_worse", 3), ("better", 1)])
def test_a_member_that_changes_nothing_is_taken_by_the_papers_rule_and_not_by_its_codes(accept, taken):
    found = build_method("greedy_soup", copies(fine_tunes(3, CNN)), accept=accept)
    assert [s["taken"] for s in found.details["steps"]] == [True] * taken + [False] * (3 - taken)
    assert found.details["members"] == ["m0", "m1", "m2"][:taken]  # equal scores: in the order of their names


def test_a_greedy_soup_warns_of_what_is_inside_it_only():
    (good,) = fine_tunes(1, CNN).members
    harmful = member("harmful", {n: -9 * t for n, t in good.weights.items()}, CNN, start="other")
    found = build_method("greedy_soup", Pool("main", "any", (good, harmful)))
    assert found.details["members"] == ["m0"]
    assert "warnings" not in found.details
    copy = replace(good, name="n0", start="other")
    found = build_method("greedy_soup", Pool("main", "any", (good, copy)))
    assert found.details["members"] == ["m0", "n0"]
    assert "2 different initialisations" in found.details["warnings"][0]


# Checkpoint averaging.


def run_of(count, architecture=CNN):
    members = fine_tunes(count, architecture).members
    renamed = [replace(m, name=f"c{k}", digest=f"c{k}", provenance={"epochs": k + 1}) for k, m in enumerate(members)]
    return Pool("run", "checkpoints", tuple(renamed))


@pytest.mark.parametrize("architecture", [CNN, CNN_BN], ids=["plain", "batchnorm"])
def test_the_average_of_one_checkpoint_is_the_last_one(architecture):
    run = run_of(3, architecture)
    found = build_method("checkpoint_average", run, n=1)
    assert all(torch.equal(found.module.state_dict()[n], t) for n, t in run.members[-1].weights.items())
    assert found.details == {"checkpoints": ["epoch 3"]}


@pytest.mark.parametrize("n", [2, 3, 4])
def test_every_checkpoint_counts_once(n):
    """A known peer starts its sum with the first checkpoint and then adds it again."""
    run = run_of(4)
    found = build_method("checkpoint_average", run, n=n)
    stacked = in_float64(run.members[-n:])
    assert_weights(found, {name: t.mean(axis=0) for name, t in stacked.items()})
    twice = {name: (t.sum(axis=0) + t[0]) / n for name, t in stacked.items()}
    assert max(np.abs(twice[name] - stacked[name].mean(axis=0)).max() for name in twice) > 1e-3
    assert found.details == {"checkpoints": [f"epoch {e}" for e in range(5 - n, 5)]}


def test_the_average_of_checkpoints_with_batchnorm_averages_all_but_the_statistics():
    run = run_of(3, CNN_BN)
    state = build_method("checkpoint_average", run, n=2).module.state_dict()
    for name, tensors in in_float64(run.members[-2:]).items():
        same = np.allclose(state[name].double().numpy(), tensors.mean(axis=0), rtol=1e-5, atol=1e-6)
        assert same == ("running" not in name and "tracked" not in name), name


def test_checkpoints_that_are_not_there_or_are_none_are_refused():
    with pytest.raises(NotApplicable, match="kept 3 checkpoints, not 4"):
        build_method("checkpoint_average", run_of(3), n=4)
    with pytest.raises(NotApplicable, match="fine-tunes, not checkpoints of one run"):
        build_method("checkpoint_average", pool("cnn"), n=2)


# Task arithmetic.


def task_vectors(name):
    base = {n: t.double().numpy() for n, t in pool(name).base.weights.items()}
    return base, {n: t - base[n] for n, t in in_float64(pool(name).members).items()}


@pytest.mark.parametrize("name", ["cnn", "mlp"])
@pytest.mark.parametrize(
    ("coefficients", "factors"),
    [("add", [1, 1, 1, 1, 1]), ("negate", [-1, -1, -1, -1, -1]), ([1.0, -0.5, 0.0, 2.0, 0.25], None)],
    ids=["add", "negate", "given"],
)
@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0, -0.5])
def test_task_arithmetic_is_its_formula(name, coefficients, factors, scale):
    found = build_method("task_arithmetic", pool(name), coefficients=coefficients, scale=scale)
    base, taus = task_vectors(name)
    total = {n: np.tensordot(factors or coefficients, t, axes=1) for n, t in taus.items()}
    assert_weights(found, {n: base[n] + scale * total[n] for n in base})
    assert found.details["scale"] == scale


def test_one_task_at_scale_one_is_the_fine_tune_and_at_scale_zero_the_base():
    only = fine_tunes(1, CNN)
    found = build_method("task_arithmetic", only, scale=1.0)
    assert_weights(found, {n: t.numpy() for n, t in only.members[0].weights.items()})
    found = build_method("task_arithmetic", only, scale=0.0).module.state_dict()
    assert all(torch.equal(found[n], t) for n, t in only.base.weights.items())


def test_all_tasks_at_scale_one_over_n_are_the_uniform_soup():
    soup = build_method("uniform_soup", pool("cnn")).module.state_dict()
    found = build_method("task_arithmetic", pool("cnn"), scale=0.2)
    assert_weights(found, {n: t.numpy() for n, t in soup.items()})


def test_the_search_tries_the_whole_grid_and_keeps_the_best():
    found = build_method("task_arithmetic", pool("cnn"))
    curve = found.details["curve"]
    np.testing.assert_allclose([p["scale"] for p in curve], np.arange(21) * 0.05, atol=1e-12)
    base, taus = task_vectors("cnn")
    for point in curve[::5]:
        by_hand = module_of(CNN, {n: base[n] + point["scale"] * taus[n].sum(axis=0) for n in base})
        accuracy, nll = heldout_scores(by_hand)
        assert point["accuracy"] == pytest.approx(accuracy, abs=1 / 60 + 1e-9)  # one example may be on the edge
        assert point["nll"] == pytest.approx(nll, rel=1e-3)
    best = min(curve, key=lambda p: (-p["accuracy"], p["nll"]))
    assert found.details["scale"] == best["scale"]
    assert heldout_scores(found.module)[0] == best["accuracy"] >= heldout_scores(module_of(CNN, base))[0]


def test_negation_loses_the_skill():
    name = "cnn"
    found = build_method("task_arithmetic", pool(name), coefficients="negate")
    curve = found.details["curve"]
    worst = min(curve, key=lambda p: (p["accuracy"], -p["nll"]))
    assert found.details["scale"] == worst["scale"]
    base = heldout_scores(module_with(pool(name).base.architecture, pool(name).base.weights))[0]
    assert heldout_scores(found.module)[0] == worst["accuracy"] < base - 0.1


def test_coefficients_are_one_for_each_member():
    with pytest.raises(NotApplicable, match="2 coefficients are given for 5 members"):
        build_method("task_arithmetic", pool("cnn"), coefficients=[1.0, -1.0])


# TIES.


def test_one_member_untrimmed_at_scale_one_is_the_fine_tune():
    only = fine_tunes(1, CNN)
    found = build_method("ties", only, density=1.0, scale=1.0)
    assert_weights(found, {n: t.numpy() for n, t in only.members[0].weights.items()})


def test_one_member_trimmed_keeps_the_largest_changes_and_leaves_the_rest_at_the_base():
    only = fine_tunes(1, CNN)
    found = build_method("ties", only, density=0.2).module.state_dict()
    base, tuned = (torch.cat([t.flatten() for t in m.weights.values()]) for m in (only.base, only.members[0]))
    merged = torch.cat([found[n].flatten() for n in only.base.weights])
    moved = merged != base
    assert int(moved.sum()) == int(0.2 * len(base))
    torch.testing.assert_close(merged[moved], tuned[moved])
    change = (tuned - base).abs()
    assert change[moved].min() >= change[~moved].max()


def test_ties_searches_its_whole_grid_and_keeps_the_best():
    found = build_method("ties", pool("cnn"), density=0.5, scale="heldout")
    curve = found.details["curve"]
    np.testing.assert_allclose([p["scale"] for p in curve], np.arange(1, 21) * 0.1, atol=1e-12)
    best = min(curve, key=lambda p: (-p["accuracy"], p["nll"]))
    assert found.details["scale"] == best["scale"]
    assert heldout_scores(found.module)[0] == best["accuracy"]


# What they refuse, and what that does not take away.


def with_base(pool):
    return Pool(pool.name, pool.kind, pool.members, pool.members[0])


@pytest.mark.parametrize("name", ONE_MODEL)
def test_members_of_different_architectures_are_refused_and_an_ensemble_of_them_works(name):
    with pytest.raises(NotApplicable, match="different architectures"):
        build_method(name, with_base(mixed()))
    found = on_test(build_method("linear", mixed()))
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(60), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["task_arithmetic", "ties"])
def test_members_of_another_architecture_than_the_base_are_refused(name):
    tuned = fine_tunes(2, MLP)
    with pytest.raises(NotApplicable, match="different architectures: base and m0: small_cnn and mlp"):
        build_method(name, replace(tuned, base=pool("cnn").base))


@pytest.mark.parametrize("name", ["task_arithmetic", "ties"])
def test_a_pool_without_a_base_has_no_task_vectors(name):
    with pytest.raises(NotApplicable, match="has no base model"):
        build_method(name, pool("apart"))


@pytest.mark.parametrize("name", [*ONE_MODEL, "checkpoint_average"])
def test_a_spoiled_member_is_refused_by_its_name(name):
    run = run_of(3)
    spoiled = replace(run.members[2], weights={n: t * torch.nan for n, t in run.members[2].weights.items()})
    parameters = {"n": 2} if name == "checkpoint_average" else {}
    with pytest.raises(NotApplicable, match="member c2 holds NaN weights"):
        build_method(name, Pool("run", "checkpoints", (*run.members[:2], spoiled), run.members[0]), **parameters)


@pytest.mark.parametrize("name", [*ONE_MODEL, "checkpoint_average"])
def test_they_are_one_model_at_inference(name):
    method = METHODS.get(name)
    assert method.family == "weights"
    parameters = {"n": 3} if name == "checkpoint_average" else {}
    (part,) = build_method(name, Pool("run", "checkpoints", run_of(3).members, pool("cnn").base), **parameters).parts()
    assert {n: t.shape for n, t in part.module.state_dict().items()} == {n: t.shape for n, t in trained(CNN, 0).items()}
