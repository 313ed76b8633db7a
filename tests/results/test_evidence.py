"""Whether the values behind a score are those of the score."""

import math

import pytest

from harness.registry import METRICS
from harness.results.evidence import Evidence, Missing
from harness.results.metric import Column, metric
from tests.gate.planted import changed, coins, planted


def with_one_large_loss(off):
    """A run whose examples have no loss but one, which is 1,000, and a score that is this much above their mean."""
    run = planted({"v": coins(0.8)}, extra={"v": {"margin": 1000 / 600 + off}})
    losses = [1000.0, *[0.0] * 599]
    scores, variants = run.scores.copy(), run.variants.copy()
    scores.loc[scores["metric"] == "nll", ["value", "low", "high"]] = 1000 / 600 + off, math.nan, math.nan
    variants["nll"] = 1000 / 600 + off
    return Evidence(changed(run, examples=run.examples.assign(nll=losses), scores=scores, variants=variants), "run")


def test_a_mean_of_numbers_that_cannot_cancel_is_the_score_but_for_rounding_of_its_own_size():
    assert with_one_large_loss(1e-6).outcomes("v", "all", "nll").shape == (1, 600)
    with pytest.raises(Missing, match="do not give the nll"):
        with_one_large_loss(5e-4).outcomes("v", "all", "nll")


def test_a_mean_of_numbers_that_can_cancel_keeps_the_rounding_of_the_largest(monkeypatch):
    monkeypatch.setattr(METRICS, "_known", METRICS.all())
    metric(Column("margin", "of either sign", least=-math.inf, outcome="nll"))(lambda outcomes: 0.0)
    assert with_one_large_loss(5e-4).outcomes("v", "all", "margin").shape == (1, 600)
    with pytest.raises(Missing, match="do not give the margin"):
        with_one_large_loss(5e-3).outcomes("v", "all", "margin")
