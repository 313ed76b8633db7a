"""Tables of seeds and items with gaps: the same numbers without gaps, and the right coverage with them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import stats
from harness.stats.components import _with_gaps
from tests.examples import examples


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(2, 40))
@examples(40)
def test_without_gaps_it_is_the_analysis_of_variance(seed, seeds, items):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(seeds, items)) + rng.normal(size=(1, items)) + 0.3 * rng.normal(size=(seeds, 1))
    whole, gaps = stats.crossed_mean(values), _with_gaps(values)
    for name in ("value", "item_variance", "seed_variance", "shared", "own", "least"):
        assert getattr(gaps, name) == pytest.approx(getattr(whole, name), rel=1e-9, abs=1e-12), name


def folds(rng, seeds, items, shared, tau, own):
    """[seeds, items]: half of the items for each seed, shifted from seed to seed; the true mean is 0."""
    values = shared * rng.normal(size=(1, items)) + tau * rng.normal(size=(seeds, 1))
    values = values + own * rng.normal(size=(seeds, items))
    for s in range(seeds):
        rows = (np.arange(items) - s * items // seeds) % items
        values[s, rows >= items // 2] = np.nan
    return values


@pytest.mark.parametrize(("shared", "tau"), [(1.0, 0.0), (0.3, 0.05), (0.0, 0.1)])
def test_intervals_over_folds_cover(shared, tau):
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        found = stats.over_seeds(folds(rng, 4, 200, shared, tau, 0.5))
        inside += found.low <= 0 <= found.high
    assert inside / 400 >= 0.93


def test_items_that_no_seed_has_do_not_count():
    rng = np.random.default_rng(0)
    values = folds(rng, 3, 60, 1.0, 0.1, 0.5)
    wider = np.concatenate([values, np.full((3, 7), np.nan)], axis=1)
    ends = [(found.low, found.value, found.high, found.n) for found in map(stats.over_seeds, (wider, values))]
    assert ends[0] == pytest.approx(ends[1])


def test_the_mean_is_that_of_the_seeds_means():
    values = np.array([[1.0, 1.0, np.nan, np.nan], [np.nan, 0.0, 0.0, 0.0]])
    assert stats.proportion_over_seeds(values).value == stats.over_seeds(values).value == 0.5
    confidence = np.where(np.isnan(values), np.nan, 0.9)
    assert stats.ece_over_seeds(confidence, values).value == pytest.approx((0.1 + 0.9) / 2)


def test_paired_tests_take_the_same_gaps_on_either_side():
    rng = np.random.default_rng(0)
    right = (rng.random((3, 400)) < 0.9).astype(float)
    other = np.where(rng.random((3, 400)) < 0.05, 1 - right, right)
    gaps = rng.random((3, 400)) < 0.5
    right[gaps] = other[gaps] = np.nan
    found = stats.non_inferiority(right, other, 0.05)
    each = [np.nanmean(a - b) for a, b in zip(right, other, strict=True)]
    assert found.difference.value == pytest.approx(np.mean(each))
    assert stats.non_inferiority_verdict(found.p_inferior, found.p_not_inferior) == "pass"
    other[0, 0] = 1.0 if np.isnan(other[0, 0]) else np.nan
    with pytest.raises(ValueError, match="other items"):
        stats.non_inferiority(right, other, 0.05)


def test_a_seed_without_items_is_an_error():
    values = np.array([[1.0, 0.0, 1.0], [np.nan] * 3])
    for function in (stats.over_seeds, stats.proportion_over_seeds, stats.crossed_mean):
        with pytest.raises(ValueError, match=r"seed|zeros and ones"):
            function(values)
