"""The interval of a ratio: against Fieller's formula, and against how often it is right."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness import stats
from tests.examples import examples
from tests.stats.intervals import bounds, covers


def scores(rng, seeds=3, items=60, above=0.5, below=1.0, seed_effect=0.1):
    """Two scores that share some of their items' and of their seeds' luck, with these means."""
    of_items, of_seeds = rng.normal(size=(2, 1, items)), seed_effect * rng.normal(size=(2, seeds, 1))
    noise = rng.normal(size=(2, seeds, items))
    one, other = of_items + of_seeds + noise
    return above + 0.6 * one + 0.5 * other, below + 0.8 * other


def test_of_one_seed_it_is_fiellers_formula():
    above, below = scores(np.random.default_rng(0), seeds=1)
    (a, b), covariance = (above.mean(), below.mean()), np.cov(above[0], below[0]) / above.size
    t = scipy_stats.t.isf(0.025, above.size - 1)
    square = [b**2 - t**2 * covariance[1, 1], -2 * (a * b - t**2 * covariance[0, 1]), a**2 - t**2 * covariance[0, 0]]
    found = stats.crossed_ratio(above, below)
    assert (found.value, found.n) == (pytest.approx(a / b), 60)
    assert bounds(found) == pytest.approx(tuple(sorted(np.roots(square))))


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 5]))
@examples(20)
def test_at_its_ends_the_difference_from_that_share_just_reaches_0(seed, seeds):
    above, below = scores(np.random.default_rng(seed), seeds=seeds, below=2.0)
    found = stats.crossed_ratio(above, below)
    if found is None:
        assert covers(stats.crossed_mean(below).interval(), 0)
        return
    assert found.low < found.value < found.high
    at_low, at_high = (stats.crossed_mean(above - end * below).interval() for end in bounds(found))
    assert (at_low.low, at_high.high) == pytest.approx((0, 0), abs=1e-6)


def _three(above, below):
    found = stats.crossed_ratio(above, below)
    return np.array([found.value, *bounds(found)])


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10), st.floats(-3, 3))
@examples(20)
def test_it_follows_the_scales_of_both_and_shares_that_are_added(seed, scale, added):
    above, below = scores(np.random.default_rng(seed), seed_effect=0.02, below=2.0)
    found = _three(above, below)
    assert _three(scale * above, below) == pytest.approx(scale * found, rel=1e-5, abs=1e-5)
    assert _three(above, scale * below) == pytest.approx(found / scale, rel=1e-5, abs=1e-5)
    assert _three(above + added * below, below) == pytest.approx(found + added, rel=1e-5, abs=1e-5)
    assert _three(-above, -below) == pytest.approx(found, rel=1e-5, abs=1e-5)


def test_a_score_over_itself_is_1_and_certain():
    _, below = scores(np.random.default_rng(1))
    assert _three(below, below) == pytest.approx([1, 1, 1])
    assert _three(0.25 * below, below) == pytest.approx([0.25] * 3)


def test_a_divisor_that_may_be_0_has_no_ratio():
    above, below = scores(np.random.default_rng(2), below=0.05)
    assert covers(stats.crossed_mean(below).interval(), 0)
    assert stats.crossed_ratio(above, below) is None
    assert stats.crossed_ratio(above, np.zeros_like(above)) is None


def test_the_nearer_the_divisor_is_to_0_the_longer_its_far_side():
    above, below = scores(np.random.default_rng(3), above=2.0, below=0.0, seeds=1)
    least = stats.crossed_mean(below).half_width(0.025) - below.mean()
    sides = []
    for more in (0.02, 0.2, 2.0):
        value, low, high = _three(above, below + least + more)
        sides.append((high - value) / (value - low))
    assert sides[0] > 2 * sides[1] > 3 * sides[2] > 3


def test_seeds_may_be_scored_on_items_of_their_own():
    above, below = scores(np.random.default_rng(4), seeds=2, seed_effect=0.0, below=2.0)
    own = np.full((2, 120), np.nan), np.full((2, 120), np.nan)
    for table, values in zip(own, (above, below), strict=True):
        table[0, :60], table[1, 60:] = values
    found, shared = stats.crossed_ratio(*own), stats.crossed_ratio(above, below)
    assert found.value == pytest.approx(shared.value)
    end = stats.crossed_mean(own[0] - found.high * own[1]).interval()
    assert end.high == pytest.approx(0, abs=1e-6)


def test_scores_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"differ in shape: \(2, 5\) and \(2, 6\)"):
        stats.crossed_ratio(np.ones((2, 5)), np.ones((2, 6)))


@pytest.mark.parametrize(("seeds", "seed_effect"), [(1, 0.0), (5, 0.3)])
def test_it_covers_the_true_ratio_in_95_of_100_simulated_runs(seeds, seed_effect):
    """The divisor is 6 to 10 of its standard errors; seeds add more than items do, where there are some."""
    rng, draws = np.random.default_rng(5), 700
    tables = [scores(rng, seeds, 100, above=0.9, below=1.5, seed_effect=seed_effect) for _ in range(draws)]
    found = [stats.crossed_ratio(*each) for each in tables]
    known = [each for each in found if each is not None]
    assert len(known) > 0.98 * draws
    assert 0.93 < np.mean([covers(each, 0.9 / 1.5) for each in known]) < 0.97
