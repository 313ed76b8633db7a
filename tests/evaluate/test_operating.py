"""Intervals of a curve's numbers: what they cover, what they do not depend on, and where there are none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import stats
from harness.evaluate.curves import aiq, apgr, cpt
from harness.evaluate.operating import Curve, Point, measured_difference, measured_mean
from tests.evaluate.simulate_curves import SHARES, SIZES, STRONG, WEAK, rates, router, sizes
from tests.examples import examples

RISING = np.array([0.90, 0.92, 0.93, 0.935, 0.94, 0.942, 0.943, 0.944])


@pytest.fixture(scope="module")
def dial():
    """A router on 400 examples."""
    return router(np.random.default_rng(3), 400, skill=0.6)


def ensembles(seed=0, examples=400):
    return sizes(np.random.default_rng(seed), RISING, examples)


def changed(curve, change, clusters=()):
    """The same curve with every table [S, N] changed."""
    def of(point):
        return point and Point(point.name, change(point.scores), change(point.costs),
                               None if point.strong is None else change(point.strong))  # fmt: skip

    return Curve([of(point) for point in curve.points], clusters, of(curve.weak), of(curve.strong))


def ends(found):
    return found.value, found.low, found.high


def numbers(curve):
    return [ends(each) for each in (curve.apgr(), curve.cpt(0.5), curve.aiq())]


def test_intervals_cover():
    """A small version of the script: two hundred runs tell 95 % to three points."""
    found = rates(200, 500)
    assert len(found) == 11
    assert all(0.92 <= rate <= 0.98 for rate in found.values()), found


def test_values_are_those_of_the_means(dial):
    shares = [point.strong.mean() for point in dial.points]
    scores = [point.scores.mean() for point in dial.points]
    weak, strong = dial.weak.scores.mean(), dial.strong.scores.mean()
    assert dial.apgr().value == pytest.approx(apgr(shares, scores, weak, strong))
    assert dial.cpt(0.8).value == pytest.approx(cpt(0.8, shares, scores, weak, strong))
    costs = [point.costs.mean() for point in dial.points]
    assert dial.aiq().value == pytest.approx(aiq(costs, scores))
    assert dial.aiq(2, 20).value == pytest.approx(aiq(costs, scores, 2, 20))


def test_intervals_are_around_their_values(dial):
    for found in (dial.apgr(), dial.cpt(0.5), dial.aiq(), ensembles().aiq()):
        assert found.low < found.value < found.high
        assert not found.why


def test_the_interval_of_a_random_router_covers_half():
    covered = [found.low <= 0.5 <= found.high for seed in range(100)
               if (found := router(np.random.default_rng(seed), 600, skill=0.0).apgr())]  # fmt: skip
    assert 0.89 <= np.mean(covered) <= 0.99


def test_the_order_of_examples_changes_no_value_and_hardly_an_interval(dial):
    order = np.random.default_rng(1).permutation(400)
    for ours, theirs in zip(numbers(dial), numbers(changed(dial, lambda table: table[:, order])), strict=True):
        assert theirs[0] == pytest.approx(ours[0])
        assert theirs[1:] == pytest.approx(ours[1:], abs=0.02 * (ours[2] - ours[1]))


def test_copies_of_an_example_in_one_cluster_count_as_one(dial):
    twice = changed(dial, lambda table: np.repeat(table, 2, axis=1), [f"{i // 2:03d}" for i in range(800)])
    for ours, theirs in zip(numbers(dial), numbers(twice), strict=True):
        assert theirs == pytest.approx(ours, abs=0.05 * (ours[2] - ours[1]))
    naive = changed(dial, lambda table: np.repeat(table, 2, axis=1))
    assert naive.apgr().high - naive.apgr().low < 0.8 * (dial.apgr().high - dial.apgr().low)


def test_the_same_models_again_under_another_seed_say_nothing_new(dial):
    again = changed(dial, lambda table: np.tile(table, (3, 1)))
    for ours, theirs in zip(numbers(dial), numbers(again), strict=True):
        assert theirs == pytest.approx(ours, abs=0.05 * (ours[2] - ours[1]))  # the draws are others by their rounding


def test_seeds_that_were_tested_on_other_examples(dial):
    other = router(np.random.default_rng(4), 400, skill=0.6)
    empty = np.full((1, 400), np.nan)

    def both(name):
        first, second = (getattr(point, name) for point in (dial.points[2], other.points[2]))
        return np.block([[first, empty], [empty, second]])

    point = Point("both", both("scores"), both("costs"), both("strong"))
    assert measured_mean(point.scores).value == pytest.approx(
        (dial.points[2].scores.mean() + other.points[2].scores.mean()) / 2
    )
    alone = measured_mean(dial.points[2].scores)
    assert 0.6 < (measured_mean(point.scores).high - measured_mean(point.scores).low) / (alone.high - alone.low) < 0.8


@given(st.floats(-3, 3), st.floats(0.1, 5))
@examples(10)
def test_shifted_scores_shift_the_curve_and_costs_have_no_unit(shift, unit):
    curve, moved = ensembles(), ensembles()
    moved = Curve([Point(p.name, p.scores + shift, p.costs * unit) for p in moved.points])
    ours, theirs = curve.aiq(), moved.aiq()
    # three points on a line have one corner or two by their rounding, and halves choose by it
    assert np.subtract(ends(theirs), shift) == pytest.approx(ends(ours), abs=0.02 * (ours.high - ours.low))


def test_a_mean_has_the_interval_of_its_kind():
    right = (np.arange(50) < 40)[None].astype(float)
    assert ends(measured_mean(right))[1:] == (stats.wilson(40, 50).low, stats.wilson(40, 50).high)
    assert measured_mean(np.ones((1, 50))).low == stats.wilson(50, 50).low
    losses = np.random.default_rng(0).exponential(size=(1, 400))
    expected = stats.crossed_mean(losses).interval()
    assert ends(measured_mean(losses)) == pytest.approx((expected.value, expected.low, expected.high))
    assert ends(measured_difference(losses + right.mean(), losses)) == (pytest.approx(0.8), None, None)


ALIKE = [Point.of("a", np.full(50, 0.5), 1), Point.of("b", np.full(50, 0.7), 2)]
WHY = {
    "one point is no curve": lambda: Curve(ensembles().points[:1]).aiq(),
    "there are no points": lambda: Curve([]).aiq(),
    "all points cost the same": lambda: Curve([Point.of("a", [0.0, 1], 1), Point.of("b", [1.0, 1], 1)]).aiq(),
    "no point costs as little": lambda: ensembles().aiq(0.5, 8),
    "one example says nothing": lambda: Curve([Point.of("a", [0.0], 1), Point.of("b", [1.0], 2)]).aiq(),
    "values are not finite": lambda: Curve([*ALIKE, Point.of("c", [np.nan, *[1.0] * 49], 3)]).aiq(),
    "or of other examples": lambda: Curve([*ALIKE, Point.of("c", np.ones(49), 3)]).aiq(),
    "the strong model is no better": lambda: _between(WEAK, WEAK).apgr(),
    "no curve between two models": lambda: ensembles().cpt(0.5),
    "does not reach a PGR of 9": lambda: router(np.random.default_rng(0), 400, skill=0.6).cpt(9),
}


def _between(weak, strong, examples=400):
    """A curve of one point between two models with these scores, alike in nothing else."""
    def right(share):
        return (np.arange(examples) < share * examples).astype(float)

    called = np.arange(examples) % 2
    point = Point.of("half", np.where(called, right(strong), right(weak)), 1 + called, called)
    return Curve([point], weak=Point.of("weak", right(weak), 1), strong=Point.of("strong", right(strong), 2))


@pytest.mark.parametrize("why", WHY)
def test_what_is_no_number_is_none_with_a_reason(why):
    found = WHY[why]()
    assert ends(found) == (None, None, None)
    assert why in found.why
    assert found.as_json() == {"value": None, "low": None, "high": None, "why": found.why}


def test_a_number_that_nothing_says_how_sure_it_is_has_no_interval():
    few = changed(ensembles(), lambda table: table[:, :20]).aiq()
    assert (few.low, few.high) == (None, None)
    assert "fewer than 30 examples" in few.why
    assert ends(Curve(ALIKE).aiq()) == (pytest.approx(0.6), None, None)
    assert "alike" in Curve(ALIKE).aiq().why
    unclear = _between(0.80, 0.805)
    assert unclear.apgr().value == pytest.approx(0.5)
    assert unclear.apgr().low is None
    assert "not shown to be better" in unclear.apgr().why


def test_a_threshold_that_may_not_be_reached_has_no_upper_end(dial):
    best = np.maximum(dial.weak.scores, dial.strong.scores)  # better than the strong model
    called = (dial.weak.scores < best).astype(float)
    curve = Curve([Point("best", best, 1 + called, called)], weak=dial.weak, strong=dial.strong)
    found = curve.cpt((best.mean() - dial.weak.scores.mean()) / (dial.strong.scores - dial.weak.scores).mean() - 1e-6)
    assert found.value is not None
    assert found.low is not None
    assert found.high is None


def test_points_have_one_cost_or_one_for_each_example():
    point = Point.of("a", [[1.0, np.nan], [0.0, 1.0]], 3)
    assert np.array_equal(point.costs, [[3, np.nan], [3, 3]], equal_nan=True)
    assert np.array_equal(Point.of("a", [1.0, 0.0], [2, 4]).costs, [[2, 4]])
    assert len(SHARES) == 7
    assert STRONG > WEAK
    assert len(SIZES) == 8
