"""Intervals and tests of proportions against statsmodels and the multinomial likelihood."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from harness import stats
from tests.examples import examples
from tests.stats.intervals import assert_is_95_percent, bounds, covers, width


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
@examples(100)
def test_wilson_is_that_of_statsmodels(counted, confidence):
    successes, n = counted
    found = stats.wilson(successes, n, confidence)
    oracle = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    assert bounds(found) == pytest.approx(oracle, abs=1e-12)
    assert (found.value, found.n) == (successes / n, n)
    assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize(("successes", "n", "words"), [(0, 0, "at least one"), (3, 2, "3 succ"), (-1, 2, "-1 succ")])
def test_wilson_refuses_what_is_no_proportion(successes, n, words):
    with pytest.raises(ValueError, match=words):
        stats.wilson(successes, n)


def test_wilson_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = [covers(stats.wilson(rng.binomial(150, p), 150), p) for p in rng.uniform(0.2, 0.95, size=400)]
    assert_is_95_percent(hits)


@given(st.integers(1, 5), st.integers(1, 60), st.floats(0, 1), st.integers(0, 2**32 - 1))
@examples(100)
def test_a_proportion_over_seeds_is_never_known_without_doubt(seeds, items, share, draw):
    right = np.random.default_rng(draw).random((seeds, items)) < share
    found = stats.proportion_over_seeds(right)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.value == pytest.approx(right.mean())
    assert width(found) > 0
    if seeds == 1:
        assert bounds(found) == bounds(stats.wilson(int(right.sum()), items))


@pytest.mark.parametrize("wrong", [0, 1, 9])
def test_where_hardly_an_answer_is_wrong_it_is_no_narrower_than_wilsons(wrong):
    right = np.ones((3, 2000))
    right[:, :wrong] = 0
    found = stats.proportion_over_seeds(right)
    assert found.low <= stats.wilson(2000 - wrong, 2000).low
    upside_down = stats.proportion_over_seeds(1 - right)
    assert bounds(upside_down) == pytest.approx((1 - found.high, 1 - found.low))
    right[:, :10] = 0
    assert bounds(stats.proportion_over_seeds(right)) == pytest.approx(bounds(stats.over_seeds(right)))


def test_nearly_perfect_models_over_seeds_are_covered_as_often_as_it_says_or_more():
    """Of every item some chance to be wrong, the same for all seeds: a bootstrap would often say 100 % and no doubt."""
    rng, hits = np.random.default_rng(0), []
    for _ in range(600):
        chance = rng.beta(0.05, 9.95, size=400)  # 0.5 % of the answers are wrong
        hits.append(covers(stats.proportion_over_seeds(rng.random((3, 400)) > chance), 0.995))
    assert np.mean(hits) >= 0.94


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((0, 3)), np.full((2, 2), 0.5), np.full((1, 2), np.nan)])
def test_a_proportion_is_of_zeros_and_ones(bad):
    with pytest.raises(ValueError, match="zeros and ones"):
        stats.proportion_over_seeds(bad)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 10), st.integers(0, 10))
@examples(60)
def test_mcnemar_is_that_of_statsmodels(gained, lost, both, neither):
    candidate = np.repeat([True, False, True, False], [gained, lost, both, neither])
    reference = np.repeat([False, True, True, False], [gained, lost, both, neither])
    oracle = mcnemar([[both, gained], [lost, neither]], exact=True).pvalue if gained + lost else 1.0
    assert stats.mcnemar_exact(candidate, reference) == pytest.approx(oracle, abs=1e-12)
    assert stats.mcnemar_exact(reference, candidate) == pytest.approx(oracle, abs=1e-12)


def likeliest_lost(gained, lost, n, difference):
    """The most likely share of items that only the reference has right, given the true difference: by a fine search."""
    same = n - gained - lost
    shares = np.linspace(max(0.0, -difference), (1 - difference) / 2, 400_001)[1:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = ((gained, shares + difference), (lost, shares), (same, 1 - 2 * shares - difference))
        likelihood = sum(count * np.log(share) for count, share in terms if count)
    return shares[np.nanargmax(likelihood)]


@pytest.mark.parametrize(("gained", "lost", "n"), [(12, 30, 200), (3, 1, 20), (0, 7, 40), (5, 0, 9), (60, 55, 2500)])
def test_the_ends_of_the_paired_interval_are_where_the_score_test_rejects(gained, lost, n):
    """The oracle maximises the multinomial likelihood by search; at either end the score is then 1.96."""
    found = stats.paired_proportions(gained, lost, n)
    for end, expected in ((found.low, 1.96), (found.high, -1.96)):
        share = likeliest_lost(gained, lost, n, end)
        score = (gained - lost - n * end) / math.sqrt(n * (2 * share + end * (1 - end)))
        assert score == pytest.approx(expected, abs=2e-3)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 300))
@examples(60)
def test_the_paired_interval_excludes_0_exactly_where_mcnemars_chi_squared_rejects(gained, lost, same):
    n = gained + lost + same
    if not gained + lost:
        return
    oracle = mcnemar([[same, gained], [lost, 0]], exact=False, correction=False)
    found = stats.paired_proportions(gained, lost, n)
    assert (found.low > 0 or found.high < 0) == (oracle.statistic > scipy_stats.chi2.isf(0.05, 1))
    assert -1 <= found.low <= found.value <= found.high <= 1
    other = stats.paired_proportions(lost, gained, n)
    assert bounds(other) == pytest.approx((-found.high, -found.low), abs=1e-9)
    assert width(stats.paired_proportions(gained, lost, n, confidence=0.9)) < width(found)


def test_models_that_never_differed_may_still_differ_elsewhere():
    few, many = stats.paired_proportions(0, 0, 20), stats.paired_proportions(0, 0, 2000)
    assert few.low == -few.high
    assert 0 < width(many) < width(few) / 50


@pytest.mark.parametrize("counts", [(0, 0, 0), (-1, 0, 5), (3, 3, 5), (0.5, 0, 5)])
def test_the_paired_interval_refuses_what_are_no_counts(counts):
    with pytest.raises(ValueError, match="no counts"):
        stats.paired_proportions(*counts)


@pytest.mark.parametrize(("n", "discordance", "difference"), [(60, 0.1, 0.0), (500, 0.05, -0.02), (2500, 0.1, -0.03)])
def test_the_paired_interval_covers_the_truth_within_a_point_of_nominal(n, discordance, difference):
    gained, lost = (discordance + difference) / 2, (discordance - difference) / 2
    drawn = np.random.default_rng(0).multinomial(n, [gained, lost, 1 - discordance], size=20_000)
    cases, times = np.unique(drawn[:, :2], axis=0, return_counts=True)
    hits = [covers(stats.paired_proportions(int(g), int(b), n), difference) for g, b in cases]
    assert abs(np.average(hits, weights=times) - 0.95) < 0.01


def test_power_and_examples_are_those_of_measurement():
    assert stats.examples_needed(0.02, 0.10) == pytest.approx(1550, rel=0.01)
    assert stats.examples_needed(0.01, 0.10) == pytest.approx(6200, rel=0.01)


def test_models_a_margin_apart_differ_on_at_least_as_many_examples():
    assert 1 < stats.examples_needed(0.2, 0.01) < stats.examples_needed(0.2, 0.2)


@given(st.floats(0.005, 0.05), st.floats(0.06, 0.3), st.floats(-0.004, 0.05), st.floats(0.55, 0.95))
@examples(60)
def test_the_examples_needed_are_the_fewest_with_that_power(margin, discordance, difference, power):
    n = stats.examples_needed(margin, discordance, difference, power=power)
    assert stats.paired_power(n, margin, discordance, difference) >= power - 1e-9
    assert n == 1 or stats.paired_power(n - 1, margin, discordance, difference) < power + 1e-9


def test_power_is_how_often_the_test_passes():
    n, margin, discordance = 1000, 0.02, 0.08
    drawn = np.random.default_rng(0).multinomial(n, [0.04, 0.04, 0.92], size=20_000)
    cases, times = np.unique(drawn[:, :2], axis=0, return_counts=True)
    passed = [stats.paired_proportions(int(g), int(b), n, confidence=0.9).low >= -margin for g, b in cases]
    assert stats.paired_power(n, margin, discordance) == pytest.approx(np.average(passed, weights=times), abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((0.02, 0.0), "discordance of 0.0"), ((0.02, 0.1, -0.02), "not above"), ((0.02, 0.1, 0.2), "differ by 0.2"),
     ((-0.1, 0.1), "margin -0.1"), ((math.nan, 0.1), "margin nan")],
)  # fmt: skip
def test_power_refuses_what_cannot_be(arguments, words):
    with pytest.raises(ValueError, match=words):
        stats.examples_needed(*arguments)
