"""Decisions: verdicts, non-inferiority and many comparisons, against statsmodels and their plain readings."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness import stats
from harness.stats import Interval
from tests.examples import examples

NAN = math.nan


@pytest.mark.parametrize(
    ("low", "high", "p", "word"),
    [
        (0.01, 0.05, None, "better"),
        (-0.05, -0.01, None, "worse"),
        (-0.01, 0.05, None, "unclear"),
        (0.0, 0.05, None, "unclear"),
        (-0.05, 0.0, None, "unclear"),
        (0.01, 0.05, 0.04, "better"),
        (-0.05, -0.01, 0.04, "worse"),
        (0.01, 0.05, 0.05, "unclear"),
        (-0.05, -0.01, 0.06, "unclear"),
        (-0.01, 0.05, 0.001, "unclear"),
    ],
)
def test_a_verdict_needs_the_interval_and_the_p_value(low, high, p, word):
    assert stats.verdict(Interval((low + high) / 2, low, high, 100), p) == word


def test_alpha_is_the_callers():
    difference = Interval(0.03, 0.01, 0.05, 100)
    assert stats.verdict(difference, 0.03, alpha=0.05) == "better"
    assert stats.verdict(difference, 0.03, alpha=0.01) == "unclear"


@pytest.mark.parametrize("low", [NAN, -2.0, 1.0])
@pytest.mark.parametrize("high", [NAN, -1.0, 2.0])
@pytest.mark.parametrize("p", [NAN, None, 0.0])
def test_nan_is_neither_better_nor_worse(low, high, p):
    known = not any(value is not None and math.isnan(value) for value in (low, high, p))
    decided = known and (low > 0 or high < 0) and low <= high
    assert (stats.verdict(Interval(0.0, low, high, 10), p) != "unclear") == decided


# non-inferiority


def outcomes(gained, lost, n, seeds=1):
    """Right and wrong of a candidate and a reference that differ on this many items of n: [seeds, n] each."""
    candidate = np.repeat([1.0, 0.0, 1.0], [gained, lost, n - gained - lost])
    reference = np.repeat([0.0, 1.0, 1.0], [gained, lost, n - gained - lost])
    return np.tile(candidate, (seeds, 1)), np.tile(reference, (seeds, 1))


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 400), st.floats(0, 0.1))
@examples(80)
def test_it_passes_where_the_lower_bound_clears_the_margin_and_fails_where_the_upper_does_not(
    gained, lost, same, margin
):
    if not gained + lost + same:
        return
    found = stats.non_inferiority(*outcomes(gained, lost, gained + lost + same), margin)
    word = stats.non_inferiority_verdict(found.p_inferior, found.p_not_inferior)
    expected = "pass" if found.difference.low >= -margin else "fail" if found.difference.high < -margin else None
    near = min(abs(found.difference.low + margin), abs(found.difference.high + margin)) < 1e-9
    assert near or word == (expected or "inconclusive")
    assert found.difference == stats.paired_proportions(gained, lost, gained + lost + same, confidence=0.9)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(30, 80), st.floats(0, 0.1))
@examples(60)
def test_losses_and_seeds_pass_where_the_bound_clears_the_margin(seed, seeds, items, margin):
    candidate, reference = np.random.default_rng(seed).normal(size=(2, seeds, items)) / 5
    found = stats.non_inferiority(candidate, reference, margin)
    word = stats.non_inferiority_verdict(found.p_inferior, found.p_not_inferior)
    expected = "pass" if found.difference.low >= -margin else "fail" if found.difference.high < -margin else None
    assert word == (expected or "inconclusive")
    assert found.difference == stats.crossed_mean(candidate - reference).interval(0.9)


def test_losses_of_one_seed_are_tested_as_students_paired_t():
    candidate, reference = np.random.default_rng(0).normal(size=(2, 1, 90))
    found = stats.non_inferiority(candidate, reference, 0.1)
    oracle = scipy_stats.ttest_rel(candidate[0] + 0.1, reference[0], alternative="greater")
    assert found.p_inferior == pytest.approx(oracle.pvalue)
    assert found.difference.low == pytest.approx(oracle.confidence_interval(0.95).low - 0.1)


def test_more_doubt_never_decides_more():
    candidate, reference = outcomes(20, 45, 1000)
    p = [stats.non_inferiority(candidate, reference, margin).p_inferior for margin in (0.0, 0.01, 0.02, 0.05)]
    assert p == sorted(p, reverse=True)


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_handful_of_equal_answers_proves_nothing_and_thousands_do(seeds):
    few, many = (stats.non_inferiority(*outcomes(0, 0, n, seeds), 0.02) for n in (20, 2500))
    assert stats.non_inferiority_verdict(few.p_inferior, few.p_not_inferior) == "inconclusive"
    assert stats.non_inferiority_verdict(many.p_inferior, many.p_not_inferior) == "pass"
    assert few.needed() > 20


def test_the_losses_of_a_few_items_decide_nothing():
    losses = np.random.default_rng(0).normal(size=(2, 1, 29))
    found = stats.non_inferiority(*losses, 10.0)
    assert stats.non_inferiority_verdict(found.p_inferior, found.p_not_inferior) == "inconclusive"
    assert math.isnan(found.difference.low)


def test_the_examples_needed_would_decide():
    candidate, reference = outcomes(25, 35, 1000)
    found = stats.non_inferiority(candidate, reference, 0.015)
    assert stats.non_inferiority_verdict(found.p_inferior, found.p_not_inferior) == "inconclusive"
    times = found.needed() / 1000
    more = stats.non_inferiority(*outcomes(*(round(times * k) for k in (25, 35, 1000))), 0.015)
    assert stats.non_inferiority_verdict(more.p_inferior, more.p_not_inferior) == "pass"
    planned = stats.examples_needed(0.015, 0.06, -0.01)
    assert found.needed() == pytest.approx(planned, rel=0.01)
    assert found.needed(alpha=0.005) > found.needed()


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_with_few_seeds_the_examples_needed_are_more_than_there_were_and_would_decide(seeds):
    """Items and seeds both differ; the number is for the critical values of so few seeds."""
    rng, told = np.random.default_rng(0), 0
    for _ in range(25):
        chance = np.clip(rng.normal(0.9, 0.15, 300), 0, 1) + rng.normal(0, 0.004, (seeds, 1))
        candidate, reference = (rng.random((2, seeds, 300)) < chance).astype(float)
        found = stats.non_inferiority(candidate, reference, 0.015)
        if stats.non_inferiority_verdict(found.p_inferior, found.p_not_inferior) != "inconclusive":
            continue
        if (needed := found.needed()) is None:
            continue
        told += 1
        assert needed > 300
        more = found.crossed.with_items(needed)
        assert min(more.p_below(-0.015), 1 - more.p_below(-0.015)) < 0.05
        assert (found.needed(power=0.9) or math.inf) > needed
    assert told > 4


@pytest.mark.parametrize("worse", [0, 1])
def test_of_a_few_losses_at_least_as_many_are_needed_as_are_a_sample(worse):
    losses = np.zeros((1, 20))
    losses[0, :worse] = 0.01
    assert stats.non_inferiority(-losses, np.zeros((1, 20)), 0.1).needed() >= 30


def test_no_number_of_examples_decides_between_seeds_that_disagree_or_at_the_margin_itself():
    good, bad = np.zeros((2, 400))
    bad[:16] = 1.0
    found = stats.non_inferiority(np.stack([good, bad]), np.stack([bad, good]), 0.001)
    assert found.needed() is None
    assert stats.non_inferiority(*outcomes(0, 20, 1000), 0.02).needed() is None


@pytest.mark.parametrize(
    ("candidate", "reference", "words"),
    [(np.zeros((1, 3)), np.zeros((1, 4)), "shapes"), (np.zeros(3), np.zeros(3), "shapes"),
     (np.zeros((0, 3)), np.zeros((0, 3)), "shapes"), (np.full((1, 3), np.inf), np.zeros((1, 3)), "finite"),
     (np.full((1, 3), NAN), np.zeros((1, 3)), "other items")],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(candidate, reference, words):
    with pytest.raises(ValueError, match=words):
        stats.non_inferiority(candidate, reference, 0.02)


def test_nan_decides_nothing():
    assert stats.non_inferiority_verdict(NAN, NAN) == "inconclusive"


# many comparisons


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@examples(12)  # statsmodels collects garbage at every call
def test_corrections_are_their_plain_readings(p):
    order, count = np.argsort(p), len(p)
    stepped, holm = 0.0, np.empty(count)
    for rank, index in enumerate(order):
        stepped = max(stepped, min(1.0, (count - rank) * p[index]))
        holm[index] = stepped
    stepped, hochberg = 1.0, np.empty(count)
    for rank, index in reversed(list(enumerate(order, 1))):
        stepped = min(stepped, p[index] * count / rank)
        hochberg[index] = stepped
    assert stats.holm(p) == pytest.approx(holm.tolist(), abs=1e-12)
    assert stats.benjamini_hochberg(p) == pytest.approx(hochberg.tolist(), abs=1e-12)
    assert stats.benjamini_hochberg(p) == pytest.approx(scipy_stats.false_discovery_control(p).tolist(), abs=1e-12)


def test_no_comparisons_need_no_correction_and_nan_is_refused():
    assert stats.holm([]) == []
    for bad in (NAN, -0.1, 1.1):
        with pytest.raises(ValueError, match="must be in 0"):
            stats.holm([0.01, bad])
