"""Settings on test are those of systems that are built with them, and cost what their calls cost."""

import numpy as np
import pytest
import torch

from harness.checks.pools import build_method, independent, split
from harness.cost.counters import flops_per_example
from harness.cost.dials import Settings, settings_of
from harness.cost.relative import FLOPS
from harness.evaluate import outcomes
from harness.evaluate.predictions import CachedPredictions
from harness.store import Store
from harness.systems.systems import load_combination

SYSTEMS = {
    "cascade": lambda: build_method("cascade", independent(3), stages=[0, "0+1+2"]),
    "three stages": lambda: build_method("cascade", independent(3), stages=[0, "0+1", "linear"], accept="margin"),
    "router": lambda: build_method("routed_members", independent(3)),
    "cascade routing": lambda: build_method("cascade_routing", independent(3)),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_setting_is_the_system_that_it_says(name, tmp_path):
    combination, test = SYSTEMS[name](), split("test")
    found = settings_of(combination, test, CachedPredictions(Store(tmp_path), "cpu"))
    assert len(found) == len(combination.dial()) > 1
    assert found.unit == FLOPS
    for at, setting in enumerate(combination.dial()):
        with torch.inference_mode():
            log_probs, calls = setting.run(test.inputs)
            expected = flops_per_example(setting, test.inputs, calls)
        table = outcomes.tabulate(log_probs.numpy(), test.labels.numpy())
        np.testing.assert_allclose(found.outcomes["nll"][at], table["nll"], atol=1e-5)
        assert found.outcomes["correct"][at].astype(bool).tolist() == table["correct"].tolist()
        assert float(found.cost[at].mean(dtype=np.float64)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_dial_is_saved_with_its_system_and_the_table_too(name, tmp_path):
    combination, test = SYSTEMS[name](), split("test")
    cached = CachedPredictions(Store(tmp_path / "store"), "cpu")
    found = settings_of(combination, test, cached)
    for folder in (tmp_path / "system", tmp_path / "table"):
        folder.mkdir()
    combination.save(tmp_path / "system")
    again = settings_of(load_combination(tmp_path / "system", independent(3)), test, cached)
    found.save(tmp_path / "table")
    for other in (again, Settings.load(tmp_path / "table")):
        assert other.unit == found.unit
        np.testing.assert_array_equal(other.cost, found.cost)
        assert set(other.outcomes) == set(found.outcomes)
        for column, values in found.outcomes.items():
            np.testing.assert_array_equal(other.outcomes[column], values)


def test_the_cheapest_is_the_first_stage_and_the_dearest_the_last(tmp_path):
    found = settings_of(SYSTEMS["cascade"](), split("test"), CachedPredictions(Store(tmp_path), "cpu"))
    first, last = found.cost.mean(axis=1)[[0, -1]]
    assert last == pytest.approx(3 * first)


def test_what_has_no_dial_leaves_an_empty_table(tmp_path):
    cached = CachedPredictions(Store(tmp_path), "cpu")
    routed = build_method("routed_members", independent(3), by="inputs")  # not told from predictions
    for combination in (build_method("linear", independent(3)), routed):
        assert len(settings_of(combination, split("test"), cached)) == 0
