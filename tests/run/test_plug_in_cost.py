"""A cost of a plug-in, from the suite to the table, the scores and the gate."""

from dataclasses import replace

import pandas as pd
import pytest

from harness.cli.main import main
from harness.engines import local
from harness.registry import COSTS
from harness.results.run import read_run
from harness.run import runner
from harness.run.planning import Options, make_plan
from harness.run.progress import Tracker
from harness.suite.suite import read_suite
from tests.inline import Inline

SUITE = """
suite: pages
task: digits
pool: {train: {architecture: mlp, start: shared_base, base_epochs: 1, members: 2, epochs: 1, options: {hidden: 8}}}
methods: [best_single, linear]
cost: {latency: false, memory: false, energy: false, page_faults: true}
"""


def test_a_cost_of_a_plug_in_is_a_column_a_score_and_what_a_rule_is_about(tmp_path, page_faults, monkeypatch):
    monkeypatch.setattr(local, "_Pools", Inline)
    (tmp_path / "suite.yaml").write_text(SUITE)
    plan = make_plan(read_suite(tmp_path / "suite.yaml"), Options(out=tmp_path / "results"))
    found = read_run(runner.run(plan, Tracker()))
    assert (found.variants["minor_page_faults"] > 0).all()
    scores = found.scores[found.scores["metric"] == "minor_page_faults"]
    pd.testing.assert_series_equal(
        scores["value"].reset_index(drop=True), found.variants["minor_page_faults"].astype(float), check_names=False
    )
    for most, code in ((1e9, 0), (0, 3)):
        policy = tmp_path / f"{code}.policy.yaml"
        policy.write_text(f"version: 1\nrules:\n- {{id: pages, match: {{metric: minor_page_faults}}, max: {most}}}\n")
        with pytest.raises(SystemExit) as ended:
            main(["gate", str(found.folder), "--policy", str(policy)])
        assert ended.value.code == code


def test_columns_that_cannot_be_derived_leave_the_run_and_its_figures(tmp_path, page_faults, monkeypatch):
    broken = replace(page_faults, derive=lambda figures, context: {"minor_page_faults": figures["nowhere"]})
    monkeypatch.setitem(COSTS._known, "page_faults", broken)
    monkeypatch.setattr(local, "_Pools", Inline)
    (tmp_path / "suite.yaml").write_text(SUITE)
    plan = make_plan(read_suite(tmp_path / "suite.yaml"), Options(out=tmp_path / "results"))
    found = read_run(runner.run(plan, Tracker()))
    assert (found.variants["minor_page_faults"] > 0).all()
    said = "page_faults: nothing is derived from its figures: KeyError: 'nowhere'"
    assert {f"{name}, seed 0: {said}" for name in ("best_single", "linear")} <= set(found.record["warnings"])
