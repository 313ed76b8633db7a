"""Critical values over seeds and items: their coverage by quadrature, over all shares of the seeds in the variance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness.stats import critical
from tests.examples import examples

SHARES = [0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98, 1.0]


GRID = np.linspace(0, 1, 801)


def coverages(seeds, confidence):
    """Exact, at each of the shares: the mean over the chi-squared distribution of what seeds say of their variance."""
    quantile = float(scipy_stats.norm.isf((1 - confidence) / 2))
    x = scipy_stats.chi2.ppf((np.arange(20_000) + 0.5) / 20_000, seeds - 1) / (seeds - 1)
    reaches = [critical.reach(quantile, share, seeds) for share in GRID]
    for share in SHARES:
        error = np.sqrt(1 - share + share * x)
        reach = np.interp(share * x / error**2, GRID, reaches)
        yield share, float(np.mean(2 * scipy_stats.norm.cdf(reach * error) - 1))


@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("seeds", [3, 4, 5, 10])
def test_three_seeds_or_more_cover_what_they_say_whatever_their_share(seeds, confidence):
    """Within 0.6 points."""
    for share, coverage in coverages(seeds, confidence):
        assert coverage == pytest.approx(confidence, abs=0.006), share


@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.95, 0.99])
def test_two_seeds_never_cover_less_than_they_say(confidence):
    assert min(coverage for _, coverage in coverages(2, confidence)) > confidence - 0.001


def test_the_usual_degrees_of_freedom_would_not_do():
    """Welch's t with three seeds: what all this is for."""
    x = scipy_stats.chi2.ppf((np.arange(20_000) + 0.5) / 20_000, 2) / 2
    error = np.sqrt(0.1 + 0.9 * x)
    reach = critical._welch(0.9 * x / error**2, 2, 1.96)
    assert np.mean(2 * scipy_stats.norm.cdf(reach * error) - 1) < 0.93


@pytest.mark.parametrize("seeds", [2, 3, 7])
def test_at_the_ends_they_are_the_normals_and_students(seeds):
    for quantile in (1.0, 1.5, 2.0, 3.0):
        assert critical.reach(quantile, 0.0, seeds) == pytest.approx(quantile)
        student = scipy_stats.t.isf(scipy_stats.norm.sf(quantile), seeds - 1)
        assert critical.reach(quantile, 1.0, seeds) == pytest.approx(student)


@given(st.floats(0.01, 4.4), st.floats(0, 1), st.sampled_from([2, 3, 5, 60]))
@examples(100)
def test_a_reach_is_turned_back_into_its_quantile_and_grows_with_it(quantile, share, seeds):
    reach = critical.reach(quantile, share, seeds)
    assert reach >= quantile - 1e-9
    assert critical.quantile(reach, share, seeds) == pytest.approx(quantile, rel=1e-6)
    assert critical.reach(quantile + 0.05, share, seeds) > reach


def test_many_seeds_are_welchs_t():
    for share in (0.1, 0.5, 1.0):
        solved = critical.reach(1.96, share, critical.MANY_SEEDS)
        assert critical.reach(1.96, share, critical.MANY_SEEDS + 1) == pytest.approx(solved, rel=0.005)
