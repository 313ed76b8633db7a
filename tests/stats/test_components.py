"""The mean over seeds and items against analysis of variance, and against how often its interval is right."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from harness import stats


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_its_variances_are_those_of_an_analysis_of_variance(seeds):
    rng = np.random.default_rng(seeds)
    values = rng.normal(size=(seeds, 12)) + rng.normal(size=(1, 12)) + 0.5 * rng.normal(size=(seeds, 1))
    rows = [{"seed": f"s{s}", "item": f"i{i}", "y": values[s, i]} for s in range(seeds) for i in range(12)]
    table = anova_lm(ols("y ~ C(seed) + C(item)", pd.DataFrame(rows)).fit())
    of_seeds, of_items, rest = (table.loc[name, "mean_sq"] for name in ("C(seed)", "C(item)", "Residual"))
    found = stats.crossed_mean(values)
    assert found.mean == pytest.approx(values.mean())
    assert found.item_variance == pytest.approx(of_items / seeds)
    assert found.seed_variance == pytest.approx(max(0, of_seeds - rest) / seeds / 12)


@given(st.integers(0, 2**32 - 1), st.integers(2, 60))
@settings(max_examples=40, deadline=None)
def test_one_seed_is_students_t(seed, items):
    values = np.random.default_rng(seed).normal(size=items)
    oracle = scipy_stats.ttest_1samp(values, 0.2, alternative="greater")
    found = stats.crossed_mean(values[None])
    assert found.p_below(0.2) == pytest.approx(oracle.pvalue)
    two_sided = scipy_stats.ttest_1samp(values, 0.2).confidence_interval(0.9)
    assert (found.interval(0.9).low, found.interval(0.9).high) == pytest.approx(tuple(two_sided))


def test_copies_of_a_seed_add_nothing():
    values = np.random.default_rng(0).normal(size=(1, 50))
    once, thrice = stats.crossed_mean(values), stats.crossed_mean(np.repeat(values, 3, axis=0))
    assert thrice.standard_error == pytest.approx(once.standard_error)
    assert thrice.df == pytest.approx(once.df)
    assert thrice.seed_variance == 0


def test_items_that_agree_leave_the_seeds_only():
    found = stats.crossed_mean(np.repeat([[0.1], [0.2], [0.4]], 80, axis=1))
    oracle = scipy_stats.ttest_1samp([0.1, 0.2, 0.4], 0.0).confidence_interval(0.95)
    assert found.df == pytest.approx(2)
    assert (found.interval().low, found.interval().high) == pytest.approx(tuple(oracle))


def test_what_never_varies_is_certain():
    found = stats.crossed_mean(np.full((3, 40), 0.25))
    assert (found.interval().low, found.interval().high) == (0.25, 0.25)
    assert [found.p_below(value) for value in (0.2, 0.25, 0.3)] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("shape", [(0, 4), (3, 1), (3, 0), (4,), ()])
def test_it_needs_a_table(shape):
    with pytest.raises(ValueError, match="expected"):
        stats.crossed_mean(np.zeros(shape))


def simulated(rng, seeds, items, seed_effect):
    """Paired right and wrong answers at 10 % discordance, half of it shared by the seeds; true mean 0."""
    shared = rng.choice([-1, 0, 1], p=[0.05, 0.9, 0.05], size=(1, items))
    own = rng.choice([-1, 0, 1], p=[0.05, 0.9, 0.05], size=(seeds, items))
    of_items = math.sqrt(0.1 * (0.25 + 0.75 / seeds) / items)  # standard error from items alone
    effects = seed_effect * of_items * math.sqrt(seeds) * rng.normal(size=(seeds, 1))
    return np.where(rng.random((seeds, items)) < 0.5, shared, own) + effects


@pytest.mark.parametrize(("seeds", "seed_effect"), [(1, 0.0), (3, 0.0), (3, 1.0), (3, 3.0), (5, 1.0), (5, 3.0)])
def test_it_covers_the_truth_within_two_points_of_what_it_says(seeds, seed_effect):
    """Seeds add no error of their own, as much as items do, or three times that; in the mnist run 0 to 1.5 times."""
    rng, draws = np.random.default_rng(7), 2000
    found = [stats.crossed_mean(simulated(rng, seeds, 150, seed_effect)).interval(0.9) for _ in range(draws)]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in found])
    assert abs(covered - 0.9) < 0.02 + 3 * math.sqrt(0.9 * 0.1 / draws)
