"""Bootstrap intervals against scipy and their plain readings."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness import stats
from harness.stats.resampling import weighted_sums
from tests.examples import examples
from tests.stats.intervals import assert_is_95_percent, bounds, covers, width

NAN = math.nan


# means


def test_counts_are_multinomial_shared_and_cannot_be_changed():
    counts = stats.resample_counts(37, draws=500)
    assert counts.shape == (500, 37)
    assert (counts.sum(axis=1) == 37).all()
    assert counts.mean() == 1.0
    assert counts.var() == pytest.approx(1 - 1 / 37, rel=0.05)
    assert stats.resample_counts(37, draws=500) is counts
    with pytest.raises(ValueError, match="read-only"):
        counts[0, 0] = 1
    assert not np.array_equal(stats.resample_counts(37, draws=500, seed=1), counts)


def test_counts_do_not_depend_on_what_was_asked_before():
    first = stats.resample_counts(20, draws=100).copy()
    for other in (21, 22, 23):
        stats.resample_counts(other, draws=100)
    np.testing.assert_array_equal(stats.resample_counts(20, draws=100), first)


SAMPLES = {
    "normal": np.random.default_rng(1).normal(5.0, 2.0, size=300),
    "skewed": np.random.default_rng(2).exponential(size=300),
    "far from zero": 1e4 + np.random.default_rng(3).normal(size=300),
    "right and wrong": np.random.default_rng(4).random(300) < 0.8,
    "ties": np.random.default_rng(5).integers(-1, 2, size=300),
}


@pytest.mark.parametrize("values", SAMPLES.values(), ids=list(SAMPLES))
def test_bootstrap_mean_is_the_percentile_interval_of_scipy(values):
    found = stats.bootstrap_mean(values, stats.resample_counts(len(values)))
    oracle = scipy_stats.bootstrap(
        (values.astype(float),), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(9)
    ).confidence_interval
    standard_error = values.std() / math.sqrt(len(values))
    assert found.value == pytest.approx(values.mean(), rel=1e-12)
    assert bounds(found) == pytest.approx((oracle.low, oracle.high), abs=0.15 * standard_error)
    assert found.n == len(values)


@pytest.mark.parametrize("values", SAMPLES.values(), ids=list(SAMPLES))
def test_bootstrap_mean_reads_the_draws_exactly(values):
    """The same draws, item by item in float64: centring and float32 must cost no digit that is printed."""
    counts = stats.resample_counts(len(values), draws=400)
    rows = [np.repeat(values.astype(float), row.astype(int)).mean() for row in counts]
    found = stats.bootstrap_mean(values, counts)
    assert bounds(found) == pytest.approx(np.quantile(rows, [0.025, 0.975]), abs=1e-6 * values.std())


def test_bootstrap_mean_of_many_normal_values_is_the_normal_interval():
    values = SAMPLES["normal"]
    standard_error = values.std() / math.sqrt(len(values))
    found = stats.bootstrap_mean(values, stats.resample_counts(len(values)))
    expected = (values.mean() - 1.96 * standard_error, values.mean() + 1.96 * standard_error)
    assert bounds(found) == pytest.approx(expected, abs=0.15 * standard_error)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.integers(1, 5), st.integers(-9, 9))
@examples(50)
def test_bootstrap_mean_moves_and_stretches_with_its_values(values, stretch, shift):
    counts = stats.resample_counts(len(values), draws=200)
    plain = stats.bootstrap_mean(np.array(values) / 7, counts)
    moved = stats.bootstrap_mean(stretch * np.array(values) / 7 + shift, counts)
    for a, b in zip((plain.value, *bounds(plain)), (moved.value, *bounds(moved)), strict=True):
        assert b == pytest.approx(stretch * a + shift, abs=1e-5)


def test_a_constant_has_an_interval_of_no_width():
    for constant in (0.0, 1.0, 0.3, 1e6 + 0.1):
        found = stats.bootstrap_mean(np.full(50, constant), stats.resample_counts(50, draws=300))
        assert bounds(found) == pytest.approx((constant, constant), rel=1e-15)


@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
def test_a_value_that_is_not_finite_leaves_no_interval(bad):
    values = np.array([0.5, bad, 0.25])
    found = stats.bootstrap_mean(values, stats.resample_counts(3, draws=50))
    assert not math.isfinite(found.value)
    assert np.isnan(bounds(found)).all()
    if not math.isnan(bad):  # that is a gap in a table of seeds
        assert np.isnan(bounds(stats.over_seeds(np.stack([values, np.zeros(3)]), draws=50))).all()
    assert stats.verdict(found, None) == "unclear"


@pytest.mark.parametrize(
    ("values", "items"), [(np.zeros(0), 3), (np.zeros(4), 3), (np.zeros((3, 1)), 3), (np.zeros(()), 3)]
)
def test_counts_over_other_items_are_refused(values, items):
    counts = stats.resample_counts(items, draws=10)
    with pytest.raises(ValueError, match="values"):
        stats.bootstrap_mean(values, counts)
    with pytest.raises(ValueError, match="values"):
        stats.paired_difference(values, values, counts)


@pytest.mark.parametrize("shape", [(3000,), (3000, 4)])
def test_sums_over_draws_are_those_of_the_counts(shape):
    """In blocks of draws, the last of which is shorter: whole numbers exactly, others to float32."""
    counts = stats.resample_counts(3000, draws=401)
    whole = np.random.default_rng(0).integers(-3, 4, size=shape).astype(np.float32)
    np.testing.assert_array_equal(weighted_sums(counts, whole), counts.astype(np.float64) @ whole.astype(np.float64))
    drawn = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    exact = counts.astype(np.float64) @ drawn.astype(np.float64)
    np.testing.assert_allclose(weighted_sums(counts, drawn), exact, atol=1e-2 * np.abs(exact).std())


def test_nothing_cannot_be_resampled():
    with pytest.raises(ValueError, match="nothing to resample"):
        stats.resample_counts(0)


# paired differences


def test_a_paired_difference_is_the_bootstrap_of_the_differences_and_changes_sign_with_the_order():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200))
    counts = stats.resample_counts(200, draws=1000)
    found, swapped = stats.paired_difference(a, b, counts), stats.paired_difference(b, a, counts)
    rows = [np.mean(np.repeat(a, c.astype(int))) - np.mean(np.repeat(b, c.astype(int))) for c in counts]
    assert bounds(found) == pytest.approx(np.quantile(rows, [0.025, 0.975]), abs=1e-6)
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert (found.value, *bounds(found)) == pytest.approx((-swapped.value, -swapped.high, -swapped.low), abs=1e-6)


def test_shared_draws_make_a_difference_far_narrower_than_either_score():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(size=400)
    a, b = difficulty + 0.1 * rng.normal(size=(2, 400))
    counts = stats.resample_counts(400)
    paired = stats.paired_difference(a, b, counts)
    unpaired = stats.paired_difference(a, rng.permutation(b), counts)
    assert width(unpaired) > 5 * width(paired)
    assert width(paired) < width(stats.bootstrap_mean(a, counts)) / 5


def test_a_constant_gain_is_certain():
    values = np.random.default_rng(0).normal(size=100)
    found = stats.paired_difference(values + 0.25, values, stats.resample_counts(100, draws=500))
    assert bounds(found) == pytest.approx((0.25, 0.25), abs=1e-9)


def test_equal_answers_differ_by_exactly_nothing():
    correct = np.random.default_rng(0).random(101) < 0.7
    found = stats.paired_difference(correct, correct, stats.resample_counts(101, draws=500))
    assert (found.value, *bounds(found)) == (0.0, 0.0, 0.0)


def test_paired_scores_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        stats.paired_difference(np.zeros(3), np.zeros(4), stats.resample_counts(3, draws=10))
    with pytest.raises(ValueError, match="differ in shape"):
        stats.mcnemar_exact(np.zeros(3), np.zeros(4))


def test_the_paired_bootstrap_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    counts = stats.resample_counts(120, draws=1000)
    hits = []
    for _ in range(300):
        both, candidate_only, reference_only = 0.6, 0.15, 0.1
        outcome = rng.choice(4, size=120, p=[both, candidate_only, reference_only, 0.15])
        found = stats.paired_difference(outcome <= 1, (outcome == 0) | (outcome == 2), counts)
        hits.append(covers(found, candidate_only - reference_only))
    assert_is_95_percent(hits)


# several seeds


def test_one_seed_leaves_the_items_only():
    values = SAMPLES["skewed"]
    assert stats.over_seeds(values[None]) == stats.bootstrap_mean(values, stats.resample_counts(len(values)))


def test_several_seeds_have_the_interval_of_the_crossed_mean():
    values = np.random.default_rng(0).normal(size=(3, 80))
    assert stats.over_seeds(values) == stats.crossed_mean(values).interval()


def test_seeds_that_agree_leave_the_items_only():
    values = SAMPLES["normal"]
    one, three = stats.over_seeds(values[None]), stats.over_seeds(np.stack([values] * 3))
    assert (three.value, *bounds(three)) == pytest.approx((one.value, *bounds(one)), abs=0.05 * width(one))
    assert three.n == one.n == len(values)


def test_seeds_that_disagree_widen_the_interval_by_their_variance():
    rng = np.random.default_rng(0)
    items, seeds = 0.1 * rng.normal(size=200), rng.normal(size=(60, 1))
    agreeing, disagreeing = stats.over_seeds(np.stack([items] * 60)), stats.over_seeds(items + 0.1 * seeds)
    of_items, of_seeds = items.var(ddof=1) / 200, 0.1**2 * seeds.var(ddof=1) / 60
    assert width(agreeing) == pytest.approx(3.94 * math.sqrt(of_items), rel=0.01)
    assert width(disagreeing) == pytest.approx(3.97 * math.sqrt(of_items + of_seeds), rel=0.02)


@pytest.mark.parametrize("shape", [(5,), (0, 5), (5, 0), (2, 2, 2)])
def test_over_seeds_needs_a_table(shape):
    with pytest.raises(ValueError, match="expected"):
        stats.over_seeds(np.zeros(shape))
