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
    variants, families = 20, DRAWS // 20
    q = np.array([p_values(int(g), int(b), 0.0)[1] for g, b in releases(0.06, 0.0, variants * families)])
    uncorrected = [any(p <= 0.05) for p in q.reshape(families, variants)]
    corrected = [min(stats.holm(p)) <= 0.05 for p in q.reshape(families, variants)[:40]]
    assert np.mean(uncorrected) > 0.4
    assert np.mean(corrected) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 40)


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


def test_the_bootstrap_of_clusters_covers_the_truth():
    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(150), 4)
    found = []
    for _ in range(DRAWS):
        values = rng.normal(size=600) + np.repeat(rng.normal(size=150), 4)
        found.append(stats.clustered_difference(values, np.zeros(600), clusters, draws=1000))
    covered_within_a_point(found, 0.0)
