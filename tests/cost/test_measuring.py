"""Laws of what is kept of a measurement, and under which key."""

from dataclasses import replace

import pytest
import torch

from harness.cost.cost import Bench
from harness.cost.measuring import NotGiven, cost_key, keep, kept, measure, once_key, unmeasured
from harness.registry import COSTS
from harness.store import Store

BENCH = Bench(lambda: None, None, None, torch.device("cpu"), {})
ABOUT = {"build": "b", "test": "t", "batch": 3, "machine": "m", "reference": "r"}


def giving(cost, found):
    return replace(cost, measure=lambda bench: found)


def test_without_its_first_column_nothing_is_given_and_the_reason_is_told(page_faults):
    for found in ({}, {"minor_page_faults": None}):
        with pytest.raises(NotGiven, match="page_faults: the meter gave no minor_page_faults"):
            measure(giving(page_faults, found), BENCH)
    blind = giving(COSTS.get("memory"), {"peak_memory_bytes": None, "memory_source": "unavailable: unplugged"})
    with pytest.raises(NotGiven, match=r"^unavailable: unplugged$"):
        measure(blind, BENCH)
    for found in ({"minor_page_faults": 0}, {"minor_page_faults": 3, "more": None}):
        assert measure(giving(page_faults, found), BENCH) == found


def test_what_cannot_be_measured_has_its_reason_where_the_cost_has_a_word_for_it():
    assert unmeasured(COSTS.get("memory"), "other tokens") == {"memory_source": "unavailable: other tokens"}
    assert unmeasured(COSTS.get("latency"), "other tokens") == {}


def test_figures_are_kept_as_they_were_given_and_nan_never(tmp_path, page_faults):
    store, key = Store(tmp_path), cost_key(page_faults, **ABOUT)
    assert kept(store, key) is None
    with pytest.raises(ValueError, match="JSON"):
        keep(store, key, {"minor_page_faults": float("nan")})
    assert kept(store, key) is None
    keep(store, key, {"minor_page_faults": 3})
    assert kept(store, key) == {"minor_page_faults": 3}


@pytest.mark.parametrize("name", ["energy", "latency", "memory"])
def test_a_key_names_all_that_a_figure_depends_on(name):
    cost = COSTS.get(name)
    key = cost_key(cost, **ABOUT)
    for what, value in ABOUT.items():
        other = cost_key(cost, **{**ABOUT, what: value * 2})
        assert (other != key) == (what != "reference" or cost.beside_reference), what
    if cost.once:
        about = {"device": "cpu", "test": "t", "batch": 3, "machine": "m"}
        keys = {once_key(cost, **{**about, what: value * 2}) for what, value in about.items()}
        assert len({*keys, once_key(cost, **about)}) == 5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, True, "7", [7]])
def test_a_wrong_figure_is_an_error_that_names_the_cost_the_column_and_the_value(page_faults, value):
    with pytest.raises(ValueError, match="page_faults: minor_page_faults is ") as caught:
        measure(giving(page_faults, {"minor_page_faults": value}), BENCH)
    assert repr(value) in str(caught.value)
    latency = giving(COSTS.get("latency"), {"latency_ms_p50": 1.0, "latency_ratio_high": "wide"})
    with pytest.raises(ValueError, match="latency: latency_ratio_high is 'wide'"):
        measure(latency, BENCH)
