"""Many means at once: laws, oracles in special cases, and rates of errors over simulated tables."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness import stats
from harness.stats.simultaneous import best_set, by_cluster, drawn, pairwise, picked, simultaneous, unit_means
from tests.examples import examples
from tests.stats.simulate_table import rates


def table(rng, variants, seeds, items):
    values = rng.normal(size=(1, items)) + rng.normal(size=(variants, seeds, items))
    return values + 0.1 * rng.normal(size=(variants, 1, 1))


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(30, 80))
@examples(30)
def test_means_and_their_errors_are_those_of_the_items_means(seed, seeds, items):
    values = table(np.random.default_rng(seed), 3, seeds, items)
    means = unit_means(list(values))
    of_items = values.mean(axis=1)  # [V, items]
    assert means.values == pytest.approx(of_items.mean(axis=1))
    assert means.standard_errors == pytest.approx(scipy_stats.sem(of_items, axis=1))
    assert means.shares.sum(axis=1) == pytest.approx(np.zeros(3), abs=1e-9)
    apart = means.minus(0)
    assert apart.standard_errors[1] == pytest.approx(scipy_stats.sem(of_items[1] - of_items[0]))


@given(st.integers(0, 2**32 - 1))
@examples(20)
def test_one_mean_is_students_t(seed):
    values = np.random.default_rng(seed).normal(0.1, size=(1, 50))
    found = simultaneous(unit_means([values]))
    oracle = scipy_stats.ttest_1samp(values[0], 0)
    assert found.p[0] == pytest.approx(oracle.pvalue)
    assert (found.low[0], found.high[0]) == pytest.approx(tuple(oracle.confidence_interval(0.95)))
    assert found.low_together[0] == pytest.approx(found.low[0], abs=0.02)


def test_independent_means_reach_as_sidak_says_and_copies_no_farther_than_one():
    rng = np.random.default_rng(0)
    many = simultaneous(unit_means([rng.normal(size=(1, 4000)) for _ in range(50)]))
    sidak = scipy_stats.norm.isf((1 - 0.95 ** (1 / 50)) / 2)
    assert many.critical == pytest.approx(sidak, abs=0.06)
    one = rng.normal(size=(1, 4000))
    assert simultaneous(unit_means([one] * 50)).critical == pytest.approx(1.96, abs=0.03)


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.sampled_from(["as they come", "mixtures", "independent"]))
@examples(60)
def test_what_is_drawn_moves_no_more_than_the_numbers_do(seed, variants, how):
    """What a gate computes again of examples in float32, or on another processor, are the same draws.

    Means that are mixtures of each other, or vary alike, have covariances whose axes any rounding turns round.
    """
    rng = np.random.default_rng(seed)
    values = table(rng, variants, 1, 60)
    if how == "independent":
        values = np.linalg.qr((values[:, 0] - values.mean(axis=2)).T)[0].T[:, None]
    if how == "mixtures":
        values[variants // 2 :] = values[: variants - variants // 2] + 0.5 * values[:1]
    rounded = unit_means(list(values.astype(np.float32)))
    means = unit_means(list(values))
    scale = np.sqrt((means.shares**2).sum())
    apart = drawn(means, 500) - drawn(rounded, 500)
    assert np.abs(apart).max() < 100 * np.sqrt(((means.shares - rounded.shares) ** 2).sum()) + 1e-6 * scale
    ours, theirs = simultaneous(means), simultaneous(rounded)
    assert ours.critical == pytest.approx(theirs.critical, abs=1e-4)
    assert ours.p_adjusted == pytest.approx(theirs.p_adjusted, abs=1e-3)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_all_pairs_of_independent_means_reach_as_tukeys_range_says(count):
    rng = np.random.default_rng(count)
    values = rng.normal(size=(count, 500))
    values = np.linalg.qr((values - values.mean(axis=1, keepdims=True)).T)[0].T  # just as independent as they are said
    means = unit_means(list(values[:, None]))
    tukey = scipy_stats.studentized_range.isf(0.05, count, 499) / np.sqrt(2)
    assert pairwise(means, draws=40_000) == pytest.approx(tukey, abs=0.04)


def test_pairs_of_copies_reach_as_far_as_one_difference():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 1, 400))
    alone = scipy_stats.t.isf(0.025, 399)
    assert pairwise(unit_means([one])) == pytest.approx(alone)
    assert pairwise(unit_means([one] * 9)) == pytest.approx(alone)
    assert pairwise(unit_means([one, *[other] * 9]), draws=40_000) == pytest.approx(alone, abs=0.03)


def test_means_are_drawn_as_they_vary():
    means = unit_means(list(table(np.random.default_rng(0), 3, 2, 200)))
    found = drawn(means, 40_000)
    assert found.mean(axis=0) == pytest.approx(means.values, abs=0.003)
    assert np.cov(found.T) == pytest.approx(means.shares @ means.shares.T, rel=0.05)


@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
@examples(30)
def test_p_values_agree_with_intervals_and_are_between_one_and_all_comparisons(seed, variants):
    rng = np.random.default_rng(seed)
    found = simultaneous(unit_means(list(table(rng, variants, 2, 60))))
    assert (found.p <= found.p_adjusted + 1e-12).all()
    assert (found.p_adjusted <= np.minimum(1, variants * found.p) + 1e-12).all()
    told = (found.low_together > 0) | (found.high_together < 0)
    near = np.abs(found.p_adjusted - 0.05) < 0.005  # the draws' own noise
    assert (told == (found.p_adjusted < 0.05))[~near].all()
    assert (found.low_together <= found.low).all()
    assert (found.high <= found.high_together).all()


@pytest.mark.parametrize("grain", [0.0, 0.005])
def test_what_never_differs_is_known_exactly(grain):
    rng = np.random.default_rng(0)
    means = unit_means([np.zeros((2, 100)), rng.normal(size=(2, 100))])
    found = simultaneous(means, grain=grain)
    assert (found.low_together[0], found.high_together[0], found.p[0], found.p_adjusted[0]) == (0, 0, 1, 1)


def test_few_units_decide_nothing():
    means = unit_means([np.random.default_rng(0).normal(5, size=(1, 12))])
    found = simultaneous(means)
    assert np.isnan(found.low_together).all()
    assert found.p_adjusted[0] == 1
    assert best_set(means.of([0, 0])).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
@examples(30)
def test_clusters_keep_the_mean_and_count_as_units(seed, seeds):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(seeds, 60))
    clusters = [f"c{i}" for i in rng.integers(0, 12, 60)]
    together = by_cluster(values, clusters)
    assert together.shape[1] == len(set(clusters))
    assert together.mean(axis=1) == pytest.approx(values.mean(axis=1))
    alone = by_cluster(values, [f"{i:03}" for i in range(60)])
    assert alone == pytest.approx(values)
    # copies of every example: as many as there were, and not twice as sure
    twice = by_cluster(np.concatenate([values, values], axis=1), [f"{i % 60:03}" for i in range(120)])
    assert unit_means([twice]).standard_errors == pytest.approx(unit_means([values]).standard_errors)


def test_the_best_set_has_the_winner_its_copies_and_no_clear_loser():
    rng = np.random.default_rng(0)
    good, bad = rng.normal(size=(1, 500)), rng.normal(-1, size=(1, 500))
    kept = best_set(unit_means([bad, good, good, good - 1e-3]))
    assert kept.tolist() == [False, True, True, False]


@given(st.integers(0, 2**32 - 1), st.integers(2, 8))
@examples(20)
def test_the_best_set_has_the_highest_and_does_not_depend_on_the_order(seed, variants):
    values = table(np.random.default_rng(seed), variants, 2, 80)
    means = unit_means(list(values))
    kept = best_set(means)
    assert kept[np.argmax(means.values)]
    doubtful = 0.04  # two orders draw other numbers: only clear cases are the same
    again = best_set(means.of(np.arange(variants)[::-1]))[::-1]
    strict, loose = best_set(means, level=0.95 - doubtful), best_set(means, level=0.95 + doubtful)
    assert (again[strict]).all()
    assert not again[~loose].any()


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
@examples(30)
def test_the_best_set_is_that_of_all_draws_looked_at_at_once(seed, variants, level):
    rng = np.random.default_rng(seed)
    values = table(rng, variants, 1, 60)[rng.integers(variants, size=variants)]  # with copies
    means = unit_means(list(values))
    around = drawn(means, 4_000) - means.values
    variances = np.cov(values[:, 0]) / 60
    plain = []
    for one in range(variants):
        spread = np.sqrt(np.maximum(np.diag(variances) + variances[one, one] - 2 * variances[one], 0))
        others = spread > 1e-6 * np.sqrt(variances.max())
        lead = (means.values - means.values[one])[others] / spread[others]
        highest = ((around[:, others] - around[:, [one]]) / spread[others]).max(axis=1, initial=-np.inf)
        plain.append(not others.any() or lead.max() <= max(0.0, np.quantile(highest, level)))
    assert best_set(means, level=level).tolist() == plain


def test_a_picked_score_is_corrected_and_a_clear_winner_keeps_its_own():
    rng = np.random.default_rng(0)
    equal = unit_means([rng.normal(size=(1, 400)) for _ in range(40)])
    winner, corrected = picked(equal)
    assert winner == np.argmax(equal.values)
    assert abs(corrected) < 0.03 < equal.values[winner]
    clear = unit_means([rng.normal(size=(1, 400)), rng.normal(3, size=(1, 400))])
    assert picked(clear) == (1, pytest.approx(clear.values[1], abs=1e-9))


def test_seeds_with_examples_of_their_own_have_the_errors_of_independent_means():
    rng = np.random.default_rng(0)
    values = np.full((3, 300), np.nan)
    for seed in range(3):
        values[seed, 100 * seed : 100 * (seed + 1)] = rng.normal(size=100)
    means = unit_means([values])
    expected = np.sqrt(sum(np.nanvar(row, ddof=1) / 100 for row in values)) / 3
    assert means.standard_errors[0] == pytest.approx(expected, rel=0.01)
    assert means.values[0] == pytest.approx(np.nanmean(values))


@pytest.mark.parametrize("bad", [np.full((1, 5), np.inf), np.ones((2, 5)), np.array([[1, 2, np.nan, 4, 5.0]])])
def test_tables_that_do_not_fit_are_refused(bad):
    with pytest.raises(ValueError, match="other shapes or gaps"):
        unit_means([np.zeros((1, 5)), bad])


def test_tables_of_equal_and_unequal_variants_are_right_as_often_as_they_say():
    """The rates of ``simulate_table`` in few and small runs; the whole takes minutes (CHANGELOG has its figures)."""
    found = rates(60, variants=20, examples=4_000)
    assert found["accuracy: any verdict of equal variants"] <= 0.12
    assert found["nll: any verdict of equal variants"] <= 0.12
    assert found["accuracy: the same, uncorrected"] >= 0.25
    assert found["equivalent is said wrongly of any"] <= 0.1
    assert found["the set of the best has the best"] >= 0.9
    assert abs(found["winner's corrected score, points too high"]) < 0.1 < found["winner's score, points too high"]


def test_the_fallback_for_models_like_these_is_holms():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
