"""Functions of several means: against the interval of a mean, of a ratio, and of a maximum."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from harness.stats.of_means import of_a_choice, percentiles, t_quantile
from harness.stats.simultaneous import picked, unit_means


def means_of(rng, *centres, units=400):
    shared = rng.normal(size=units)
    return unit_means([(centre + shared + 0.5 * rng.normal(size=units))[None] for centre in centres])


def test_a_mean_itself_has_students_interval():
    means = means_of(np.random.default_rng(0), 1.0, 2.0)
    half = scipy_stats.t.isf(0.025, 399) * means.standard_errors[1]
    expected = means.values[1] + np.array([-half, half])
    assert percentiles(means, lambda drawn: drawn[:, 1], draws=40_000) == pytest.approx(expected, abs=0.03 * half)
    value, low, high = of_a_choice(means, lambda _: 1, lambda one, values: float(values[one]))
    assert (value, low, high) == pytest.approx((means.values[1], *expected))
    assert t_quantile(400) == pytest.approx(scipy_stats.t.isf(0.025, 399))


def test_a_linear_function_has_the_interval_of_its_combination():
    rng = np.random.default_rng(1)
    tables = [rng.normal(size=(1, 100)) for _ in range(3)]
    found = of_a_choice(unit_means(tables), lambda _: None, lambda _, values: float(values @ [1, -2, 0.5]))
    oracle = scipy_stats.ttest_1samp((tables[0] - 2 * tables[1] + 0.5 * tables[2])[0], 0).confidence_interval(0.95)
    assert found[1:] == pytest.approx((oracle.low, oracle.high), rel=1e-6)


def test_a_ratio_is_not_symmetric():
    """Against Fieller's interval of a ratio of means."""
    means = means_of(np.random.default_rng(2), 0.5, 1.0, units=60)
    low, high = percentiles(means, lambda drawn: drawn[:, 0] / drawn[:, 1], draws=40_000)
    covariance, t = means.shares @ means.shares.T, t_quantile(60)
    a, b, c = (
        means.values[1] ** 2 - t**2 * covariance[1, 1],
        -2 * (means.values[0] * means.values[1] - t**2 * covariance[0, 1]),
        means.values[0] ** 2 - t**2 * covariance[0, 0],
    )
    fieller = sorted(np.roots([a, b, c]))
    assert (low, high) == pytest.approx(fieller, abs=0.06 * (fieller[1] - fieller[0]))


def test_the_highest_of_equal_means_is_corrected_as_a_pick_is():
    rng = np.random.default_rng(3)
    found = np.array([(means.values.max(), *of_a_choice(means, lambda v: int(v.argmax()), lambda at, v: float(v[at])),
                       picked(means, repeats=25)[1])
                      for means in (means_of(rng, *[0.0] * 6, units=200) for _ in range(150))])  # fmt: skip
    uncorrected, value, low, high, as_picked = found.T
    assert value == pytest.approx(as_picked)
    assert uncorrected.mean() > 0.03
    assert value.mean() == pytest.approx(0, abs=0.015)
    assert 0.92 <= ((low <= 0) & (high >= 0)).mean() <= 0.995


def test_what_may_be_infinite_has_no_end():
    means = means_of(np.random.default_rng(4), 0.0, 0.0)
    low, high = percentiles(means, lambda drawn: np.where(drawn[:, 0] > means.values[0], np.inf, drawn[:, 1]))
    assert np.isfinite(low)
    assert high == np.inf
