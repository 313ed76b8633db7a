"""Every fit against another optimiser on the same objective written plainly in numpy, and against its own laws."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special

from harness.methods.output.greedy_ensemble import greedy_ensemble
from harness.systems.fitting import (
    accuracy,
    fit_gate,
    fit_linear,
    fit_log_linear,
    fit_temperature,
    nll,
    select_greedily,
    uniform,
)
from harness.systems.rules import Gated, Linear, LogLinear, confidence_features
from harness.systems.systems import finite_or_none
from harness.types import Architecture, Ingredients, Member, Pool, Split
from tests.examples import examples


def members_and_labels(seed, members=3, examples=300, classes=4, skill=(1.5, 1.0, 0.3, 0.0)):
    """Members that know the label to different degrees, each with errors of its own: [M, N, C] and [N]."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size=examples)
    signal = np.array(skill)[np.arange(members) % len(skill), None, None] * np.eye(classes)[labels]
    logits = signal + rng.normal(size=(members, examples, classes))
    return torch.log_softmax(torch.tensor(1.5 * logits), dim=-1), torch.tensor(labels)


def of_labels(stacked, labels):
    """The members' log-probabilities of the true labels [M, N]."""
    return stacked.numpy()[:, np.arange(len(labels)), labels.numpy()]


def minus_infinity_somewhere(stacked, seed):
    """The same members, some labels ruled out (never the first) and the rows normalised again."""
    holes = torch.rand(stacked.shape, generator=torch.Generator().manual_seed(seed)) < 0.05
    holes[..., 0] = False
    return torch.log_softmax(stacked.masked_fill(holes, -torch.inf), dim=-1)


def test_scores():
    log_probs = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5], [0.0, 1.0, 0.0]]).log()
    assert nll(log_probs, torch.tensor([1, 2, 1])) == pytest.approx(2 * math.log(2) / 3)
    assert nll(log_probs, torch.tensor([2, 2, 1])) == math.inf
    assert accuracy(log_probs, torch.tensor([0, 1, 1])) == pytest.approx(2 / 3)


def test_uniform_weights():
    assert uniform(3).tolist() == [1 / 3] * 3


# Linear weights


def linear_loss(weights, true):
    return -np.log(weights @ np.exp(true)).mean()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("members", [2, 3, 4])
def test_linear_weights_are_the_optimum_on_the_simplex(seed, members):
    stacked, labels = members_and_labels(seed, members)
    true = of_labels(stacked, labels)
    found = fit_linear(stacked, labels)
    best = optimize.minimize(
        linear_loss,
        np.full(members, 1 / members),
        args=(true,),
        method="SLSQP",
        bounds=[(0, 1)] * members,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        options={"ftol": 1e-13, "maxiter": 500},
    )
    assert best.success
    assert (found >= 0).all()
    assert float(found.sum()) == pytest.approx(1, abs=1e-12)
    assert linear_loss(found.numpy(), true) == pytest.approx(best.fun, abs=1e-7)
    np.testing.assert_allclose(found, best.x, atol=2e-3)


def test_linear_weights_leave_out_a_member_that_is_always_worse():
    stacked, labels = members_and_labels(5, 2)
    worse = torch.log_softmax(-2 * stacked[:1], dim=-1)
    found = fit_linear(torch.cat([stacked, worse]), labels)
    assert found[2] == 0
    assert torch.allclose(found[:2], fit_linear(stacked, labels), atol=1e-4)


def test_linear_weights_keep_a_member_that_is_right_only_once_in_a_while():
    """Two labels, N examples: one member gives the first 0.999, the other the second, which is right n times."""
    labels = torch.zeros(1000, dtype=torch.long)
    labels[:4] = 1
    stacked = torch.tensor([[0.999, 0.001], [0.001, 0.999]], dtype=torch.float64).log()[:, None].expand(2, 1000, 2)
    rare = (0.004 - 0.001) / 0.998  # where w 0.999 + (1 - w) 0.001 is the label's share, 0.004
    np.testing.assert_allclose(fit_linear(stacked, labels), [1 - rare, rare], atol=1e-5)


def test_linear_weights_of_copies_are_equal():
    stacked, labels = members_and_labels(6, 1)
    torch.testing.assert_close(fit_linear(stacked.expand(3, -1, -1), labels), uniform(3))


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_linear_weights_where_members_rule_labels_out(precision):
    stacked, labels = members_and_labels(7)
    stacked = minus_infinity_somewhere(stacked, 7)
    stacked[:, 0] = torch.tensor([0.0, 0.5, 0.5, 0.0]).log()  # one label that every member excludes
    labels[0] = 3
    ruled_out = of_labels(stacked, labels) == -np.inf
    assert ruled_out.any(axis=1).all()
    found = fit_linear(stacked.to(precision), labels)
    assert not found.isnan().any()
    possible = ~ruled_out.all(axis=0)
    torch.testing.assert_close(found, fit_linear(stacked[:, possible], labels[possible]), atol=1e-4, rtol=0)


# Log-linear weights


def log_linear_loss(weights, logs, labels, ridge):
    scores = np.tensordot(weights, logs, axes=1)
    loss = special.logsumexp(scores, axis=-1) - scores[np.arange(len(labels)), labels]
    return loss.mean() + ridge / 2 * ((weights - 1 / len(weights)) ** 2).sum()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("members", "ridge"), [(2, 1e-4), (4, 1e-4), (3, 0.5)])
def test_log_linear_weights_are_the_unconstrained_optimum(seed, members, ridge):
    stacked, labels = members_and_labels(seed, members)
    arguments = (stacked.numpy(), labels.numpy(), ridge)
    found = fit_log_linear(stacked, labels, ridge=ridge).numpy()
    start = np.full(members, 1 / members)
    best = optimize.minimize(log_linear_loss, start, args=arguments, method="BFGS", options={"gtol": 1e-7})
    assert log_linear_loss(found, *arguments) <= best.fun + 1e-10
    np.testing.assert_allclose(found, best.x, atol=1e-4)


def test_log_linear_weights_find_the_weights_that_made_the_labels():
    stacked, _ = members_and_labels(8, 2, examples=20_000)
    made = LogLinear(torch.tensor([1.6, -0.7], dtype=torch.float64))
    labels = torch.multinomial(made(stacked).exp(), 1, generator=torch.Generator().manual_seed(8)).squeeze(-1)
    np.testing.assert_allclose(fit_log_linear(stacked, labels), made.weights, atol=0.06)


def test_log_linear_weights_of_copies_are_equal_and_make_a_temperature():
    stacked, labels = members_and_labels(9, 1, examples=2000)
    found = fit_log_linear(stacked.expand(3, -1, -1), labels, ridge=1e-6)
    torch.testing.assert_close(found, found.mean().expand(3))
    assert float(found.sum()) == pytest.approx(1 / fit_temperature(stacked[0], labels), rel=1e-3)


def test_log_linear_weights_where_a_member_rules_right_labels_out_are_not_positive():
    stacked, labels = members_and_labels(10)
    stacked[0] = minus_infinity_somewhere(stacked, 10)[0]
    assert torch.isneginf(stacked[0, torch.arange(300), labels]).any()
    found = fit_log_linear(stacked, labels)
    assert found[0] == 0  # it knows the most, so it is worth nothing against the labels
    torch.testing.assert_close(found[1:], fit_log_linear(stacked[1:], labels), atol=1e-3, rtol=0)  # ridge: 1/3 or 1/2


def with_zeros(seed, only_wrong=()):
    """Members that exclude a fifth of the labels; those of ``only_wrong`` never the right one."""
    stacked, labels = members_and_labels(seed, 2 + seed % 4, examples=80)
    holes = torch.rand(stacked.shape, generator=torch.Generator().manual_seed(seed)) < 0.2
    holes.scatter_(-1, stacked.argmax(dim=-1, keepdim=True), False)
    right = torch.nn.functional.one_hot(labels, stacked.shape[-1]).bool()
    for k in only_wrong:
        holes[k % len(stacked)] &= ~right
    return torch.log_softmax(stacked.masked_fill(holes, -torch.inf), dim=-1), labels


def loss_of_rule(weights, stacked, labels, ridge=1e-4):
    """The loss of the rule as it is applied, and the pull to uniform weights."""
    weights = torch.as_tensor(weights, dtype=torch.float64)
    return nll(LogLinear(weights)(stacked), labels) + ridge / 2 * float((weights - 1 / len(weights)).square().sum())


@pytest.mark.parametrize("only_wrong", [(), (0,), range(5)], ids=["none", "one", "all"])
def test_log_linear_weights_lose_to_no_member_nor_uniform_nor_zero_weights(only_wrong):
    for seed in range(20):
        stacked, labels = with_zeros(seed, only_wrong)
        members = len(stacked)
        found = loss_of_rule(fit_log_linear(stacked, labels), stacked, labels)
        for other in [uniform(members), torch.zeros(members), *torch.eye(members)]:
            assert found <= loss_of_rule(other, stacked, labels) + 1e-9


@pytest.mark.parametrize(("seed", "only_wrong"), [(0, ()), (4, (1,)), (8, (0, 1)), (1, (2,)), (5, (0, 1, 2))])
def test_log_linear_weights_are_the_best_of_any_signs(seed, only_wrong):
    """The loss jumps where a weight changes its sign; for each choice of signs another optimiser looks for the best."""
    stacked, labels = with_zeros(seed, only_wrong)
    found = loss_of_rule(fit_log_linear(stacked, labels), stacked, labels)
    losses = []
    for signs in itertools.product([1, -1], repeat=len(stacked)):

        def loss(logs, signs=signs):
            return min(loss_of_rule(np.array(signs) * np.exp(logs), stacked, labels), 1e3)

        start = np.log([0.4 if sign > 0 else 0.1 for sign in signs])
        losses.append(optimize.minimize(loss, start, method="L-BFGS-B", bounds=[(-18, 5)] * len(signs)).fun)
    assert found <= min(losses) + 1e-6
    assert found >= min(losses) - 1e-3  # and it is a loss that the rule has


def test_a_member_that_knows_only_what_is_impossible_is_kept_for_its_veto():
    stacked, labels = members_and_labels(15, 2)
    noise = torch.log_softmax(torch.tensor(np.random.default_rng(15).normal(size=(1, 300, 4))), dim=-1)
    wrong = (labels + 1) % 4
    stacked = torch.cat([stacked, torch.log_softmax(noise.scatter(-1, wrong.view(1, -1, 1), -torch.inf), dim=-1)])
    found = fit_log_linear(stacked, labels)
    assert found[2] > 0
    assert LogLinear(found)(stacked)[torch.arange(300), wrong].isneginf().all()
    assert loss_of_rule(found, stacked, labels) < loss_of_rule([*found[:2], 0.0], stacked, labels) - 0.05


def test_log_linear_weights_of_members_that_only_contradict_each_other_are_uniform():
    """Two that name one label each and are never wrong together: where they differ, nothing is known."""
    labels = torch.arange(40) % 4
    named = torch.stack([labels, labels])
    named[0, :8], named[1, 8:16] = (labels[:8] + 1) % 4, (labels[8:16] + 2) % 4
    stacked = torch.nn.functional.one_hot(named, 4).double().log()
    assert fit_log_linear(stacked, labels).tolist() == [0.5, 0.5]
    assert loss_of_rule(uniform(2), stacked, labels) == pytest.approx(16 / 40 * math.log(4))


@pytest.mark.parametrize("zeros", [False, True])
def test_log_linear_weights_of_predictions_that_are_no_numbers_are_none(zeros):
    stacked, labels = with_zeros(3) if zeros else members_and_labels(3)
    stacked[1, 5] = math.nan
    assert fit_log_linear(stacked, labels).isnan().all()


@pytest.mark.parametrize("scale", [10, 1000])
def test_log_linear_weights_of_very_sure_members_are_small(scale):
    """Sharper members are the same with smaller weights, but for the pull to uniform ones."""
    stacked, labels = members_and_labels(16)
    sharp = torch.log_softmax(scale * stacked, dim=-1)
    plain, found = fit_log_linear(stacked, labels, ridge=1e-9), fit_log_linear(sharp, labels, ridge=1e-9)
    torch.testing.assert_close(scale * found, plain, atol=1e-4, rtol=1e-4)


# Labels that are lost whatever the parameters are


FITS = {
    "linear": fit_linear,
    "linear gate": lambda *given: torch.cat(fit_gate(*given, "linear")),
    "log-linear gate": lambda *given: torch.cat(fit_gate(*given, "log_linear")),
    "temperature": lambda stacked, labels: torch.tensor([fit_temperature(stacked[0], labels)]),
}
NOTHING_LEARNED = {"linear": [0.5, 0.5], "linear gate": 5 * [0.0], "log-linear gate": 5 * [0.0], "temperature": [1.0]}


@pytest.mark.parametrize("name", FITS)
def test_examples_whose_label_is_lost_whatever_the_parameters_are_move_nothing(name):
    stacked, labels = members_and_labels(17, 2)
    stacked = minus_infinity_somewhere(stacked, 17)
    lost = torch.tensor(of_labels(stacked, labels) == -np.inf)
    by_all, by_any = lost.all(dim=0), lost.any(dim=0)
    lost = {"linear": by_all, "linear gate": by_all, "log-linear gate": by_any, "temperature": lost[0]}[name]
    if not lost.any():
        stacked[:, 0], labels[0], lost[0] = torch.tensor([0.0, 0.5, 0.5, 0.0]).log(), 3, True
    found = FITS[name](stacked, labels)
    torch.testing.assert_close(found, FITS[name](stacked[:, ~lost], labels[~lost]), atol=1e-9, rtol=1e-9)
    assert FITS[name](stacked[:, lost], labels[lost]).tolist() == NOTHING_LEARNED[name]


@pytest.mark.parametrize("rule", ["linear", "log_linear"])
def test_a_gate_is_the_optimum_of_the_rule_that_it_is_where_labels_are_ruled_out(rule):
    stacked, labels = members_and_labels(18, 2, examples=100)
    stacked = minus_infinity_somewhere(stacked, 18)
    lost = torch.tensor(of_labels(stacked, labels) == -np.inf)
    lost = lost.all(dim=0) if rule == "linear" else lost.any(dim=0)
    stacked, labels = stacked[:, ~lost], labels[~lost]
    assert stacked.isneginf().any()
    scale = confidence_features(stacked).std(dim=(0, 1))

    def loss(parameters):
        bias, slopes = torch.tensor(parameters[:2]), torch.tensor(parameters[2:]) / scale
        return nll(Gated(bias, slopes, rule)(stacked), labels) + 0.01 / 2 * (parameters**2).sum()

    bias, slopes = fit_gate(stacked, labels, rule)
    best = optimize.minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-6})
    assert loss(np.concatenate([bias, slopes * scale])) == pytest.approx(best.fun, abs=1e-5)


# Temperature


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [0.1, 0.3, 1.0, 4.0])
def test_temperature_is_where_the_derivative_of_the_loss_is_zero(seed, scale):
    stacked, labels = members_and_labels(seed, 1)
    log_probs = torch.log_softmax(scale * stacked[0], dim=-1)
    logs = log_probs.numpy()

    def slope(inverse):
        """Derivative of the mean loss by 1/T: the expected log-probability less that of the label."""
        expected = (special.softmax(inverse * logs, axis=-1) * logs).sum(axis=-1)
        return (expected - logs[np.arange(len(labels)), labels.numpy()]).mean()

    best = 1 / optimize.brentq(slope, 1 / 20, 20, xtol=1e-12)
    assert fit_temperature(log_probs, labels) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("examples", [1, 2])
def test_temperature_of_a_model_that_is_always_right_or_never_is_at_the_end_of_its_range(examples):
    log_probs = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log()[:examples]
    assert fit_temperature(log_probs, torch.tensor([0, 1])[:examples]) == pytest.approx(1 / 20, rel=1e-12)
    assert fit_temperature(log_probs, torch.tensor([1, 0])[:examples]) == pytest.approx(20, rel=1e-12)


def test_temperature_is_the_lowest_where_all_are_as_good():
    sure = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).log()
    assert fit_temperature(sure, torch.tensor([0, 1])) == pytest.approx(1 / 20, rel=1e-12)


# A gate


def sure_where_right(seed, examples=2000, classes=4):
    """Two members, each sure and right on its own half of the examples, and on the other half mildly wrong."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size=examples)
    wrong = (labels + rng.integers(1, classes, size=(2, examples))) % classes
    knows = np.stack([rng.random(examples) < 0.5] * 2)
    knows[1] = ~knows[0]
    target = np.where(knows, labels, wrong)
    strength = np.where(knows, 4.0, 1.0) + 0.3 * rng.normal(size=(2, examples))
    return torch.log_softmax(torch.tensor(strength[..., None] * np.eye(classes)[target]), dim=-1), torch.tensor(labels)


@pytest.mark.parametrize(("rule", "kind"), [("linear", Linear), ("log_linear", LogLinear)])
def test_a_gate_learns_whom_to_trust_where(rule, kind):
    stacked, labels = sure_where_right(0)
    gate = Gated(*fit_gate(stacked, labels, rule), rule)
    fresh, fresh_labels = sure_where_right(1)
    gated = nll(gate(fresh), fresh_labels)
    assert gated < nll(kind(uniform(2))(fresh), fresh_labels) - 0.1
    assert all(gated < nll(kind(torch.tensor([w, 1 - w]))(fresh), fresh_labels) for w in np.linspace(0, 1, 21))
    trusted = gate.weights(fresh).argmax(dim=0)
    knows = fresh.argmax(dim=-1)[0] != fresh_labels  # then it is the other member that knows
    assert (trusted == knows.long()).double().mean() > 0.99


@pytest.mark.parametrize("rule", ["linear", "log_linear"])
def test_a_gate_that_has_nothing_to_learn_stays_at_equal_weights(rule):
    rng = np.random.default_rng(11)
    stacked = torch.log_softmax(torch.tensor(0.05 * rng.normal(size=(3, 1000, 4))), dim=-1)
    labels = torch.tensor(rng.integers(0, 4, size=1000))
    weights = Gated(*fit_gate(stacked, labels, rule), rule).weights(stacked)
    assert (weights - 1 / 3).abs().mean() < 0.03
    torch.testing.assert_close(weights.mean(dim=1), uniform(3), atol=0.01, rtol=0)


@pytest.mark.parametrize("rule", ["linear", "log_linear"])
def test_a_gate_over_copies_is_exactly_undecided(rule):
    stacked, labels = members_and_labels(12, 1)
    stacked = stacked.expand(3, -1, -1)
    weights = Gated(*fit_gate(stacked, labels, rule), rule).weights(stacked)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 3), atol=1e-6, rtol=0)


def features_of(stacked):
    """Log of the top probability, entropy, log of the mean probability of the top label: [M, N, 3]."""
    probabilities = np.exp(stacked)
    top = probabilities.argmax(axis=-1)[..., None]
    mean = np.broadcast_to(probabilities.mean(axis=0), stacked.shape)
    support = np.log(np.take_along_axis(mean, top, axis=-1))
    entropy = -(probabilities * stacked).sum(axis=-1, keepdims=True)
    return np.concatenate([stacked.max(axis=-1, keepdims=True), entropy, support], axis=-1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rule", ["linear", "log_linear"])
def test_a_gate_is_the_optimum_of_its_objective(rule, seed):
    torch_stacked, labels = members_and_labels(seed, 3, examples=400)
    stacked, rows = torch_stacked.numpy(), np.arange(400)
    features = features_of(stacked)
    scale = features.reshape(-1, 3).std(axis=0, ddof=1)

    def loss(parameters):
        """On features of mean 0 and deviation 1; moving them moves every member's score alike, so the mean stays."""
        bias, slopes = parameters[:3], parameters[3:]
        weights = special.softmax(features @ (slopes / scale) + bias[:, None], axis=0)
        if rule == "linear":
            log_probs = np.log((weights[..., None] * np.exp(stacked)).sum(axis=0))
        else:
            log_probs = special.log_softmax((weights[..., None] * stacked).sum(axis=0), axis=-1)
        return -log_probs[rows, labels.numpy()].mean() + 0.01 / 2 * (parameters**2).sum()

    bias, slopes = fit_gate(torch_stacked, labels, rule)
    best = optimize.minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-6})
    found = loss(np.concatenate([bias.numpy(), slopes.numpy() * scale]))
    assert found == pytest.approx(best.fun, abs=1e-5)
    assert found < loss(np.zeros(6)) - 0.01


@pytest.mark.parametrize("rule", ["linear", "log_linear"])
def test_a_gate_is_fitted_where_labels_are_ruled_out(rule):
    stacked, labels = members_and_labels(13)
    stacked = minus_infinity_somewhere(stacked, 13)
    assert (of_labels(stacked, labels) == -np.inf).any()
    bias, slopes = fit_gate(stacked, labels, rule)
    assert torch.isfinite(bias).all()
    assert torch.isfinite(slopes).all()
    gate = Gated(bias, slopes, rule)
    assert not gate(stacked).isnan().any()


# Greedy selection


def caruana(stacked, labels, rounds, score):
    """A plain reading: try every model in the bag, add the best one, remember the best bag seen."""
    models = [np.exp(model) for model in stacked.numpy()]
    bag, best_bag, best_score, history = [], [], -math.inf, []
    for _ in range(rounds):
        tried = []
        for candidate in range(len(models)):
            mean = sum(models[k] for k in [*bag, candidate]) / (len(bag) + 1)
            tried.append(score(mean, labels.numpy()))
        bag.append(tried.index(max(tried)))
        history.append(max(tried))
        if max(tried) > best_score:
            best_bag, best_score = list(bag), max(tried)
    counts = Counter(best_bag)
    return [counts[k] for k in range(len(models))], history


def plain_accuracy(mean, labels):
    return (mean.argmax(axis=1) == labels).mean()


def plain_likelihood(mean, labels):
    return np.log(mean[np.arange(len(labels)), labels]).mean()


SCORES = [(lambda log_probs, labels: -nll(log_probs, labels), plain_likelihood), (accuracy, plain_accuracy)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("score", "plain"), SCORES, ids=["nll", "accuracy"])
def test_greedy_selection_is_caruanas(score, plain, seed):
    stacked, labels = members_and_labels(seed, 4, examples=100)
    counts, history = select_greedily(stacked, labels, rounds=12, score=score)
    expected_counts, expected_history = caruana(stacked, labels, 12, plain)
    assert counts == expected_counts
    np.testing.assert_allclose(history, expected_history, atol=1e-12)


@pytest.mark.parametrize(("score", "plain"), SCORES, ids=["nll", "accuracy"])
@given(st.integers(0, 2**16), st.integers(2, 24), st.integers(2, 6), st.integers(20, 120), st.integers(1, 25))
@examples(15)
def test_greedy_selection_picks_what_autogluon_would(score, plain, seed, count, classes, rows, rounds):
    """AutoGluon's EnsembleSelection, from its paper (Caruana et al. 2004, with replacement), by a running mean.

    Each round takes one of the members with the least loss; where several have it AutoGluon draws one of them, and
    this takes the first, as here. What is kept are the rounds up to the first with the least loss of all.
    """
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, rows, classes))
    labels = rng.integers(classes, size=rows)
    logits[:, np.arange(rows), labels] += rng.normal(size=(count, 1))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    mean, picks, losses = np.zeros((rows, classes)), [], []
    for size in range(rounds):
        trials = [mean * (size / (size + 1)) + one / (size + 1) for one in probabilities]
        found = [-plain(trial, labels) for trial in trials]
        least = min(found)
        ties = [k for k, loss in enumerate(found) if loss <= least + 1e-13]  # but for the last bits of a mean
        picks.append(ties[0])
        losses.append(least)
        mean = trials[ties[0]]
    kept = picks[: next(k for k, loss in enumerate(losses) if loss <= min(losses) + 1e-13) + 1]
    counts, history = select_greedily(torch.from_numpy(probabilities).log(), torch.from_numpy(labels),
                                      rounds=rounds, score=score)  # fmt: skip
    assert counts == [kept.count(k) for k in range(count)]
    np.testing.assert_allclose(history, [-loss for loss in losses], atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("score", "plain"), SCORES, ids=["nll", "accuracy"])
def test_greedy_selection_is_no_worse_than_the_best_single(score, plain, seed):
    stacked, labels = members_and_labels(seed, 4, examples=100, skill=(1.0, 0.9, 0.5, -1.0))
    best_single = max(score(member, labels) for member in stacked)
    for rounds in (1, 2, 7):
        counts, history = select_greedily(stacked, labels, rounds=rounds, score=score)
        assert history[0] == pytest.approx(best_single, abs=1e-12)
        weights = torch.tensor(counts, dtype=torch.float64) / sum(counts)
        assert score(Linear(weights)(stacked), labels) == pytest.approx(max(history), abs=1e-12)
        assert max(history) >= best_single - 1e-12
        assert 1 <= sum(counts) <= rounds


def test_greedy_selection_takes_the_first_of_equals():
    stacked, labels = members_and_labels(14, 1)
    counts, history = select_greedily(stacked.expand(3, -1, -1), labels, rounds=4, score=accuracy)
    assert counts == [1, 0, 0]
    assert len(set(history)) == 1


def test_greedy_selection_takes_first_what_leaves_the_fewest_labels_impossible():
    """Three members that only together allow every label but one, which nobody allows."""
    allowed = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 0]], dtype=torch.float64)
    stacked = torch.stack([0.9 * allowed, 1 - 0.9 * allowed], dim=-1).log()
    heldout = Split("heldout", torch.zeros(6, 1), torch.zeros(6, dtype=torch.long), list("abcdef"), "digest")
    members = tuple(Member(name, Architecture("mlp"), {}, "start", 0, {}, name) for name in "abc")
    ingredients = Ingredients(
        Pool("pool", "independent", members), replace(heldout), heldout,
        lambda part, _: stacked["abc".index(part.name)], 0, frozenset({"members", "heldout"}),
    )
    found = greedy_ensemble(ingredients, rounds=3)
    assert found.details["counts"] == {"a": 1, "b": 1, "c": 1}
    assert finite_or_none(found.details)["curve"] == [{"round": k, "heldout_score": None} for k in (1, 2, 3)]


def test_greedy_selection_repairs_a_label_that_the_best_member_rules_out():
    labels = torch.tensor([0, 0, 1])
    stacked = torch.tensor([[[1.0, 0.0]] * 3, [[0.4, 0.6]] * 3]).log()
    counts, history = select_greedily(stacked, labels, rounds=2, score=lambda p, y: -nll(p, y))
    assert counts == [1, 1]
    assert history == [pytest.approx(-nll(stacked[1], labels)), pytest.approx(np.log([0.7, 0.7, 0.3]).mean())]


# Many examples of many classes


@pytest.mark.parametrize("examples_at_once", [1, 7])
@pytest.mark.parametrize(
    "fit",
    [fit_log_linear, lambda *given: fit_gate(*given, "linear"), lambda *given: fit_gate(*given, "log_linear")],
    ids=["log-linear", "linear gate", "log-linear gate"],
)
def test_a_fit_in_blocks_is_the_fit_on_all_at_once(monkeypatch, fit, examples_at_once):
    stacked, labels = members_and_labels(3, members=3, examples=50)
    stacked = minus_infinity_somewhere(stacked, 3)
    whole = fit(stacked, labels)
    monkeypatch.setattr("harness.systems.fitting.BLOCK", examples_at_once * 3 * 4 * 8)
    torch.testing.assert_close(fit(stacked, labels), whole, atol=1e-7, rtol=1e-7)
