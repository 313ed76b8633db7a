"""A claim's verdict: by the interval of these models, against a bar, with what models like these allow beside it."""

import numpy as np
import pytest

from harness import stats
from harness.report.claim import Test as Wanted
from harness.report.claim import decided, judged, of_these
from tests.report.planted import BASE, BETTER, CLOSE, EXAMPLES, SEEDS, WORSE


def differences(one):
    return one.astype(float) - BASE


@pytest.mark.parametrize(
    ("test", "low", "high", "verdict"),
    [
        (Wanted(), 0.1, 0.3, "held"),
        (Wanted(), -0.3, -0.1, "not held"),
        (Wanted(), -0.1, 0.3, "undecided"),
        (Wanted(), np.nan, np.nan, "undecided"),
        (Wanted(-1), -0.3, -0.1, "held"),
        (Wanted(-1), 0.1, 0.3, "not held"),
        (Wanted(bar=-0.2), -0.1, 0.1, "held"),
        (Wanted(bar=-0.2), -0.3, -0.1, "undecided"),
        (Wanted(bar=-0.2), -0.4, -0.3, "not held"),
        (Wanted(-1, bar=0.2), -0.1, 0.1, "held"),
        (Wanted(-1, bar=0.2), 0.3, 0.4, "not held"),
        (Wanted(alike=0.2), -0.1, 0.15, "not held"),
        (Wanted(alike=0.2), 0.1, 0.15, "held"),
        (Wanted(alike=0.2), -0.1, 0.25, "undecided"),
        (Wanted(alike=0.2), np.nan, np.nan, "undecided"),
    ],
)
def test_a_verdict_goes_by_the_interval(test, low, high, verdict):
    assert test.verdict(low, high) == verdict


def test_seeds_are_fixed_and_examples_are_a_sample():
    """Seeds that differ by more than chance leave these models certain, and models like these not."""
    apart = np.linspace(-0.2, 0.5, SEEDS)[:, None] + 0.01 * np.random.default_rng(0).normal(size=(SEEDS, 200))
    found = decided("c", "s", apart)
    assert (found.verdict, found.scope, found.n) == ("held", "these models", 200)
    assert found.note.startswith("models like these: [")
    assert found.note.endswith("], undecided")
    alone = decided("c", "s", apart[:1])
    assert (alone.verdict, alone.note) == ("not held", "")


def test_the_interval_is_that_of_a_mean_over_examples():
    values = differences(BETTER)
    of_examples = values.mean(axis=0)
    found = of_these(values)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.962 * of_examples.std(ddof=1) / np.sqrt(EXAMPLES), rel=1e-3)


def test_examples_that_some_seeds_lack_count_where_they_are():
    values = differences(WORSE)
    gaps = np.where(np.random.default_rng(0).random(values.shape) < 0.5, values, np.nan)
    found = decided("c", "s", gaps)
    assert found.estimate == pytest.approx(np.nanmean(gaps, axis=1).mean())
    assert found.verdict == "not held"
    nowhere = np.concatenate([gaps, np.full((SEEDS, 50), np.nan)], axis=1)
    assert decided("c", "s", nowhere) == found


def test_a_share_that_hardly_anything_changes_has_the_interval_of_a_share():
    values = np.zeros((1, 500))
    assert of_these(values).high == stats.paired_proportions(0, 0, 500).high > 0
    values[0, :3] = 1
    assert of_these(values).low == stats.paired_proportions(3, 0, 500).low
    most = of_these(1 - values)
    assert (most.low, most.high) == (1 - stats.paired_proportions(3, 0, 500).high, 1.0)


@pytest.mark.parametrize("values", [np.ones((2, 20)), np.full((2, 90), np.inf)], ids=["few", "infinite"])
def test_what_cannot_be_known_is_undecided(values):
    found = decided("c", "s", values, unit="nats")
    assert (found.verdict, found.low) == ("undecided", None)
    assert "[" not in found.shown


def test_equal_ones_are_told_to_be_so():
    found = decided("c", "s", differences(CLOSE), Wanted(alike=0.05))
    assert (found.verdict, "any difference is below 5.00 points" in found.note) == ("not held", True)
    assert "below" not in decided("c", "s", differences(WORSE), Wanted(alike=0.05)).note


@pytest.mark.parametrize(
    ("unit", "shown"),
    [("points", "+1.20 [−1.20 .. +3.60]"), ("nats", "+0.012 [−0.012 .. +0.036]"), ("r", "0.01 [−0.01 .. 0.04]")],
)
def test_estimates_are_shown_in_their_units(unit, shown):
    assert judged("c", "s", stats.Interval(0.012, -0.012, 0.036, 9), unit=unit).shown == shown
