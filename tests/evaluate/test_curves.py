"""Curves of quality against cost: tables worked out by hand, and laws of the hull."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evaluate.curves import Undefined, aiq, apgr, cpt, hull, pgr, random_router
from tests.examples import examples

SHARES, SCORES, WEAK, STRONG = [0.0, 0.25, 0.5, 1.0], [0.60, 0.72, 0.76, 0.80], 0.60, 0.80
"""A router whose PGR is 0, 0.6, 0.8 and 1."""
COSTS, QUALITY = [1.0, 2.0, 4.0, 5.0, 8.0], [0.50, 0.70, 0.74, 0.80, 0.78]
"""Of these points the third is below the line between its neighbours, and the last costs more than a better one."""

numbers = st.floats(0, 1, allow_nan=False).map(lambda value: round(value, 3))
curves = st.lists(st.tuples(st.floats(0.1, 9).map(lambda value: round(value, 2)), numbers), min_size=2, max_size=9)


def test_the_gap_recovered():
    assert pgr(0.72, WEAK, STRONG) == pytest.approx(0.6, abs=1e-9)
    assert pgr(0.85, WEAK, STRONG) == pytest.approx(1.25, abs=1e-9)
    assert pgr(0.55, WEAK, STRONG) == pytest.approx(-0.25, abs=1e-9)


def test_the_mean_gap_recovered_is_the_area_of_its_trapezoids():
    by_hand = 0.25 * (0 + 0.6) / 2 + 0.25 * (0.6 + 0.8) / 2 + 0.5 * (0.8 + 1) / 2
    assert by_hand == 0.7
    assert apgr(SHARES, SCORES, WEAK, STRONG) == pytest.approx(by_hand, abs=1e-9)
    # the area between the curve and the weak model's, over that between the two models', as RouteLLM works it out
    areas = [np.trapezoid(values, SHARES) for values in (SCORES, np.full(4, WEAK), np.full(4, STRONG))]
    assert apgr(SHARES, SCORES, WEAK, STRONG) == pytest.approx((areas[0] - areas[1]) / (areas[2] - areas[1]), abs=1e-9)


def test_the_two_models_are_the_ends_of_a_curve():
    assert apgr(SHARES[1:3], SCORES[1:3], WEAK, STRONG) == pytest.approx(0.7, abs=1e-9)
    assert apgr([0.5], [0.7], WEAK, STRONG) == pytest.approx(0.5, abs=1e-9)
    # a system that always calls the strong model need not be it
    assert apgr([1.0], [0.9], WEAK, STRONG) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize(("wanted", "share"), [(0, 0), (0.3, 0.125), (0.6, 0.25), (0.7, 0.375), (0.9, 0.75), (1, 1)])
def test_the_share_of_calls_that_reaches_a_gap(wanted, share):
    assert cpt(wanted, SHARES, SCORES, WEAK, STRONG) == pytest.approx(share, abs=1e-9)
    as_routellm = np.interp(wanted * (STRONG - WEAK) + WEAK, SCORES, SHARES)
    assert cpt(wanted, SHARES, SCORES, WEAK, STRONG) == pytest.approx(as_routellm, abs=1e-9)


def test_the_smallest_share_is_told_of_a_curve_that_falls_again():
    shares, scores = [0, 0.2, 0.4, 1], [0.6, 0.76, 0.62, 0.8]  # PGR 0, 0.8, 0.1, 1
    assert cpt(0.4, shares, scores, WEAK, STRONG) == pytest.approx(0.1, abs=1e-9)
    assert cpt(0.9, shares, scores, WEAK, STRONG) == pytest.approx(0.4 + 0.6 * 0.8 / 0.9, abs=1e-9)
    assert cpt(0.5, [0, 0.3, 0.3, 1], [0.6, 0.62, 0.76, 0.8], WEAK, STRONG) == 0.3  # in one step


def test_what_is_not_reached_is_no_number():
    with pytest.raises(Undefined, match=r"does not reach a PGR of 1\.1"):
        cpt(1.1, SHARES, SCORES, WEAK, STRONG)


@pytest.mark.parametrize(("weak", "strong"), [(0.7, 0.7), (0.8, 0.7), (float("nan"), 0.7), (0.7, float("inf"))])
def test_two_models_without_a_gap_have_no_curve_between_them(weak, strong):
    for number in (lambda: pgr(0.7, weak, strong), lambda: apgr(SHARES, SCORES, weak, strong),
                   lambda: cpt(0.5, SHARES, SCORES, weak, strong)):  # fmt: skip
        with pytest.raises(Undefined, match=r"no better than the weak one|is not finite"):
            number()


def test_shares_are_shares():
    with pytest.raises(Undefined, match=r"shares of calls lie in 0\.\.1"):
        apgr([0, 1.2], [0.6, 0.8], WEAK, STRONG)


def test_the_corners_of_the_hull():
    x, y = hull(COSTS, QUALITY)
    assert x.tolist() == [1, 2, 5]
    assert y.tolist() == [0.50, 0.70, 0.80]
    # of points of one cost the best counts; three on a line have one corner too few to tell
    assert [each.tolist() for each in hull([1, 1, 2, 3], [0.1, 0.2, 0.3, 0.4])] == [[1, 3], [0.2, 0.4]]
    assert [each.tolist() for each in hull([2, 1], [0.3, 0.3])] == [[1], [0.3]]


def test_the_mean_height_of_the_hull():
    area = 1 * (0.5 + 0.7) / 2 + 3 * (0.7 + 0.8) / 2 + 3 * 0.8
    assert aiq(COSTS, QUALITY) == pytest.approx(area / 7, abs=1e-9)
    assert aiq(COSTS, QUALITY) * 7 / 8 == pytest.approx(area / 8, abs=1e-9)  # as RouterBench's AIQ.py divides it
    assert aiq(COSTS, QUALITY, high=16) == pytest.approx((area + 8 * 0.8) / 15, abs=1e-9)
    inside = 0.5 * (0.6 + 0.7) / 2 + 1 * (0.7 + (0.7 + 0.1 / 3)) / 2
    assert aiq(COSTS, QUALITY, low=1.5, high=3) == pytest.approx(inside / 1.5, abs=1e-9)
    assert aiq([1, 1], [0.4, 0.6], low=1, high=8) == pytest.approx(0.6, abs=1e-9)


@pytest.mark.parametrize(
    ("costs", "scores", "ends", "why"),
    [
        ([], [], {}, "there are no points"),
        ([1], [0.5], {}, "one point is no curve"),
        ([1, 1], [0.5, 0.6], {}, "all points cost the same"),
        ([1, 2], [0.5, float("nan")], {}, "a point is not finite"),
        ([1, float("inf")], [0.5, 0.6], {}, "a point is not finite"),
        ([1, 2], [0.5, 0.6], {"low": 0.5}, "no point costs as little"),
    ],
)
def test_a_curve_that_is_none_has_no_mean_height(costs, scores, ends, why):
    with pytest.raises(Undefined, match=why):
        aiq(costs, scores, **ends)


def test_the_random_router_is_on_the_line_between_its_models():
    assert random_router((1, 5), (0.6, 0.8), 2) == pytest.approx(0.65, abs=1e-9)
    assert random_router((1, 5), (0.6, 0.8), 5) == pytest.approx(0.8, abs=1e-9)
    for costs, cost, why in (((1, 5), 6, "no mixture"), ((1, 1), 1, "cost the same")):
        with pytest.raises(Undefined, match=why):
            random_router(costs, (0.6, 0.8), cost)


@given(st.lists(numbers, min_size=1, max_size=6), st.floats(0, 0.4), st.floats(0.5, 1))
@examples(50)
def test_a_random_router_recovers_half_of_the_gap_and_what_is_asked_at_as_large_a_share(shares, weak, strong):
    scores = [weak + share * (strong - weak) for share in shares]
    assert apgr(shares, scores, weak, strong) == pytest.approx(0.5)
    assert cpt(0.8, shares, scores, weak, strong) == pytest.approx(0.8)


@given(curves)
@examples(100)
def test_the_hull_rises_is_concave_and_above_all_points(points):
    costs, scores = map(np.array, zip(*points, strict=True))
    x, y = hull(costs, scores)
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) > 0).all()
    assert (np.diff(np.diff(y) / np.diff(x)) < 1e-9).all()
    assert (np.interp(costs, x, y) >= scores - 1e-12).all()
    assert set(zip(x, y, strict=True)) <= set(zip(costs, scores, strict=True))


@given(curves, st.permutations(range(9)), numbers)
@examples(50)
def test_the_order_of_points_is_nothing_and_one_more_never_lowers_the_mean_height(points, order, more):
    points = np.array(points)
    low, high = points[:, 0].min(), points[:, 0].max() + 1
    value = aiq(*points.T, low, high)
    assert aiq(*points[[i for i in order if i < len(points)]].T, low, high) == pytest.approx(value)
    assert aiq(*np.concatenate([points, [[high, more]]]).T, low, high) >= value - 1e-12
    assert points[:, 1].min() - 1e-12 <= value <= points[:, 1].max() + 1e-12


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6), st.permutations(range(6)))
@examples(50)
def test_the_order_of_settings_is_nothing(points, order):
    shares, scores = (np.array(each) for each in zip(*points, strict=True))
    again = [i for i in order if i < len(points)]
    assert apgr(shares[again], scores[again], 0.2, 0.7) == pytest.approx(apgr(shares, scores, 0.2, 0.7))
