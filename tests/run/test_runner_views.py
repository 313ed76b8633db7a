"""A run whose members conflict: each trained on a view of the images, all scored on every view."""

import pandas as pd
import pytest

from harness.errors import BadInput
from harness.evaluate.predictions import predict
from harness.report import write_report
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.store import Store, read_json
from harness.suite.suite import read_suite
from harness.systems.systems import load_combination
from harness.tasks import images
from harness.types import Pool
from tests.gate.law import unproven

pytestmark = pytest.mark.usefixtures("in_this_process")

VIEWS = ("labels_0_4", "inverted")
SEEDS = (0, 1, 2)
BASE = "conflict:task_arithmetic/members=0,scale=0"
SUITE = """
suite: conflict
task: digits
pool:
  train: {architecture: mlp, start: shared_base, base_epochs: 4, members: 1, epochs: 1, options: {hidden: 16}}
pools:
  conflict:
    train: {architecture: mlp, start: shared_base, base_epochs: 16, members: 2, epochs: 8, options: {hidden: 16},
            vary: {data: [labels_0_4, inverted], lr: [3e-3]}}
seeds: [0, 1, 2]
methods:
  - best_single
  - best_single: {pool: conflict}
  - member: {pool: conflict, index: [0, 1]}
  - linear: {pool: conflict}
  - task_arithmetic: {pool: conflict}
  - task_arithmetic: {pool: conflict, members: [0], scale: 0.0}
  - task_arithmetic: {pool: conflict, members: [0], coefficients: negate, scale: 1.0}
  - ties: {pool: conflict, scale: [1.0, heldout]}
cost: {latency: false, memory: false}
"""


def planned(folder, text, **options):
    (folder / "suite.yaml").write_text(text)
    suite = read_suite(folder / "suite.yaml")
    return make_plan(suite, Options(out=folder / "results", workers=2, **options))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    return read_run(runner.run(planned(folder, SUITE), Tracker()))


def of(run, variant, view, seed):
    table = run.document_measures
    rows = table[(table["variant"] == variant) & (table["metric"] == f"accuracy/{view}") & (table["seed"] == seed)]
    return rows.set_index("document")["value"]


def test_only_the_pool_of_views_is_scored_on_them(run):
    assert not any(run.variants["status"] != "ok")
    measured = set(run.document_measures["variant"])
    assert measured == {name for name in run.variants["variant"] if name.startswith("conflict:")}
    assert set(run.document_measures["metric"]) == {f"accuracy/{view}" for view in VIEWS}


def test_a_view_that_changes_no_pixel_has_the_outcomes_of_the_plain_split(run):
    examples = run.examples
    for variant in sorted(set(run.document_measures["variant"])):
        for seed in SEEDS:
            rows = examples[(examples["variant"] == variant) & (examples["seed"] == seed)].reset_index(drop=True)
            expected = rows[rows["label"] < 5]["correct"].astype(float)
            found = of(run, variant, "labels_0_4", seed)
            assert found.index.tolist() == expected.index.tolist()
            assert found.tolist() == expected.tolist()


def test_scores_are_the_means_of_the_measures_with_intervals(run):
    scores = pd.read_parquet(run.folder / "scores.parquet")
    scores = scores[(scores["variant"] == "conflict:linear") & (scores["metric"] == "accuracy/inverted")]
    for seed in SEEDS:
        row = scores[scores["seed"] == str(seed)].iloc[0]
        values = of(run, "conflict:linear", "inverted", seed)
        assert row["value"] == pytest.approx(values.mean())
        assert row["low"] < row["value"] < row["high"]
        assert (row["n"], row["source"]) == (len(values), "test split")
    whole = scores[scores["seed"] == "all"].iloc[0]["value"]
    assert run.measures.loc["conflict:linear", "accuracy/inverted"] == pytest.approx(whole)


def test_each_member_learned_its_own_view_and_one_was_lost_when_it_was_taken_away(run):
    table = run.measures
    for index, home in enumerate(VIEWS):
        assert table.loc[f"conflict:member/index={index}", f"accuracy/{home}"] > table.loc[BASE, f"accuracy/{home}"]
    negated = table.loc["conflict:task_arithmetic/coefficients=negate,members=0,scale=1"] - table.loc[BASE]
    assert negated["accuracy/labels_0_4"] < negated["accuracy/inverted"] < 0.1


def test_searches_go_by_the_mixture_of_the_views(run):
    """The first of the curve is the base, whose accuracy on the mixture is not that on plain held-out images."""
    curve = run.details["conflict:task_arithmetic"]["0"]["curve"]
    plan = planned(run.folder.parents[2], SUITE)
    base = load_combination(plan.store.path(plan.variants[0][BASE].build_key), Pool("conflict", "fine_tunes", ()))
    plain = plan.task.heldout
    expected, other = (
        (predict(base.log_probs, split).argmax(dim=1) == split.labels).double().mean().item()
        for split in (plan.task.of_groups(VIEWS).heldout, plain)
    )
    assert curve[0]["scale"] == 0
    assert curve[0]["accuracy"] == pytest.approx(expected)
    assert expected != pytest.approx(other, abs=0.01)
    assert run.measures.loc["conflict:task_arithmetic"].mean() > run.measures.loc[BASE].mean()


def test_the_report_judges_the_merges_and_shows_every_view(run):
    write_report(run.folder)
    claims = {claim["claim"]: claim for claim in read_json(run.folder / "claims.json")}
    assert claims["A view's expert gains at home and loses abroad"]["verdict"] == "held"
    negated = claims["A negated task vector loses its view more than the others"]
    # Seeds differ much, and by the machine that trains them: three may or may not tell the loss from 0.
    assert negated["estimate"] < -0.2
    assert negated["verdict"] == ("held" if negated["high"] < 0 else "undecided")
    assert claims["TIES beats plain addition under conflict"]["verdict"] in ("held", "not held", "undecided")
    assert claims["DARE beats plain addition under conflict"]["verdict"] == "not tested"
    assert "Negated task vectors lose the skill" not in claims
    assert (run.folder / "figures" / "views.svg").is_file()
    assert not (run.folder / "figures" / "domains.svg").is_file()


def test_members_are_trained_on_the_view_and_the_base_on_everything(run):
    members = run.record["pools"]["conflict"]["seeds"]["0"]["members"]
    assert [m["groups"] for m in members] == [[], ["labels_0_4"], ["inverted"]]
    table = run.examples
    specialist = table[(table["variant"] == "conflict:member/index=0") & (table["label"] >= 5)]
    base = table[(table["variant"] == BASE) & (table["label"] >= 5)]
    assert specialist["correct"].mean() < base["correct"].mean()


def test_a_limit_that_leaves_a_view_without_an_image_measures_the_others(tmp_path):
    labels = images.load("digits", Store(tmp_path / "store")).test.labels
    small = labels < 5
    absent, limit = "labels_5_9" if small[0] else "labels_0_4", int((small != small[0]).nonzero()[0])
    text = SUITE[: SUITE.index("methods:")].replace("[0, 1, 2]", "[0]").replace("labels_0_4", absent)
    text = text.replace("base_epochs: 16, members: 2, epochs: 8", "base_epochs: 1, members: 2, epochs: 1")
    text += "methods: [best_single, uniform_soup: {pool: conflict}]"
    found = read_run(runner.run(planned(tmp_path, text, limit=limit), Tracker()))
    assert set(found.document_measures["metric"]) == {"accuracy/inverted"}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("inverted]", "invertad]", "unknown data 'invertad'; did you mean 'inverted'?"),
        ("members: 2,", "members: 2, bootstrap: true,", "resamples are of the training split"),
    ],
)
def test_what_cannot_be_a_view_is_refused_before_anything_runs(tmp_path, old, new, problem):
    with pytest.raises(BadInput) as caught:
        planned(tmp_path, SUITE.replace(old, new))
    assert problem in str(caught.value)


def test_the_examples_give_all_that_the_tables_say(run):
    assert unproven(run.folder) == []
