"""Correlations over subsets of members against scipy and their plain readings."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness import stats
from tests.examples import examples
from tests.stats.intervals import bounds, width

SCORES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=12)
COEFFICIENTS = {
    "pearson": scipy_stats.pearsonr,
    "spearman": scipy_stats.spearmanr,
    "kendall": scipy_stats.kendalltau,
}


def pairs_of(members):
    chosen = list(itertools.combinations(range(members), 2))
    return np.array([[m in subset for m in range(members)] for subset in chosen])


@given(SCORES)
@examples(60)
def test_coefficients_are_those_of_scipy_with_ties_and_all(scores):
    x, y = np.array(scores, float).T
    found = stats.correlation(x, y, np.eye(len(x), dtype=bool))
    for name, oracle in COEFFICIENTS.items():
        value = getattr(found, name).value
        if np.ptp(x) and np.ptp(y):
            assert value == pytest.approx(oracle(x, y).statistic, abs=1e-9)
        else:
            assert math.isnan(value)


@pytest.mark.parametrize("missing", [[], [0, 7]], ids=["all pairs", "two pairs missing"])
def test_intervals_are_the_jackknife_of_fishers_z_with_each_member_left_out(missing):
    members = 6
    rng = np.random.default_rng(0)
    membership = np.delete(pairs_of(members), missing, axis=0)
    x, y = np.round(rng.normal(size=(2, len(membership))), 1)  # rounded: ties
    found = stats.correlation(x, y, membership)
    for name, oracle in COEFFICIENTS.items():
        without = [oracle(x[~membership[:, m]], y[~membership[:, m]]).statistic for m in range(members)]
        z, each = np.arctanh(oracle(x, y).statistic), np.arctanh(without)
        error = math.sqrt((members - 1) ** 2 / members * each.var(ddof=1))
        half = scipy_stats.t.ppf(0.975, members - 1) * error
        assert bounds(getattr(found, name)) == pytest.approx(np.tanh([z - half, z + half]), abs=1e-9)


def test_what_it_was_computed_from_is_counted():
    membership = np.hstack([pairs_of(6), np.zeros((15, 2), bool)])
    x = np.random.default_rng(0).normal(size=15)
    found = stats.correlation(x, x**3, membership)
    assert (found.n, found.members, found.draws, found.draws_used) == (15, 6, 6, 6)
    assert found.pearson.n == found.kendall.n == 15


def test_one_order_is_a_rank_correlation_of_one_and_its_reverse_of_minus_one():
    x = np.random.default_rng(0).normal(size=15)
    same, reverse = (stats.correlation(x, sign * np.exp(x), pairs_of(6)) for sign in (1, -1))
    for name in ("spearman", "kendall"):
        assert (getattr(same, name).value, *bounds(getattr(same, name))) == pytest.approx((1, 1, 1))
        assert (getattr(reverse, name).value, *bounds(getattr(reverse, name))) == pytest.approx((-1, -1, -1))
    assert 0 < same.pearson.low < same.pearson.value < 1


def test_independent_points_have_the_interval_that_fisher_gives():
    """Subsets of one member each: the ordinary jackknife of points."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=200)
    y = 0.6 * x + 0.8 * rng.normal(size=200)
    found = stats.correlation(x, y, np.eye(200, dtype=bool)).pearson
    oracle = scipy_stats.pearsonr(x, y).confidence_interval(0.95)
    assert bounds(found) == pytest.approx((oracle.low, oracle.high), abs=0.03)


def test_shared_members_make_the_interval_wider_than_if_subsets_were_independent():
    rng = np.random.default_rng(0)
    membership = pairs_of(8)
    skill = membership @ rng.normal(size=(8, 2))
    x, y = skill[:, 0], skill[:, 0] + 0.7 * skill[:, 1]
    shared = stats.correlation(x, y, membership).pearson
    apart = stats.correlation(x, y, np.eye(len(x), dtype=bool)).pearson
    assert shared.value == apart.value
    assert width(shared) > 1.3 * width(apart)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1 / 3, 1e9])
def test_a_constant_score_has_no_correlation(constant):
    varying = np.random.default_rng(0).normal(size=15)
    for x, y in ((varying, np.full(15, constant)), (np.full(15, constant), varying)):
        found = stats.correlation(x, y, pairs_of(6))
        assert found.draws_used == 0
        for name in COEFFICIENTS:
            interval = getattr(found, name)
            assert np.isnan([interval.value, *bounds(interval)]).all()
            assert stats.verdict(interval, None) == "unclear"


def test_one_subset_has_no_correlation():
    found = stats.correlation([1.0], [2.0], [[True, True]])
    assert math.isnan(found.pearson.value)
    assert math.isnan(found.kendall.low)


@pytest.mark.parametrize(
    "membership",
    [pairs_of(3), np.array([[True, True, True]] * 4), ~np.eye(8, dtype=bool), pairs_of(4)[:5]],
    ids=["three members", "one subset again and again", "all but one member each", "a member in all but two"],
)
def test_where_a_member_cannot_be_left_out_there_is_a_value_but_no_interval(membership):
    x, y = np.random.default_rng(0).normal(size=(2, len(membership)))
    found = stats.correlation(x, y, membership)
    assert found.draws_used < found.draws
    for name, oracle in COEFFICIENTS.items():
        interval = getattr(found, name)
        assert interval.value == pytest.approx(oracle(x, y).statistic, abs=1e-9)
        assert np.isnan(bounds(interval)).all()


def simulated(rng, membership, rho, noise, of_size):
    """Scores of subsets whose members have correlated effects; larger ones are better in both."""
    one = rng.normal(size=membership.shape[1])
    other = rho * one + math.sqrt(1 - rho**2) * rng.normal(size=len(one))
    size = membership.sum(axis=1)
    better = of_size * (1 - 1 / size)
    return (membership @ effect / size + better + noise * rng.normal(size=len(size)) for effect in (one, other))


def true_correlation(membership, rho, noise, of_size):
    size = membership.sum(axis=1)
    between, within = of_size**2 * np.var(1 - 1 / size), np.mean(1 / size)
    return (between + rho * within) / (between + within + noise**2)


@pytest.mark.parametrize(("rho", "noise", "of_size"), [(0.0, 0.1, 0.0), (0.7, 0.1, 0.0), (0.95, 0.05, 0.5)])
@pytest.mark.parametrize("members", [4, 6, 8, 24])
def test_they_cover_the_truth_as_often_as_they_say_or_more(members, rho, noise, of_size):
    """Of a population of members; few members leave it wide and sure rather than narrow and wrong."""
    rng, draws = np.random.default_rng(3), 500
    sizes = [s for k in (2, 3, 4) if k < members for s in itertools.combinations(range(members), k)]
    chosen = rng.permutation(len(sizes))[:64]
    membership = np.array([[m in sizes[i] for m in range(members)] for i in chosen])
    truth = true_correlation(membership, rho, noise, of_size)
    found = [stats.correlation(*simulated(rng, membership, rho, noise, of_size), membership) for _ in range(draws)]
    hits = np.mean([one.pearson.low <= truth <= one.pearson.high for one in found])
    assert hits > 0.94 - 2 * math.sqrt(0.05 * 0.95 / draws)


def test_the_order_and_the_scale_of_the_scores_do_not_matter():
    rng = np.random.default_rng(0)
    membership = pairs_of(6)
    x, y = rng.normal(size=(2, 15))
    order = rng.permutation(15)
    plain = stats.correlation(x, y, membership)
    moved = stats.correlation(7 * x[order] - 3, y[order] / 9, membership[order])
    for name in COEFFICIENTS:
        before, after = getattr(plain, name), getattr(moved, name)
        assert (after.value, *bounds(after)) == pytest.approx((before.value, *bounds(before)), abs=1e-9)


@pytest.mark.parametrize(
    ("x", "y", "membership", "words"),
    [
        ([1.0, math.nan], [1.0, 2.0], [[1, 0], [0, 1]], "finite"),
        ([1.0, 2.0], [math.inf, 2.0], [[1, 0], [0, 1]], "finite"),
        ([1.0, 2.0, 3.0], [1.0, 2.0], [[1, 0], [0, 1]], "same subsets"),
        ([1.0, 2.0], [1.0, 2.0], [[1, 0]], "same subsets"),
        ([1.0, 2.0], [1.0, 2.0], [1, 0], "same subsets"),
        ([], [], np.zeros((0, 2)), "same subsets"),
        ([1.0, 2.0], [1.0, 2.0], [[1, 0], [0, 0]], "no members"),
    ],
)
def test_scores_that_do_not_fit_are_refused(x, y, membership, words):
    with pytest.raises(ValueError, match=words):
        stats.correlation(x, y, membership)
