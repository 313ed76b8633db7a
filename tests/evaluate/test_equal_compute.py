"""Equal compute: the best of each way within each budget, corrected for the pick, and all pairs of these."""

import json

import numpy as np
import pytest

from harness.evaluate.equal_compute import BUDGETS, equal_compute
from harness.evaluate.families import Points
from harness.evaluate.ways import ENSEMBLES, EXPERTS, MERGED, PASSES, SINGLE, WAYS, way_of
from tests.report.compared import gained, planted, right

BASE = right(0.8, 1)
OUTCOMES = {"best_single": BASE, "member/index=0": gained(BASE, 0.12, 2), "linear/members=0+1": gained(BASE, 0.01, 3),
            "linear": gained(BASE, 0.04, 4), "log_linear": gained(BASE, 0.02, 5), "temperature": gained(BASE, 0.15, 6),
            "uniform_soup": gained(BASE, 0.02, 7), "greedy_soup": gained(BASE, -0.01, 8),
            "mc_dropout": gained(BASE, 0.01, 9), "moe": gained(BASE, 0.03, 10)}  # fmt: skip
COSTS = {"linear/members=0+1": 2, "linear": 8, "log_linear": 7.5, "temperature": 8, "mc_dropout": 16, "moe": 2.05}


@pytest.fixture(scope="module")
def evidence():
    return planted(OUTCOMES, costs=COSTS)


@pytest.fixture(scope="module")
def found(evidence):
    return equal_compute(Points(evidence.run))


def cells(found, name):
    (way,) = [each for each in found["ways"] if each["name"] == name]
    assert way["words"] == WAYS[name]
    return way["cells"]


def chosen(found, name):
    return [cell and cell["variant"] for cell in cells(found, name)]


def test_each_way_has_its_best_within_each_budget(found):
    assert found["budgets"] == list(BUDGETS) == [1, 2, 4, 8]
    assert chosen(found, ENSEMBLES) == [None, "linear/members=0+1", "linear/members=0+1", "linear"]
    assert chosen(found, MERGED) == ["uniform_soup"] * 4
    assert chosen(found, EXPERTS) == [None, "moe", "moe", "moe"]  # a little more than twice is about twice
    names = {way["name"] for way in found["ways"]}
    assert not names & {PASSES, SINGLE}  # too dear, and no way to spend more
    assert [cell and cell["candidates"] for cell in cells(found, ENSEMBLES)] == [None, 1, 1, 3]


@pytest.mark.parametrize(("experts", "way"), [(1, None), (4, EXPERTS)])
def test_a_dense_model_that_is_trained_further_is_no_mixture_of_experts(experts, way):
    row = {"method": "upcycle", "family": "trained", "params": json.dumps({"experts": experts})}
    assert way_of(row) == way


def test_gains_and_their_intervals_are_those_of_the_whole_table(evidence, found):
    for way in found["ways"]:
        for cell in filter(None, way["cells"]):
            gain = evidence.gain(cell["variant"])
            assert (cell["gain"], cell["low"], cell["high"], cell["verdict"]) == (
                pytest.approx(gain.value), gain.low_together, gain.high_together, gain.verdict)  # fmt: skip
            assert cell["cost"] == COSTS.get(cell["variant"], 1)
            assert cell["corrected"] <= cell["gain"] + 1e-9
            if cell["candidates"] == 1:
                assert cell["corrected"] == pytest.approx(cell["gain"])


def test_the_best_of_many_equal_ones_is_corrected_for_having_been_picked():
    values = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        equal = {f"linear/members=0+{at}": right(0.8, rng.integers(2**31), examples=400) for at in range(1, 9)}
        run = planted({"best_single": right(0.8, rng.integers(2**31), examples=400)} | equal).run
        (cell, *_) = cells(equal_compute(Points(run)), ENSEMBLES)
        values.append((cell["gain"], cell["corrected"]))
    gain, corrected = np.mean(values, axis=0)
    assert gain > 0.02
    assert abs(corrected) < gain / 2


def test_all_that_are_picked_are_compared_with_intervals_no_narrower_than_each_alone(evidence, found):
    picked = {cell["variant"] for way in found["ways"] for cell in way["cells"] if cell}
    pairs = {frozenset((pair["one"], pair["other"])): pair for pair in found["pairs"]}
    assert len(pairs) == len(found["pairs"]) == len(picked) * (len(picked) - 1) / 2
    for pair in found["pairs"]:
        alone = evidence.gain_over(pair["one"], pair["other"])
        assert pair["gain"] == pytest.approx(alone.value)
        assert pair["low"] < alone.low < alone.high < pair["high"]


def test_a_loss_is_turned():
    losses = equal_compute(Points(planted(OUTCOMES, costs=COSTS, score="nll").run))
    assert chosen(losses, ENSEMBLES) == [None, "linear/members=0+1", "linear/members=0+1", "linear"]
    (cell,) = {cell["variant"]: cell for cell in cells(losses, MERGED)}.values()
    assert 0 < cell["low"] < cell["gain"] < cell["high"]
    (pair,) = [p for p in losses["pairs"] if {p["one"], p["other"]} == {"linear", "uniform_soup"}]
    assert (pair["gain"] > 0) == (pair["one"] == "linear")


def test_nothing_is_told_without_comparisons_or_with_few_examples():
    assert equal_compute(Points(planted(OUTCOMES, version=1).run)) is None
    few = {name: each[:, :20] for name, each in OUTCOMES.items()}
    assert equal_compute(Points(planted(few, costs=COSTS).run)) is None
    assert equal_compute(Points(planted({"best_single": BASE}).run)) is None
