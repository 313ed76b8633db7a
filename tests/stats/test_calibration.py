"""Intervals of the calibration error; how often they cover the truth is in tests/gate/test_simulation.py."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from harness import stats
from harness.stats.calibration import _folded_mean
from tests.stats.intervals import bounds, width


def plain_ece(confidence, correct, bins):
    total = 0.0
    for k in range(bins):
        inside = (confidence > k / bins) & (confidence <= (k + 1) / bins) | ((k == 0) & (confidence == 0))
        total += abs((confidence[inside] - correct[inside]).sum())
    return total / len(confidence)


def answers(seed, count=250):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.2, 1.0, size=count)
    return confidence, (rng.random(count) < confidence**2).astype(float)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_value_is_the_usual_one_and_lies_in_its_interval(bins):
    confidence, correct = answers(0)
    found = stats.ece_interval(confidence, correct, bins)
    assert found.value == pytest.approx(plain_ece(confidence, correct, bins), abs=1e-12)
    assert 0 <= found.low < found.value <= found.high
    assert found.n == len(confidence)


def test_one_bin_is_the_normal_interval_of_its_gap():
    """Far from calibrated, no sign is in doubt, and the error is a plain mean."""
    confidence, correct = answers(1, 400)
    found = stats.ece_interval(confidence, correct, bins=1, draws=20_000)
    gaps = confidence - correct
    half = 1.96 * max(gaps.std(), math.sqrt((confidence * (1 - confidence)).mean())) / 20
    assert bounds(found) == pytest.approx((gaps.mean() - half, gaps.mean() + half), abs=0.04 * half)


def test_a_calibrated_model_may_have_no_error_at_all():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, size=2000)
    correct = (rng.random(2000) < confidence).astype(float)
    found = stats.ece_interval(confidence, correct)
    assert found.low == 0 < found.value < 0.03
    assert stats.ece_interval(confidence, 1 - correct).low > 0.4


def test_few_answers_that_were_all_right_are_no_certainty():
    found = stats.ece_interval(np.full(3, 0.95), np.ones(3))
    assert found.low == 0
    assert found.high > 0.1


def test_the_mean_of_a_folded_normal():
    for mean in (0.0, 0.3, 1.0, 4.0):
        assert float(_folded_mean(np.array(mean))) == pytest.approx(scipy_stats.foldnorm.mean(mean), rel=1e-9)


def test_one_seed_is_that_seeds_and_several_the_mean():
    tables = [answers(seed) for seed in range(3)]
    one = stats.ece_over_seeds(*(v[None] for v in tables[0]))
    assert one == stats.ece_interval(*tables[0], draws=10_000)
    confidence, correct = (np.stack(v) for v in zip(*tables, strict=True))
    several = stats.ece_over_seeds(confidence, correct)
    assert several.value == pytest.approx(np.mean([plain_ece(*table, 15) for table in tables]))
    assert 0 <= several.low < several.value <= several.high
    far = stats.ece_over_seeds(np.stack([confidence[0]] * 2), np.stack([correct[0], 1 - correct[0]]))
    assert width(far) > 2 * width(one)


@pytest.mark.parametrize("bad", [math.nan, 1.5, -0.1])
def test_what_is_no_confidence_is_refused(bad):
    for call in (stats.ece_interval, lambda c, r: stats.ece_over_seeds(c[None], r[None])):
        with pytest.raises(ValueError, match="confidences"):
            call(np.array([0.5, bad]), np.ones(2))


def test_answers_to_other_questions_are_refused():
    with pytest.raises(ValueError, match="equally long"):
        stats.ece_interval(np.full(2, 0.5), np.ones(1))
    with pytest.raises(ValueError, match="at least one"):
        stats.ece_interval(np.zeros(0), np.zeros(0))
