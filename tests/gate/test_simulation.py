"""Simulated releases: how often a gate fails what is right and lets through what is worse.

Models are drawn as pairs that differ on 3, 6 or 10 % of 2,500 examples; in the mnist run the variants that are worth
comparing differ from each other on 2 to 6 %. Every release is decided by what the gate calls.
"""

import functools
import math

import numpy as np
import pytest

from harness import stats
from harness.gate.decide import decide
from tests.gate.planted import TODAY, planted, policy

N, DRAWS = 2500, 2000
DISCORDANCE = (0.03, 0.06, 0.10)
ERROR = 3 * math.sqrt(0.05 * 0.95 / DRAWS)
"""Three standard errors of a share of 5 %."""


@functools.cache
def p_values(gained, lost, margin, n=N):
    candidate = np.repeat([1.0, 0.0, 1.0], [gained, lost, n - gained - lost])[None]
    reference = np.repeat([0.0, 1.0, 1.0], [gained, lost, n - gained - lost])[None]
    found = stats.non_inferiority(candidate, reference, margin)
    return found.p_inferior, found.p_not_inferior


def releases(discordance, difference, count=DRAWS, n=N, seed=0):
    """Examples that only the candidate and only the baseline has right, [count, 2]."""
    shares = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    return np.random.default_rng(seed).multinomial(n, shares, size=count)[:, :2]


def verdicts(drawn, margin):
    """Shares of releases that pass, fail, and are not decided."""
    found = [stats.non_inferiority_verdict(*p_values(int(g), int(b), margin)) for g, b in drawn]
    return {word: found.count(word) / len(found) for word in ("pass", "fail", "inconclusive")}


@pytest.mark.parametrize("discordance", DISCORDANCE)
def test_equal_models_are_hardly_ever_failed(discordance):
    shares = verdicts(releases(discordance, 0.0), 0.02)
    assert shares["fail"] == 0
    assert shares["fail"] + shares["inconclusive"] <= (0.05 if discordance < 0.1 else 0.08)


@pytest.mark.parametrize("discordance", DISCORDANCE[1:])
def test_a_drop_of_three_points_is_caught(discordance):
    shares = verdicts(releases(discordance, -0.03), 0.02)
    assert shares["fail"] + shares["inconclusive"] >= 0.95
    assert shares["fail"] >= 0.5


@pytest.mark.parametrize("discordance", DISCORDANCE)
@pytest.mark.parametrize("margin", [0.01, 0.02])
def test_a_drop_of_just_the_margin_passes_and_fails_at_most_as_often_as_alpha(discordance, margin):
    shares = verdicts(releases(discordance, -margin), margin)
    assert shares["pass"] <= 0.05 + ERROR
    assert shares["fail"] <= 0.05 + ERROR


@pytest.mark.parametrize("discordance", DISCORDANCE[1:])
def test_a_gate_that_fails_only_what_is_significantly_worse(discordance):
    """max_drop 0 with on_inconclusive: warn."""
    assert verdicts(releases(discordance, 0.0), 0.0)["fail"] <= 0.05 + ERROR
    assert verdicts(releases(discordance, -0.03), 0.0)["fail"] >= 0.80


def test_holm_keeps_many_comparisons_of_equal_models_from_failing():
    variants = 20
    drawn = releases(0.06, 0.0, DRAWS)
    q = np.array([p_values(int(g), int(b), 0.0)[1] for g, b in drawn]).reshape(-1, variants)
    least = q.min(axis=1) * variants  # what Holm's correction makes of the smallest of them
    assert min(stats.holm(q[0])) == pytest.approx(min(1.0, least[0]))
    assert np.mean(q.min(axis=1) <= 0.05) > 0.4
    assert np.mean(least <= 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / len(q))


def test_as_many_examples_as_were_said_decide_four_in_five_equal_releases():
    needed = stats.examples_needed(0.01, 0.06)
    drawn = releases(0.06, 0.0, n=needed)
    passed = [p_values(int(g), int(b), 0.01, needed)[0] <= 0.05 for g, b in drawn]
    assert np.mean(passed) == pytest.approx(0.8, abs=3 * math.sqrt(0.8 * 0.2 / DRAWS) + 0.01)


@pytest.mark.parametrize(("gained", "lost"), [(20, 25), (40, 62), (5, 80)])
def test_the_gate_decides_as_the_simulation_does(tmp_path, gained, lost):
    both = np.ones((1, N))
    candidate, reference = both.copy(), both.copy()
    candidate[0, :lost] = reference[0, lost : lost + gained] = 0
    rule = "{id: a, match: {metric: accuracy}, vs: baseline, max_drop: {abs: 0.02}, test: paired}"
    found = decide(policy(tmp_path, rule), planted({"a": candidate}), planted({"a": reference}), today=TODAY)
    assert found.checks[0].state == stats.non_inferiority_verdict(*p_values(gained, lost, 0.02))


# coverage of every interval, 95 % (Tango's is in tests/stats/test_proportions.py)


def covered_within_a_point(intervals, truth):
    hits = [interval.low <= truth <= interval.high for interval in intervals]
    assert abs(np.mean(hits) - 0.95) < 0.01


def test_wilson_covers_the_truth():
    drawn = np.random.default_rng(1).binomial(N, 0.94, size=20_000)
    cases, times = np.unique(drawn, return_counts=True)
    found = [stats.wilson(int(k), N) for k in cases]
    hits = [interval.low <= 0.94 <= interval.high for interval in found]
    assert abs(np.average(hits, weights=times) - 0.95) < 0.01


@pytest.mark.parametrize("kind", ["accuracy", "nll", "difference"])
def test_the_bootstrap_covers_the_truth(kind):
    """500 items, 2,000 releases at once: the same resamples serve all of them."""
    rng = np.random.default_rng(2)
    draw = {
        "accuracy": lambda: (rng.random((DRAWS, 500)) < 0.9, 0.9),
        "nll": lambda: (rng.gamma(0.5, 1.0, size=(DRAWS, 500)), 0.5),
        "difference": lambda: (rng.choice([1.0, -1.0, 0.0], p=[0.04, 0.06, 0.9], size=(DRAWS, 500)), -0.02),
    }
    values, truth = draw[kind]()
    counts = stats.resample_counts(500, draws=2000)
    covered_within_a_point([stats.bootstrap_mean(row, counts) for row in values], truth)


def outcomes(rng, seeds, gained, lost, spread):
    """Right and wrong of candidate and baseline [S, N] each: half of what differs is shared by all seeds.

    ``spread`` is the standard deviation of the true difference from seed to seed.
    """
    effect = np.clip(spread * rng.normal(size=(seeds, 1)), -min(gained, lost) + 1e-3, min(gained, lost) - 1e-3)
    draws = np.where(rng.random((seeds, N)) < 0.5, rng.random((1, N)), rng.random((seeds, N)))
    candidate, baseline = np.ones((seeds, N)), np.ones((seeds, N))
    baseline[draws < gained + effect / 2] = 0
    candidate[draws > 1 - lost + effect / 2] = 0
    return candidate, baseline


SPREADS = (0.0, 0.002, 0.004)
"""In the mnist run the differences to the reference vary by 0.1 to 0.4 points from seed to seed."""


@pytest.mark.parametrize("spread", SPREADS)
def test_three_seeds_of_equal_models_are_hardly_ever_failed_and_a_drop_is_not_passed(spread):
    rng = np.random.default_rng(4)
    equal = [stats.non_inferiority(*outcomes(rng, 3, 0.03, 0.03, spread), 0.02) for _ in range(DRAWS)]
    verdicts = [stats.non_inferiority_verdict(one.p_inferior, one.p_not_inferior) for one in equal]
    assert verdicts.count("fail") == 0
    assert verdicts.count("pass") / DRAWS >= (0.95 if spread <= 0.002 else 0.9)
    worse = [stats.non_inferiority(*outcomes(rng, 3, 0.03, 0.06, spread), 0.02) for _ in range(DRAWS)]
    verdicts = [stats.non_inferiority_verdict(one.p_inferior, one.p_not_inferior) for one in worse]
    assert verdicts.count("pass") / DRAWS <= 0.05
    assert (verdicts.count("fail") + verdicts.count("inconclusive")) / DRAWS >= 0.95


@pytest.mark.parametrize("spread", SPREADS)
def test_the_interval_over_three_seeds_covers_the_truth(spread):
    rng = np.random.default_rng(5)
    found = [stats.over_seeds(np.subtract(*outcomes(rng, 3, 0.03, 0.05, spread))) for _ in range(DRAWS)]
    hits = [interval.low <= -0.02 <= interval.high for interval in found]
    more = 0.037  # where seeds are alike it is no narrower than their items allow
    assert 0.94 - ERROR / 3 < np.mean(hits) < 0.95 + more + ERROR / 3


def answers(rng, seeds, count, gap, spread=0.0):
    """Confidences near 1, as a trained network's, and whether it was right: less often than it says, by ``gap``."""
    confidence = 1 - 0.6 * rng.beta(0.5, 3, size=(seeds, count))
    right = confidence - gap - spread * rng.normal(size=(seeds, 1))
    return confidence, (rng.random((seeds, count)) < right).astype(float)


@pytest.mark.parametrize("gap", [0.08, 0.03, 0.01, 0.0])
def test_the_interval_of_calibration_error_covers_the_truth(gap):
    """Within two points and a half; more where a model is nearly calibrated: the measured error is nearly all noise."""
    rng = np.random.default_rng(6)
    found = [stats.ece_interval(*(v[0] for v in answers(rng, 1, 1000, gap)), draws=300) for _ in range(DRAWS)]
    covered = np.mean([interval.low <= gap <= interval.high for interval in found])
    assert 0.925 - ERROR / 3 < covered < (1 if gap == 0 else 0.975 + ERROR / 3)


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.03])
def test_the_interval_of_calibration_error_over_three_seeds_covers_the_truth(spread):
    rng = np.random.default_rng(7)
    found = [stats.ece_over_seeds(*answers(rng, 3, 800, 0.1, spread), draws=500) for _ in range(DRAWS // 2)]
    hits = [interval.low <= 0.1 <= interval.high for interval in found]
    assert 0.925 - ERROR / 3 < np.mean(hits) < 0.975 + ERROR / 3
