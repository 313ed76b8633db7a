"""A metric remakes only what it has a part in."""

import pytest

from harness.keys import _module_facts, code_version
from harness.registry import METRICS
from harness.run.graph import planned_jobs
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.suite.suite import read_suite
from tests.evaluate.added_metrics import declare

SUITE = """suite: added
task: digits
pool: {train: {architecture: mlp, start: shared_base, base_epochs: 1, members: 2, epochs: 1, options: {hidden: 8}}}
methods: [best_single, linear]
correlate: {subsets: {sizes: [2], at_most: 3}}
cost: {energy: false}
"""


@pytest.fixture(autouse=True)
def forget():
    yield
    code_version.cache_clear()


def keys(folder):
    code_version.cache_clear()
    (folder / "suite.yaml").write_text(SUITE)
    suite = read_suite(folder / "suite.yaml")
    plan = make_plan(suite, Options(out=folder / "results", device="cpu"))
    return [key for planned in planned_jobs(plan) for key in planned.stage.artefacts()]


def remade(folder, change):
    """The kinds of artefacts that are made anew once ``change`` has been made."""
    before = {key.digest for key in keys(folder)}
    change()
    return {key.kind for key in keys(folder) if key.digest not in before}


def test_another_metric_remakes_scores_and_one_with_an_outcome_evaluations_too(tmp_path, monkeypatch):
    assert remade(tmp_path, lambda: declare(monkeypatch, "mcc")) == {"score", "summary"}
    found = remade(tmp_path, lambda: declare(monkeypatch, "mcc", "top2"))
    assert found == {"evaluation", "score", "summary"}


@pytest.mark.parametrize("name", ["aurc", "mcc"])
def test_a_metric_that_computes_something_else_remakes_its_scores(tmp_path, monkeypatch, name):
    declare(monkeypatch, "mcc")
    facts, module = _module_facts, METRICS.get(name).module

    def changed(of):
        return ("changed", *facts(of)[1:]) if of == module else facts(of)

    assert remade(tmp_path, lambda: monkeypatch.setattr("harness.keys._module_facts", changed)) == {"score", "summary"}
