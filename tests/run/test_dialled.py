"""The settings of cascades and routers in a run's curves.json."""

import numpy as np
import pytest

from harness.report import write_report
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.run.stages.dial import Dial
from harness.suite.suite import read_suite

pytestmark = pytest.mark.usefixtures("in_this_process")

SUITE = """
suite: dials
task: digits
pool:
  train: {architecture: mlp, start: shared_base, base_epochs: 2, members: 3, epochs: 1, vary: {lr: [1e-3, 3e-3]},
          options: {hidden: 12}}
pools:
  other:
    train: {architecture: mlp, start: independent, members: 2, epochs: 1, vary: {lr: [3e-3]}, options: {hidden: 12}}
seeds: [0, 1]
methods:
  - best_single
  - member: {index: [0, 1, 2]}
  - linear
  - cascade
  - cascade: {stages: [[0, "0+1", linear]], accept: margin}
  - cascade: {threshold: 0.9}
  - cascade: {cost: 0.9}
  - cascade: {pool: other}
  - routed_members
cost: {latency: false, memory: false}
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dials")
    (folder / "suite.yaml").write_text(SUITE)
    return make_plan(read_suite(folder / "suite.yaml"), Options(out=folder / "results", workers=2))


@pytest.fixture(scope="module")
def run(plan):
    return read_run(runner.run(plan, Tracker()))


def families(run):
    return {family["name"]: family for family in run.curves["families"]}


def settings(plan, name):
    return [Dial(plan.setting.of(seed), plan.variants[seed][name]).read() for seed in plan.seeds]


@pytest.mark.parametrize("variants", [("cascade", "cascade/cost=0.9"), ("routed_members",)])
def test_every_setting_is_a_point_where_it_lands_on_test(run, plan, variants):
    """Among them the variants that are this system at one of its settings."""
    name = variants[0]
    family, found = families(run)[name], settings(plan, name)
    points = {point["name"]: point for point in family["points"]}
    count = min(map(len, found))
    assert len(points) == count + len(variants)
    rows = run.variants[run.variants["seed"] == "all"].set_index("variant")
    for variant in variants:
        assert points[variant]["score"] == pytest.approx(rows.loc[variant, "accuracy"])
    reference = rows.loc["best_single", "flops_per_example"]
    for at, place in ((1, 0), (count, -1)):
        point = points[f"{name}, setting {at} of {count}"]
        assert point["score"] == pytest.approx(np.mean([each.outcomes["correct"][place].mean() for each in found]))
        cost = np.mean([each.cost[place].mean() for each in found])
        assert point["cost"] == pytest.approx(cost / reference, rel=1e-5)


def test_a_cascade_of_two_stages_is_a_curve_between_two_models(run):
    told = families(run)["cascade"]
    assert told["way"] == "cascades"
    assert told["apgr"]["value"] is not None or "no better" in told["apgr"]["why"]
    assert families(run)["ensembles"]["apgr"] is None
    three = next(family for name, family in families(run).items() if "margin" in name)
    assert three["apgr"] is None


def test_what_has_no_dial_of_its_own_stays_in_the_family_of_its_way(run):
    """A threshold that is given has no curve; other pools have other models."""
    points = {point["name"] for point in families(run)["cascades"]["points"]}
    assert points == {"cascade/threshold=0.9"}
    assert not any("other:" in name for name in families(run))
    names = [point["name"] for family in run.curves["families"] for point in family["points"]]
    assert len(names) == len(set(names))


def test_the_report_has_a_row_for_each_dial(run):
    write_report(run.folder)
    text = (run.folder / "report.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith(("| cascade |", "| routed"))]
    assert len(rows) == 2
    assert (run.folder / "figures/quality_cost.svg").is_file()
