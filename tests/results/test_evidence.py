"""Whether the values behind a score are those of the score."""

import math

import numpy as np
import pytest

from harness.registry import METRICS
from harness.results.evidence import Evidence, Missing, NonFinite, Unscored, mean_over_seeds
from harness.results.metric import Column, metric
from tests.gate.planted import changed, coins, planted


def with_an_infinite_loss(*, cell, row):
    """A run of which one loss is infinite; ``cell``, ``row``: whether its NLL is in variants.csv and scores.parquet."""
    run = planted({"v": coins(0.8)})
    examples, scores, variants = run.examples.copy(), run.scores, run.variants
    examples.loc[3, "nll"] = math.inf
    if not cell:
        variants = variants.assign(nll=math.nan)
    if not row:
        scores = scores[scores["metric"] != "nll"]
    return Evidence(changed(run, examples=examples, scores=scores, variants=variants), "run")


@pytest.mark.parametrize("seed", ["all", "0"])
def test_a_score_that_is_infinite_is_unscored_with_the_reason_and_never_a_value(seed):
    for ask in ("score", "outcomes"):
        with pytest.raises(Unscored, match=r"has no nll of 'v', seed .*: it is infinite on 1 of 600 test examples"):
            getattr(with_an_infinite_loss(cell=False, row=False), ask)("v", seed, "nll")
    assert with_an_infinite_loss(cell=False, row=False).outcomes("v", seed, "accuracy").shape == (1, 600)


@pytest.mark.parametrize(("cell", "row", "error"), [(True, True, NonFinite), (True, False, Missing),
                                                    (False, True, NonFinite)])  # fmt: skip
def test_tables_that_disagree_about_an_infinite_score_are_faults(cell, row, error):
    with pytest.raises(error) as problem:
        with_an_infinite_loss(cell=cell, row=row).outcomes("v", "all", "nll")
    assert type(problem.value) is error


def with_one_large_loss(off):
    """A run whose examples have no loss but one, which is 1,000, and a score that is this much above their mean."""
    run = planted({"v": coins(0.8)}, extra={"v": {"margin": 1000 / 600 + off}})
    losses = [1000.0, *[0.0] * 599]
    scores, variants = run.scores.copy(), run.variants.copy()
    scores.loc[scores["metric"] == "nll", ["value", "low", "high"]] = 1000 / 600 + off, math.nan, math.nan
    variants["nll"] = 1000 / 600 + off
    return Evidence(changed(run, examples=run.examples.assign(nll=losses), scores=scores, variants=variants), "run")


def apart(share=0.8, seed=0):
    """Right answers of three seeds that were tested on 300 of 600 examples each, the first and last on the same."""
    correct = coins(share, seeds=3, seed=seed)
    correct[0, :300] = correct[1, 300:] = correct[2, :300] = np.nan
    return correct


def test_seeds_with_splits_of_their_own_have_the_examples_that_they_were_tested_on():
    correct = apart()
    found = Evidence(planted({"v": correct, "w": apart(0.7, 1)}), "run").outcomes("v", "all", "accuracy")
    values = np.array([[found.loc[seed, f"x{i}"] for i in range(600)] for seed in range(3)])
    np.testing.assert_array_equal(values, correct)
    assert mean_over_seeds(values) == pytest.approx(np.mean([np.nanmean(row) for row in correct]))
    assert Evidence(planted({"v": correct}), "run").outcomes("v", "1", "accuracy").shape == (1, 300)


@pytest.mark.parametrize("others", [["v"], ["v", "w"]])
def test_an_example_that_one_seed_lacks_is_missing_whatever_the_other_seeds_have(others):
    run = planted({"v": apart(), "w": apart(0.8, 1)})
    examples = run.examples
    gone = examples["variant"].isin(others) & (examples["seed"] == 2) & (examples["example_id"] == "x300")
    holed = Evidence(changed(run, examples=examples[~gone]), "run")
    for seed in ("all", "2"):
        with pytest.raises(Missing, match="some examples or seeds of 'v' are missing"):
            holed.outcomes("v", seed, "accuracy")
    shared = planted({"v": coins(0.8, seeds=2)})
    examples = shared.examples.drop(index=700)
    with pytest.raises(Missing, match="some examples or seeds of 'v' are missing"):
        Evidence(changed(shared, examples=examples), "run").outcomes("v", "all", "accuracy")


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
