"""The normal distribution and Student's t against scipy.stats, to the last digit."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from harness.stats import distributions

X = np.array([-np.inf, -50.0, -9.0, -1.96, -0.3, -0.0, 0.0, 1e-9, 0.7, 2.0, 8.5, 40.0, np.inf, np.nan])
CHANCES = np.array([0.0, 1e-300, 1e-12, 0.025, 0.05, 0.3, 0.5, 0.7, 0.975, 1 - 1e-12, np.nan])
DF = [0.3, 1, 2, 7.5, 29, 1e4, 1e18, np.inf]


def same(found, expected):
    np.testing.assert_array_equal(found, expected)
    assert (np.signbit(found) == np.signbit(expected))[expected == 0].all()  # "-0.0" would be read in a report


def test_the_normal_distribution():
    same(distributions.normal_density(X), scipy_stats.norm.pdf(X))
    same(distributions.normal_below(X), scipy_stats.norm.cdf(X))
    same(distributions.normal_above(X), scipy_stats.norm.sf(X))
    same(distributions.normal_quantile(np.append(CHANCES, 1.0)), scipy_stats.norm.isf(np.append(CHANCES, 1.0)))


@pytest.mark.parametrize("df", DF)
def test_students_t(df):
    same(distributions.student_above(X, df), scipy_stats.t.sf(X, df))
    same(distributions.student_quantile(CHANCES, df), scipy_stats.t.isf(CHANCES, df))
    assert float(distributions.student_quantile(0.025, df)) == float(scipy_stats.t.isf(0.025, df))
