"""Correlations over subsets of members against scipy and their plain readings."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness import stats
from harness.stats.resampling import draw_counts
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
@settings(max_examples=60, deadline=None)
def test_coefficients_are_those_of_scipy_with_ties_and_all(scores):
    x, y = np.array(scores, float).T
    found = stats.correlation(x, y, np.eye(len(x), dtype=bool), draws=20)
    for name, oracle in COEFFICIENTS.items():
        value = getattr(found, name).value
        if np.ptp(x) and np.ptp(y):
            assert value == pytest.approx(oracle(x, y).statistic, abs=1e-9)
        else:
            assert math.isnan(value)


@pytest.mark.parametrize("left_out", [[], [0, 7]], ids=["all pairs", "two pairs left out"])
def test_intervals_are_those_of_points_repeated_as_often_as_their_members_are_drawn(left_out):
    members, draws = 5, 150
    rng = np.random.default_rng(0)
    membership = np.delete(pairs_of(members), left_out, axis=0)
    x, y = np.round(rng.normal(size=(2, len(membership))), 1)  # rounded: ties
    found = stats.correlation(x, y, membership, draws=draws, seed=3)
    repeated = {name: [] for name in COEFFICIENTS}
    for drawn in draw_counts(np.random.default_rng(3), members, draws):
        weights = np.array([np.prod(drawn[subset]) for subset in membership]).astype(int)
        points = np.repeat(x, weights), np.repeat(y, weights)
        if (weights > 0).sum() < 3 or not np.ptp(points[0]) or not np.ptp(points[1]):
            continue
        for name, oracle in COEFFICIENTS.items():
            repeated[name].append(oracle(*points).statistic)
    assert found.draws_used == len(repeated["pearson"]) > 80
    for name, rows in repeated.items():
        assert bounds(getattr(found, name)) == pytest.approx(np.quantile(rows, [0.025, 0.975]), abs=1e-9)


def test_what_it_was_computed_from_is_counted():
    membership = np.hstack([pairs_of(6), np.zeros((15, 2), bool)])
    x = np.random.default_rng(0).normal(size=15)
    found = stats.correlation(x, x**3, membership, draws=200)
    assert (found.n, found.members, found.draws) == (15, 6, 200)
    assert 0 < found.draws_used <= 200
    assert found.pearson.n == found.kendall.n == 15


def test_one_order_is_a_rank_correlation_of_one_and_its_reverse_of_minus_one():
    x = np.random.default_rng(0).normal(size=15)
    same, reverse = (stats.correlation(x, sign * np.exp(x), pairs_of(6), draws=200) for sign in (1, -1))
    for name in ("spearman", "kendall"):
        assert (getattr(same, name).value, *bounds(getattr(same, name))) == pytest.approx((1, 1, 1))
        assert (getattr(reverse, name).value, *bounds(getattr(reverse, name))) == pytest.approx((-1, -1, -1))
    assert 0 < same.pearson.low < same.pearson.value < 1


def test_independent_points_have_the_interval_that_fisher_gives():
    """Subsets of one member each: the ordinary bootstrap of points."""
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
        found = stats.correlation(x, y, pairs_of(6), draws=100)
        assert found.draws_used == 0
        for name in COEFFICIENTS:
            interval = getattr(found, name)
            assert np.isnan([interval.value, *bounds(interval)]).all()
            assert stats.verdict(interval, None) == "unclear"


def test_one_subset_has_no_correlation():
    found = stats.correlation([1.0], [2.0], [[True, True]], draws=50)
    assert math.isnan(found.pearson.value)
    assert math.isnan(found.kendall.low)


@pytest.mark.parametrize(
    "membership",
    [pairs_of(3), np.array([[True, True, True]] * 4), ~np.eye(8, dtype=bool), pairs_of(4)[:5]],
    ids=["three members", "one subset again and again", "all but one member each", "seven resamples"],
)
def test_too_few_different_resamples_have_a_value_but_no_interval(membership):
    x, y = np.random.default_rng(0).normal(size=(2, len(membership)))
    found = stats.correlation(x, y, membership, draws=300)
    for name, oracle in COEFFICIENTS.items():
        interval = getattr(found, name)
        assert interval.value == pytest.approx(oracle(x, y).statistic, abs=1e-9)
        assert np.isnan(bounds(interval)).all()


def test_thirteen_different_resamples_have_an_interval():
    """All pairs of four members: all four drawn, or any three of them, one twice."""
    x, y = np.random.default_rng(0).normal(size=(2, 6))
    found = stats.correlation(x, y, pairs_of(4), draws=300).spearman
    assert found.low < found.value < found.high


def test_the_order_and_the_scale_of_the_scores_do_not_matter():
    rng = np.random.default_rng(0)
    membership = pairs_of(6)
    x, y = rng.normal(size=(2, 15))
    order = rng.permutation(15)
    plain = stats.correlation(x, y, membership, draws=200)
    moved = stats.correlation(7 * x[order] - 3, y[order] / 9, membership[order], draws=200)
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
