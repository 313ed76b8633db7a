"""Every output rule against a plain float64 reading of its definition, and the laws that it must obey."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from harness.systems.rules import (
    RULES,
    Contrast,
    Gated,
    Linear,
    LogLinear,
    Rule,
    Stacked,
    Tempered,
    Vote,
    confidence_features,
    mix_linear,
    mix_log_linear,
    temper,
)
from tests.examples import examples

few = examples(25)
INF = math.inf
ONE_TO_FOUR = st.integers(1, 4)


def normalised(logits):
    return torch.log_softmax(torch.as_tensor(logits, dtype=torch.float64), dim=-1)


def random_stack(seed, members=3, examples=40, classes=5, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return normalised(scale * torch.randn(members, examples, classes, generator=generator, dtype=torch.float64))


@st.composite
def stacks(draw, members=ONE_TO_FOUR):
    """Log-probabilities [M, N, C] in float64; any label may have probability 0, but not all labels of a row."""
    shape = (draw(members), draw(st.integers(1, 3)), draw(st.integers(2, 4)))
    count = math.prod(shape)
    logit = st.floats(-30, 30) | st.sampled_from([-INF, 0.0])
    logits = torch.tensor(draw(st.lists(logit, min_size=count, max_size=count)), dtype=torch.float64).view(shape)
    logits[..., 0] = torch.where(logits.isneginf().all(dim=-1), 0.0, logits[..., 0])
    return normalised(logits)


@st.composite
def stacks_and_weights(draw, on_simplex):
    stacked = draw(stacks())
    size = len(stacked)
    if on_simplex:
        parts = [1, *draw(st.lists(st.integers(0, 5), min_size=size - 1, max_size=size - 1))]
        weights = [part / sum(parts) for part in draw(st.permutations(parts))]
    else:
        weights = draw(st.lists(st.sampled_from([-1.5, -0.3, 0.0, 0.4, 1.0, 2.0]), min_size=size, max_size=size))
    return stacked, torch.tensor(weights, dtype=torch.float64)


def rows(stacked):
    """Every row of a stack as a list of the members' float64 log-probabilities [M, C], with its place."""
    array = stacked.double().numpy()
    for place in np.ndindex(array.shape[1:-1]):
        yield place, array[(slice(None), *place)]


def brute_linear(stacked, weights):
    out = np.zeros(stacked.shape[1:])
    for place, members in rows(stacked):
        for label in range(members.shape[1]):
            out[(*place, label)] = sum(w * math.exp(lp[label]) for w, lp in zip(weights, members, strict=True))
    return out


def brute_log_linear(stacked, weights):
    out = np.zeros(stacked.shape[1:])
    for place, members in rows(stacked):
        scores = []
        for label in range(members.shape[1]):
            score = 0.0
            for w, lps in zip(weights, members, strict=True):
                lp = lps[label]
                if w > 0:
                    score += w * lp
                elif w < 0:
                    score += w * max(lp, min(each for each in lps if each > -INF))
            scores.append(score)
        out[place] = softmax(scores)
    return out


def softmax(scores):
    """Probabilities; equal ones where no label has any."""
    best = max(scores)
    if best == -INF:
        return [1 / len(scores)] * len(scores)
    raised = [math.exp(score - best) for score in scores]
    return [value / sum(raised) for value in raised]


def assert_probabilities(found, expected, tolerance=1e-12):
    assert not torch.isnan(found).any()
    np.testing.assert_allclose(found.double().exp().numpy(), expected, rtol=0, atol=tolerance)


def assert_normalised(log_probs):
    assert not torch.isnan(log_probs).any()
    torch.testing.assert_close(
        log_probs.double().exp().sum(-1), torch.ones(log_probs.shape[:-1], dtype=torch.float64), atol=2e-5, rtol=0
    )


def losses(log_probs, labels):
    return -log_probs.gather(-1, labels.expand(log_probs.shape[:-1]).unsqueeze(-1)).squeeze(-1)


def kl(p, q):
    return (p.exp() * (p - q)).sum(dim=-1)


def every_rule(members, classes=5):
    """One of each kind for members stacked as [members, ..., C]; ``Contrast`` takes three."""
    generator = torch.Generator().manual_seed(members)
    weights = torch.rand(members, generator=generator, dtype=torch.float64)
    weights = weights / weights.sum()
    gate = torch.tensor([0.5, -0.3, 0.8], dtype=torch.float64)
    rules = [
        Linear(weights),
        LogLinear(2 * weights - 0.6),
        Vote(),
        Tempered(Linear(weights), 1.7),
        Tempered(Gated(weights, gate, "log_linear"), 0.4),
        Gated(weights, gate, "linear"),
        Gated(weights, gate, "log_linear"),
    ]
    if members == 3:
        weight = torch.randn(3, classes, classes, generator=generator, dtype=torch.float64)
        rules.append(Stacked(weights, weight, torch.randn(classes, generator=generator, dtype=torch.float64)))
        rules += [Contrast(0.7, mask, threshold) for mask, threshold in CONTRASTS]
        rules.append(Tempered(Contrast(-1.5, "none", 0.1), 2.0))
    return rules


CONTRASTS = [("none", 0.1), ("contrastive", 0.1), ("dexperts", 0.9)]


# What holds for all of them


@few
@given(stacks(members=st.sampled_from([1, 2, 3])))
def test_rows_are_normalised_and_zeros_make_no_nan(stacked):
    for rule in every_rule(len(stacked), stacked.shape[-1]):
        found = rule(stacked.float())
        assert found.dtype == torch.float32
        assert found.shape == stacked.shape[1:]
        assert_normalised(found)


@pytest.mark.parametrize("rule", every_rule(3), ids=lambda rule: repr(rule)[:40])
def test_float32_is_as_good_as_float64_up_to_rounding(rule):
    stacked = random_stack(1)
    torch.testing.assert_close(rule(stacked.float()).double(), rule(stacked), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rule", every_rule(3), ids=lambda rule: repr(rule)[:40])
def test_tokens_are_examples_and_examples_do_not_meet(rule):
    stacked = random_stack(2, examples=12)
    expected = rule(stacked)
    torch.testing.assert_close(rule(stacked.view(3, 3, 4, 5)), expected.view(3, 4, 5), rtol=0, atol=1e-14)
    for n in range(12):
        torch.testing.assert_close(rule(stacked[:, n]), expected[n], rtol=0, atol=1e-14)


@pytest.mark.parametrize("rule", every_rule(3), ids=lambda rule: repr(rule)[:40])
def test_a_rule_runs_where_the_predictions_are(rule):
    """A fitted rule's tensors are on the CPU; "meta" stands for any other device."""
    assert rule(torch.empty(3, 7, 5, device="meta")).device.type == "meta"


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_save_and_load_is_every_rule_again(tmp_path, precision):
    kinds = {cls for cls in RULES.values() if cls.__module__ == "harness.systems.rules"}
    assert {type(rule) for rule in every_rule(3)} == kinds
    stacked = random_stack(3).to(precision)
    for number, rule in enumerate(every_rule(3)):
        folder = tmp_path / str(number)
        folder.mkdir()
        rule.save(folder)
        again = Rule.load(folder)
        assert_same_rule(again, rule)
        assert torch.equal(again(stacked), rule(stacked))


def assert_same_rule(found, expected):
    assert type(found) is type(expected)
    for field in fields(expected):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(other, torch.Tensor):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
        elif isinstance(other, Rule):
            assert_same_rule(one, other)
        else:
            assert one == other


# Members that cannot change the result


@few
@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.3, 1.0, 2.5, -0.7]), min_size=1, max_size=40),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(1, 300),
)
def test_a_rule_on_the_members_that_it_uses_is_the_rule_bit_for_bit(weights, precision, classes):
    stacked = random_stack(len(weights), len(weights), 3, classes).to(precision)
    weights = torch.tensor(weights, dtype=torch.float64)
    shares = weights.abs() / weights.abs().sum() if weights.any() else weights.index_fill(0, torch.tensor(0), 1.0)
    for rule in (Linear(shares), LogLinear(weights), Tempered(Tempered(LogLinear(weights), 2.0), 0.7)):
        constant = shares if isinstance(rule, Linear) else weights
        fewer = rule.used()
        assert (fewer is None) == (constant.all().item() or len(constant) == 1)
        if fewer:
            smaller, kept = fewer
            assert kept == (constant.nonzero().flatten().tolist() or [0])
            assert torch.equal(smaller(stacked[kept]), rule(stacked))
            spoiled = stacked.clone()
            spoiled[[k for k in range(len(weights)) if k not in kept]] = torch.nan
            assert torch.equal(rule(spoiled), rule(stacked))


@pytest.mark.parametrize("mask", ["none", "contrastive", "dexperts"])
def test_evidence_of_no_weight_leaves_the_base_bit_for_bit(mask):
    stacked = random_stack(0)
    rule, kept = Contrast(0.0, mask, 0.1).used()
    assert kept == [0]
    assert torch.equal(rule(stacked[:1]), Contrast(0.0, mask, 0.1)(stacked))
    assert torch.equal(rule(stacked[:1]), stacked[0])
    assert Contrast(0.1, mask, 0.1).used() is None


# Linear interpolation


@few
@given(stacks_and_weights(on_simplex=True))
def test_linear_is_the_weighted_mean_of_the_probabilities(given_):
    stacked, weights = given_
    assert_probabilities(Linear(weights)(stacked), brute_linear(stacked, weights.tolist()))
    assert_probabilities(Linear(weights)(stacked.float()), brute_linear(stacked, weights.tolist()), 1e-5)


@few
@given(stacks_and_weights(on_simplex=True))
def test_linear_is_no_worse_than_the_mean_loss_of_its_members(given_):
    stacked, weights = given_
    labels = torch.arange(stacked.shape[1]) % stacked.shape[2]
    each = losses(stacked, labels)
    bound = sum(w * loss for w, loss in zip(weights, each, strict=True) if w > 0)
    assert (losses(Linear(weights)(stacked), labels) <= bound + 1e-12).all()


@few
@given(stacks_and_weights(on_simplex=True))
def test_linear_keeps_what_any_member_believes_possible(given_):
    stacked, weights = given_
    possible = ~stacked[weights > 0].isneginf().all(dim=0)
    assert torch.equal(~Linear(weights)(stacked).isneginf(), possible)


# Log-linear interpolation


@few
@given(stacks_and_weights(on_simplex=False))
@example((torch.tensor([[[0.0, -INF]], [[-INF, 0.0]]], dtype=torch.float64), torch.tensor([1.0, 1.0])))
def test_log_linear_is_the_normalised_weighted_product(given_):
    stacked, weights = given_
    assert_probabilities(LogLinear(weights)(stacked), brute_log_linear(stacked, weights.tolist()), 1e-9)
    found = LogLinear(weights)(stacked.float())
    assert_probabilities(found, brute_log_linear(stacked.float(), weights.float().tolist()), 1e-4)


@few
@given(stacks_and_weights(on_simplex=True))
def test_log_linear_excludes_what_any_member_excludes(given_):
    stacked, weights = given_
    excluded = stacked[weights > 0].isneginf().any(dim=0)
    agreed = ~excluded.all(dim=-1, keepdim=True)
    found = LogLinear(weights)(stacked)
    assert torch.equal(found.isneginf(), excluded & agreed)
    torch.testing.assert_close(
        found[~agreed.squeeze(-1)].exp(), torch.full_like(found[~agreed.squeeze(-1)], 1 / found.shape[-1])
    )


def test_zero_weight_times_minus_infinity_is_nothing():
    stacked = normalised([[[0.3, -1.0, 0.2]], [[-INF, 0.0, -INF]], [[1.0, 0.0, -INF]]])
    weights = torch.tensor([0.5, 0.0, 0.0], dtype=torch.float64)
    assert_probabilities(LogLinear(weights)(stacked), brute_log_linear(stacked[:1], [0.5]))
    assert_probabilities(Linear(torch.tensor([0.5, 0.0, 0.5]))(stacked), brute_linear(stacked[[0, 2]], [0.5, 0.5]))


def test_a_zero_of_a_member_with_negative_weight_is_no_veto_and_no_infinity():
    stacked = normalised([[[0.3, -1.0, -INF]], [[-INF, 0.0, 0.0]]])
    found = LogLinear(torch.tensor([1.0, -0.5], dtype=torch.float64))(stacked)
    assert not found.isnan().any()
    assert found[0].isneginf().tolist() == [False, False, True]
    torch.testing.assert_close(found, stacked[0])  # of the others it says the same


@few
@given(stacks(members=st.just(2)), st.sampled_from([-0.3, -1.5]))
def test_a_zero_counts_against_its_label_as_the_faintest_possible_one_does(stacked, weight):
    """So it moves the label no further from any other than the member's own words move that."""
    others, against = stacked
    moved = (LogLinear(torch.tensor([1.0, weight], dtype=torch.float64))(stacked) - others).nan_to_num(-INF)
    zero, faintest = against.isneginf(), against.where(~against.isneginf(), INF).argmin(dim=-1, keepdim=True)
    fair = moved.gather(-1, faintest).expand_as(moved)
    counted = zero & ~others.isneginf() & ~fair.isneginf()
    torch.testing.assert_close(moved[counted], fair[counted], atol=1e-9, rtol=1e-9)


@few
@given(stacks(members=st.just(2)), st.sampled_from([0.5, 4.0]), st.sampled_from([1.2, -0.7]))
def test_a_tempered_member_with_as_much_more_weight_is_the_member(stacked, temperature, weight):
    tempered = torch.stack([stacked[0], temper(stacked[1], temperature)])
    weights = torch.tensor([[1.0, weight], [1.0, weight * temperature]], dtype=torch.float64)
    torch.testing.assert_close(LogLinear(weights[1])(tempered), LogLinear(weights[0])(stacked), atol=1e-9, rtol=1e-9)


def test_uniform_log_linear_is_the_average_of_logits():
    logits = 5 * torch.randn(4, 30, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    logits = logits + 10 * torch.arange(4.0).view(4, 1, 1)  # a shift of all of a member's logits means nothing
    found = LogLinear(torch.full((4,), 0.25))(normalised(logits))
    torch.testing.assert_close(found, normalised(logits.mean(dim=0)), rtol=1e-12, atol=1e-12)


def test_ambiguity_identity():
    stacked = random_stack(5, members=4, scale=3.0)
    labels = torch.randint(5, (40,), generator=torch.Generator().manual_seed(5))
    mean = LogLinear(torch.full((4,), 0.25))(stacked)
    ambiguity = kl(mean, stacked).mean(dim=0)
    assert (ambiguity > 0).all()
    torch.testing.assert_close(losses(mean, labels), losses(stacked, labels).mean(dim=0) - ambiguity)


# Both


@few
@given(stacks(), st.sampled_from([Linear, LogLinear]), st.data())
def test_one_member_with_all_the_weight_is_itself_bit_for_bit(stacked, kind, data):
    chosen = data.draw(st.integers(0, len(stacked) - 1))
    weights = torch.zeros(len(stacked)).index_fill(0, torch.tensor(chosen), 1.0)
    for precision in (torch.float32, torch.float64):
        assert torch.equal(kind(weights)(stacked.to(precision)), stacked[chosen].to(precision))


@few
@given(stacks(members=st.just(1)), st.sampled_from([Linear, LogLinear]), st.integers(0, 3))
def test_identical_members_change_nothing(stacked, kind, first):
    weights = torch.tensor([first, 1, 2], dtype=torch.float64) / (first + 3)
    assert_probabilities(kind(weights)(stacked.expand(3, -1, -1)), stacked[0].exp().numpy())


def test_weights_of_its_own_for_every_example():
    stacked = random_stack(6, examples=8)
    generator = torch.Generator().manual_seed(6)
    weights = torch.softmax(torch.randn(3, 8, generator=generator, dtype=torch.float64), dim=0)
    for n in range(8):
        alone, given_ = stacked[:, n : n + 1], weights[:, n].tolist()
        assert_probabilities(mix_linear(stacked, weights)[n : n + 1], brute_linear(alone, given_))
        assert_probabilities(mix_log_linear(stacked, weights)[n : n + 1], brute_log_linear(alone, given_))


# Vote


def brute_vote(stacked):
    out = np.zeros(stacked.shape[1:])
    for place, members in rows(stacked):
        count, classes = members.shape
        votes = [0.0] * classes
        for lp in members:
            votes[max(range(classes), key=lambda label: lp[label])] += 1
        for label in range(classes):
            mean = sum(math.exp(lp[label]) for lp in members) / count
            out[(*place, label)] = (votes[label] + mean) / (count + 1)
    return out


@few
@given(stacks())
def test_vote_counts_votes_and_one_mean_vote(stacked):
    assert_probabilities(Vote()(stacked), brute_vote(stacked))


@few
@given(stacks())
def test_the_label_with_most_votes_wins_and_the_mean_decides_between_equals(stacked):
    votes = torch.stack([(stacked.argmax(dim=-1) == label).sum(dim=0) for label in range(stacked.shape[-1])], dim=-1)
    found, mean = Vote()(stacked), stacked.exp().mean(dim=0)
    most = votes.max(dim=-1, keepdim=True).values
    winner = found.argmax(dim=-1, keepdim=True)
    assert torch.equal(votes.gather(-1, winner), most)
    best = mean.where(votes == most, -1.0).max(dim=-1, keepdim=True).values
    assert (mean.gather(-1, winner) >= best - 1e-12).all()
    assert torch.equal(found.isneginf(), stacked.isneginf().all(dim=0))


def test_two_voices_outvote_a_certain_one():
    stacked = torch.tensor([[[0.51, 0.49]], [[0.51, 0.49]], [[0.0, 1.0]]]).log()
    assert Vote()(stacked).argmax() == 0
    assert Linear(torch.full((3,), 1 / 3))(stacked).argmax() == 1


# Temperature


@few
@given(stacks(), st.sampled_from([0.05, 0.5, 1.0, 3.0, 20.0]))
def test_temperature_raises_to_a_power_and_keeps_the_order(stacked, temperature):
    weights = torch.full((len(stacked),), 1 / len(stacked))
    found = Tempered(Linear(weights), temperature)(stacked)
    plain = Linear(weights)(stacked)
    assert_probabilities(found, [softmax([lp / temperature for lp in row]) for row in plain.tolist()], 1e-11)
    best = plain.argmax(dim=-1, keepdim=True)
    assert torch.equal(found.gather(-1, best).squeeze(-1), found.max(dim=-1).values)
    rising = plain.sort(dim=-1).indices
    assert (found.gather(-1, rising).diff(dim=-1).nan_to_num(0.0) >= 0).all()  # -inf less -inf is no fall


def test_temperatures_multiply_and_one_is_nothing():
    log_probs = random_stack(7)[0]
    torch.testing.assert_close(temper(temper(log_probs, 0.5), 4.0), temper(log_probs, 2.0))
    torch.testing.assert_close(temper(log_probs, 1.0), log_probs)


# Negative evidence


def allowed_labels(mask, threshold, base, expert):
    """The labels that the papers keep for one example's probabilities."""
    classes = range(len(base))
    if mask == "contrastive":
        return {label for label in classes if expert[label] >= threshold * max(expert)}
    if mask == "dexperts":
        kept, total = set(), 0.0
        for label in sorted(classes, key=lambda label: -base[label]):
            if total >= threshold:
                break
            kept.add(label)
            total += base[label]
        return kept
    return set(classes)


@pytest.mark.parametrize(("mask", "threshold"), [*CONTRASTS, ("contrastive", 0.5), ("dexperts", 0.3)])
@pytest.mark.parametrize("a", [0.5, 1.0, 2.0, -0.4])
def test_contrast_is_the_formula_on_the_labels_that_the_paper_keeps(mask, threshold, a):
    stacked = random_stack(8, examples=60)
    found = Contrast(a, mask, threshold)(stacked)
    removed = 0
    for n in range(60):
        base, expert, anti = stacked[:, n].tolist()
        kept = allowed_labels(mask, threshold, np.exp(base), np.exp(expert))
        removed += 5 - len(kept)
        scores = [base[i] + a * (expert[i] - anti[i]) if i in kept else -INF for i in range(5)]
        assert_probabilities(found[n], softmax(scores))
    assert (removed > 0) == (mask != "none")


@few
@given(stacks(members=st.just(3)), st.sampled_from(CONTRASTS))
def test_no_contrast_is_the_base(stacked, mask):
    assert_probabilities(Contrast(0.0, *mask)(stacked), stacked[0].exp().numpy())


@few
@given(stacks(members=st.just(2)), st.sampled_from([0.5, 3.0, -2.0]))
def test_an_expert_that_is_its_own_anti_expert_gives_the_base(pair, a):
    stacked = pair[[0, 1, 1]]
    assert_probabilities(Contrast(a, "none", 0.1)(stacked), stacked[0].exp().numpy())


@few
@given(stacks(members=st.just(3)), st.sampled_from(CONTRASTS), st.sampled_from([0.5, -2.0]))
def test_contrast_raises_nothing_that_the_base_excludes(stacked, mask, a):
    found = Contrast(a, *mask)(stacked)
    assert_normalised(found)
    assert found[stacked[0].isneginf()].isneginf().all()


@few
@given(stacks(members=st.just(3)), st.sampled_from([0.5, 3.0, -2.0]))
def test_contrast_is_log_linear_where_expert_and_anti_expert_do_not_exclude_the_same(stacked, a):
    base, expert, anti = stacked
    plain = mix_log_linear(stacked, torch.tensor([1.0, a, -a], dtype=torch.float64))
    vetoed = (expert if a > 0 else anti).isneginf() | base.isneginf()
    same = ~(expert.isneginf() & anti.isneginf()).any(dim=-1) & ~vetoed.all(dim=-1)
    torch.testing.assert_close(Contrast(a, "none", 0.1)(stacked)[same], plain[same], atol=1e-12, rtol=1e-12)
    left = vetoed.all(dim=-1) & ~(expert.isneginf() & anti.isneginf()).any(dim=-1)
    torch.testing.assert_close(Contrast(a, "none", 0.1)(stacked)[left], base[left])


def test_a_mask_that_leaves_the_base_nothing_is_dropped():
    base, expert = torch.tensor([[0.0, 0.6, 0.4]]).log(), torch.tensor([[1.0, 0.0, 0.0]]).log()
    stacked = torch.stack([base, expert, base])
    found = Contrast(0.5, "contrastive", 0.1)(stacked)
    assert torch.equal(found, Contrast(0.5, "none", 0.1)(stacked))
    assert_normalised(found)


# Context-dependent weights


def test_what_a_gate_sees():
    stacked = random_stack(9, examples=10)
    probabilities = stacked.exp().numpy()
    features = confidence_features(stacked)
    for k in range(3):
        for n in range(10):
            p = probabilities[k, n]
            entropy = -sum(value * math.log(value) for value in p)
            support = np.log(probabilities[:, n, p.argmax()].mean())
            np.testing.assert_allclose(features[k, n], [math.log(p.max()), entropy, support], atol=1e-6)


@few
@given(stacks())
def test_gated_weights_are_on_the_simplex_and_are_what_is_mixed(stacked):
    bias, slopes = torch.linspace(-1, 1, len(stacked), dtype=torch.float64), torch.tensor([0.4, -0.2, 0.9]).double()
    scores = confidence_features(stacked) @ slopes + bias.view(-1, 1)
    weights = Gated(bias, slopes, "linear").weights(stacked)
    assert weights.shape == stacked.shape[:-1]
    np.testing.assert_allclose(weights.T, [softmax(each) for each in scores.T.tolist()], atol=1e-12)
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(stacked.shape[1], dtype=torch.float64))
    for rule, brute in (("linear", brute_linear), ("log_linear", brute_log_linear)):
        found = Gated(bias, slopes, rule)(stacked)
        for n in range(stacked.shape[1]):
            assert_probabilities(found[n : n + 1], brute(stacked[:, n : n + 1], weights[:, n].tolist()))


@few
@given(stacks(members=st.integers(2, 4)))
def test_a_gate_without_slopes_has_constant_weights(stacked):
    bias = torch.linspace(0, 1, len(stacked), dtype=torch.float64)
    for rule, kind in (("linear", Linear), ("log_linear", LogLinear)):
        found = Gated(bias, torch.zeros(3, dtype=torch.float64), rule)(stacked)
        torch.testing.assert_close(found, kind(torch.softmax(bias, dim=0))(stacked))


def test_a_gate_that_likes_confidence_trusts_the_surest_member():
    stacked = torch.tensor([[[0.98, 0.02], [0.5, 0.5]], [[0.5, 0.5], [0.03, 0.97]]], dtype=torch.float64).log()
    weights = Gated(torch.zeros(2), torch.tensor([20.0, 0.0, 0.0]), "linear").weights(stacked)
    assert weights[0, 0] > 0.99
    assert weights[1, 1] > 0.99
