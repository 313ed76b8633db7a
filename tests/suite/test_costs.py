"""A suite's ``cost``: it takes every cost that is declared, and is read as before where a plug-in is not named."""

import json
from dataclasses import replace

import pytest

from harness.errors import BadInput
from harness.registry import COSTS
from harness.suite.costs import cost_spec
from harness.suite.schema import json_schema
from harness.suite.suite import read_suite
from tests.cost.plug_in import declare

TEXT = """suite: t
task: digits
pool: {train: {architecture: mlp, start: independent, members: 2}}
methods: [best_single]
"""


def read(folder, cost=""):
    path = folder / "suite.yaml"
    path.write_text(TEXT + cost)
    return read_suite(path)


def test_what_a_suite_does_not_name_is_measured_where_that_is_usual(tmp_path, page_faults):
    costs = read(tmp_path).file.cost
    assert {cost.name: costs.asks(cost.name) for cost in COSTS} == {cost.name: cost.usual for cost in COSTS}
    assert not costs.asks("page_faults")
    assert read(tmp_path, "cost: {page_faults: true}").file.cost.asks("page_faults")


def test_a_plug_in_changes_the_digest_of_a_suite_only_where_it_is_asked_for(tmp_path, monkeypatch):
    texts = ["", "cost: {latency: true, memory_budget: 1GB}", "cost: {energy: false}"]
    before = [read(tmp_path, text).digest for text in texts]
    assert len(set(before)) == 3
    monkeypatch.setattr(COSTS, "_known", dict(COSTS.all()))
    declare()
    monkeypatch.setitem(COSTS._known, "always", replace(COSTS.get("page_faults"), name="always", usual=True))
    assert [read(tmp_path, text).digest for text in texts] == before
    assert read(tmp_path, "cost: {page_faults: false, always: true}").digest == before[0]
    named = {read(tmp_path, f"cost: {{{text}}}").digest for text in ("page_faults: true", "always: false")}
    assert len({*named, *before}) == 5


def test_a_cost_that_is_not_there_is_refused_with_the_nearest_one(tmp_path, page_faults):
    for key, words in (("page_fault", "did you mean 'page_faults'?"), ("latncy", "did you mean 'latency'?")):
        with pytest.raises(BadInput) as refused:
            read(tmp_path, f"cost:\n  {key}: true\n")
        assert f"suite.yaml:6: unknown key '{key}'; {words}" in str(refused.value)
    with pytest.raises(BadInput, match=r"suite.yaml:5: bad value 1 for 'page_faults'"):
        read(tmp_path, "cost: {page_faults: 1}")


def test_once_a_plug_in_is_gone_so_is_its_key(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(COSTS, "_known", dict(COSTS.all()))
        declare()
        read(tmp_path, "cost: {page_faults: true}")
    with pytest.raises(BadInput, match="unknown key 'page_faults'"):
        read(tmp_path, "cost: {page_faults: true}")


def test_the_schema_has_the_key_of_a_plug_in(page_faults):
    shown = json_schema()["$defs"]["CostSpec"]
    assert json.loads(json.dumps(shown)) == shown
    assert set(shown["properties"]) == {cost.name for cost in COSTS} | {"memory_budget", "price_per_gpu_hour"}
    assert shown["additionalProperties"] is False
    found = shown["properties"]["page_faults"]
    assert (found["type"], found["default"]) == ("boolean", False)
    assert "minor_page_faults" in found["description"]


def test_a_suite_without_some_costs_is_otherwise_the_same(tmp_path):
    costs = read(tmp_path, "cost: {memory: false, price_per_gpu_hour: 2}").file.cost
    fewer = costs.without(["latency"])
    assert [fewer.asks(name) for name in ("latency", "memory", "energy")] == [False, False, True]
    assert fewer.price_per_gpu_hour == 2


@pytest.mark.parametrize("name", ["memory_budget", "asks", "model_dump"])
def test_a_cost_may_not_be_called_what_means_something_else(page_faults, monkeypatch, name):
    monkeypatch.setitem(COSTS._known, name, replace(COSTS.get("page_faults"), name=name))
    with pytest.raises(BadInput, match=f"a cost cannot be called '{name}'"):
        cost_spec()
