"""Laws of what a run measures: in what order and process, and which cells become of it."""

from dataclasses import replace

import pytest
import torch

from harness.cost.choosing import cells, chosen, sittings, why_not_here
from harness.cost.cost import Context
from harness.registry import COSTS

CPU, GPU = torch.device("cpu"), torch.device("cuda")
LATENCY = {"latency_ms_p50": 1.0, "latency_ratio_low": 1.1, "latency_ratio_high": 1.3, "throughput_per_s": 1000.0}
ONE = {"latency_ratio_low": 1.0, "latency_ratio_high": 1.0}


def context(**changes):
    usual = Context(CPU, {"accuracy": 0.5}, True, False, ONE, None, lambda: 7)
    return replace(usual, **changes)


def test_a_fresh_process_goes_to_those_that_need_it_and_the_rest_join_the_first(page_faults):
    first, *rest = (replace(page_faults, name=name, fresh=fresh) for name, fresh in
                    (("a", True), ("b", True), ("c", False), ("d", False)))  # fmt: skip
    assert sittings([first, *rest]) == [(first, *rest[1:]), (rest[0],)]
    assert sittings(rest[1:]) == [tuple(rest[1:])]
    assert sittings([]) == []


def test_what_is_fresh_comes_first_and_then_what_is_quick(page_faults, monkeypatch):
    monkeypatch.setitem(COSTS._known, "energy", replace(COSTS.get("energy"), unavailable=lambda device: None))
    assert [cost.name for cost in chosen(lambda name: True, CPU)] == ["memory", "page_faults", "latency", "energy"]
    assert [cost.name for cost in chosen(lambda name: name == "latency", CPU)] == ["latency"]


def test_what_is_not_asked_for_or_has_no_meter_is_not_measured_and_the_reason_is_told(page_faults, monkeypatch):
    blind = replace(page_faults, unavailable=lambda device: f"no counter on {device}")
    monkeypatch.setitem(COSTS._known, blind.name, blind)
    assert blind not in chosen(lambda name: True, CPU)
    assert why_not_here(blind, lambda name: True, CPU) == "no counter on cpu"
    assert why_not_here(blind, lambda name: False, CPU) == "the suite does not ask for it"
    assert why_not_here(COSTS.get("memory"), lambda name: True, CPU) is None


def test_a_cost_fills_its_own_columns_only():
    found = cells(COSTS.get("memory"), {"peak_memory_bytes": 3, "accuracy": 1.0, "batch": 9}, context())
    assert found == {"peak_memory_bytes": 3, "predicted_memory_bytes": 7}


def test_nothing_is_derived_where_nothing_was_measured():
    kept = {"memory_source": "unavailable: its tokens are others"}
    assert cells(COSTS.get("memory"), kept, context()) == kept
    assert cells(COSTS.get("latency"), {}, context(is_reference=True)) == {}


def test_energy_for_a_right_answer_where_answers_are_to_what_was_measured():
    for changes, expected in (({}, 4.0), ({"row": {"accuracy": 0.0}}, None), ({"scores_test": False}, None)):
        found = cells(COSTS.get("energy"), {"energy_j_per_example": 2.0}, context(**changes))
        assert found["energy_j_per_correct"] == expected


def test_money_is_the_time_on_a_gpu_at_its_price():
    for device, price, expected in ((GPU, 3.6, 1.0), (CPU, 3.6, None), (GPU, None, None)):
        found = cells(COSTS.get("latency"), LATENCY, context(device=device, price_per_gpu_hour=price))
        # a million examples take 1,000 s at 0.001 a second
        assert found["money_per_million_examples"] == (None if expected is None else pytest.approx(expected))


def test_the_verdict_of_a_ratio_goes_by_the_reference_against_itself():
    wide = {"latency_ratio_low": 0.9, "latency_ratio_high": 1.15}
    for changes, verdict in (({}, "slower"), ({"reference": wide}, "unclear"), ({"reference": None}, "unclear"),
                             ({"is_reference": True}, "reference")):  # fmt: skip
        assert cells(COSTS.get("latency"), LATENCY, context(**changes))["latency_verdict"] == verdict


def fails(figures, context):
    return {"peak_memory_bytes": 1, "predicted_memory_bytes": figures["nowhere"]}


def test_what_cannot_be_derived_is_empty_and_a_sentence_says_why():
    memory, said = replace(COSTS.get("memory"), derive=fails), []
    found = cells(memory, {"peak_memory_bytes": 3}, context(), said.append)
    assert found == {"peak_memory_bytes": 3, "working_memory_bytes": None, "predicted_memory_bytes": None}
    assert said == ["memory: nothing is derived from its figures: KeyError: 'nowhere'"]
    assert cells(memory, {"peak_memory_bytes": 3}, context()) == found


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, True, "7"])
def test_what_is_derived_wrongly_is_empty_and_a_sentence_says_what_it_was(value):
    memory, said = replace(COSTS.get("memory"), derive=lambda *_: {"predicted_memory_bytes": value}), []
    found = cells(memory, {"peak_memory_bytes": 3}, context(), said.append)
    assert found == {"peak_memory_bytes": 3, "predicted_memory_bytes": None}
    assert len(said) == 1
    assert said[0].startswith(f"memory: predicted_memory_bytes is {value!r}, ")
