"""Runs over files of predictions: every method, members' own costs, answers alone, and networks' numbers again."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from harness.registry import METHODS
from harness.report import write_report
from harness.results.columns import numbers
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.run.stages.prepare import predictions_key
from harness.run.stages.setting import task_of
from harness.suite.suite import read_suite
from tests.pools import planted_predictions as planted
from tests.pools.planted_predictions import CLASSES, HELDOUT, LABELS, SUITE, costs, logits, probabilities

pytestmark = pytest.mark.usefixtures("in_this_process")

NEEDS = {"member": ": {index: 0}", "pipeline": ": {stages: [[0]]}"}
EVERY = "".join(f"  - {name}{NEEDS.get(name, '')}\n" for name in METHODS.all() if name != "recipe")
"""Every method that there is, with its usual parameters."""
ANSWERS = SUITE.replace("a.npz", "a.csv").replace("b.parquet", "b.csv")
STAGED = {"cascade", "cascade_routing", "routed_members"}
WORK = {"best_single", "member/index=0", "majority_vote", "pipeline/stages=0"}
"""What answers are enough for, as the methods here declare it."""
KNOWN = {"accuracy", "diff_vs_reference", "mcnemar_p", "p_adjusted", "score_corrected", "build_seconds",
         "members_train_seconds"}  # fmt: skip
"""The numbers that depend on right and wrong alone, or on no answer at all."""


def plan_of(folder, text):
    (folder / "suite.yaml").write_text(text)
    return make_plan(read_suite(folder / "suite.yaml"), Options(out=folder / "results", workers=2))


def run(folder, text):
    finished = runner.run(plan_of(folder, text), Tracker())
    write_report(finished)
    return read_run(finished)


def summary(found):
    table = found.variants
    return table[table["seed"] == "all"].set_index("variant")


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Every method on members with probabilities and costs; with a training split, so that nothing fails for that."""
    folder = planted.write_pool(tmp_path_factory.mktemp("everything"))
    table = planted.labels()
    table[:10].to_csv(folder / "train.csv", index=False)
    table[10:HELDOUT].to_csv(folder / "heldout.csv", index=False)
    return run(folder, SUITE.replace("heldout:", "train: train.csv, heldout:") + EVERY)


@pytest.fixture(scope="module", params=["answer", "correct"])
def answers(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    planted.write_labels(folder, planted.labels() if request.param == "answer" else planted.labels()[["id"]])
    planted.write_answers(folder, request.param)
    return request.param, run(folder, ANSWERS + EVERY)


def test_every_method_works_or_says_why_not(everything):
    rows = summary(everything)
    assert set(rows["status"]) == {"ok", "not_applicable"}
    for name, row in rows[rows["status"] != "ok"].iterrows():
        assert re.search("predictions|no base model|in writing", row["reason"]), f"{name}: {row['reason']}"
    works = {"linear", "log_linear", "majority_vote", "greedy_ensemble", "temperature", "stacking", *STAGED, *WORK}
    assert works <= set(rows.index[rows["status"] == "ok"])


def test_nothing_that_running_takes_is_counted_or_measured(everything):
    rows = summary(everything)
    assert rows[["params_stored", "params_active", "flops_per_example"]].isna().all(axis=None)
    assert everything.record["capacity"] is None
    assert everything.record["serving"]["cost"] == "cost/money"
    assert "so nothing is run" in everything.record["serving"]["why_no_costs"]
    assert rows["energy_source"].str.contains("so nothing is run").all()
    page = (everything.folder / "report.html").read_text(encoding="utf-8")
    for word in (">FLOPs<", ">latency<", ">memory<"):
        assert word not in page
    assert ">money<" in page
    assert "so nothing is run" in page


def test_a_variant_costs_what_its_members_say(everything):
    """The mean over test of the sum over the members that run, with an interval, on every example."""
    of_members = np.stack([costs(member)[HELDOUT:] for member in range(3)])
    found = everything.scores.query("metric == 'cost/money' and seed == 'all'").set_index("variant")
    assert found.loc["linear", "value"] == pytest.approx(of_members.sum(axis=0).mean())
    assert found.loc["member/index=0", "value"] == pytest.approx(of_members[0].mean())
    assert found["low"].lt(found["value"]).all()
    assert found["high"].gt(found["value"]).all()
    of_rows = everything.document_measures.query("variant == 'linear' and metric == 'cost/money'")
    np.testing.assert_allclose(of_rows.sort_values("document")["value"], of_members.sum(axis=0))
    front = summary(everything).query("pareto == True").index
    assert "member/index=0" in front  # the cheapest


def test_staged_systems_choose_and_are_drawn_by_what_members_say_that_they_cost(everything):
    """The mean over examples of the members called, in the files' own money; each setting of the dial likewise."""
    rows = summary(everything)
    details = json.loads((everything.folder / "details.json").read_text())
    found = {details[name]["0"]["cost_unit"] for name in STAGED}
    assert found == {"money"}
    curves = json.loads((everything.folder / "curves.json").read_text())
    assert curves["cost"]["name"] == "cost/money"
    reference = rows.loc[curves["reference"]["variant"]].name
    money = everything.scores.query("metric == 'cost/money' and seed == 'all'").set_index("variant")["value"]
    (cascade,) = (family for family in curves["families"] if family["name"] == "cascade")
    first, last = cascade["points"][0]["cost"], cascade["points"][-1]["cost"]
    assert first == pytest.approx(money["best_single"] / money[reference], rel=1e-4)
    assert last == pytest.approx(money["linear"] / money[reference], rel=1e-4)
    costs_of = [point["cost"] for point in cascade["points"]]
    assert costs_of == sorted(costs_of)
    assert len(costs_of) > 5


def test_scores_are_those_of_the_files(everything):
    """Of the mean of probabilities, in float64 and by hand."""
    mean = np.mean([probabilities(member) for member in range(3)], axis=0)[HELDOUT:]
    labels = LABELS[HELDOUT:]
    row = summary(everything).loc["linear"]
    assert row["accuracy"] == pytest.approx((mean.argmax(axis=1) == labels).mean())
    assert row["nll"] == pytest.approx(-np.log(mean[np.arange(len(labels)), labels]).mean(), abs=1e-6)
    assert row["brier"] == pytest.approx(np.square(mean - np.eye(3)[labels]).sum(axis=1).mean(), abs=1e-6)


def test_answers_are_enough_where_a_method_says_so(answers):
    kind, found = answers
    rows = summary(found)
    assert set(rows.index[rows["status"] == "ok"]) == WORK
    assert set(rows["status"]) == {"ok", "not_applicable"}
    lacks = "gives answers without probabilities" if kind == "answer" else "is only known to be right or wrong"
    assert lacks in rows.loc["linear", "reason"]


def test_no_number_depends_on_a_made_up_probability(answers):
    """Also the F1 of classes is not known where only right and wrong are."""
    kind, found = answers
    known = KNOWN | ({"macro_f1"} if kind == "answer" else set())
    for name in numbers():
        assert found.variants[name].notna().any() == (name in known), name
    assert found.examples[["confidence", "nll", "brier"]].isna().all(axis=None)
    assert set(found.scores["metric"]) == known | {"cost/tokens"}
    assert set(found.comparisons["metric"]) == {"accuracy"}
    page = (found.folder / "report.html").read_text(encoding="utf-8")
    assert "NLL" not in page.partition("Every score and cost")[0].partition("All variants")[2]
    assert not (found.folder / "figures" / "reliability.svg").exists()


def test_a_vote_of_answers_is_the_plurality_or_the_majority_of_right_ones(answers):
    """Ties go to the first class in order; of right and wrong a tie is wrong."""
    kind, found = answers
    given = np.stack([logits(member).argmax(axis=1) for member in range(3)])[:, HELDOUT:]
    right = given == LABELS[HELDOUT:]
    counts = (given[:, :, None] == np.arange(len(CLASSES))).sum(axis=0)
    wanted = counts.argmax(axis=1) == LABELS[HELDOUT:] if kind == "answer" else right.sum(axis=0) > 1.5
    examples = found.examples.query("variant == 'majority_vote'")
    assert (examples["correct"].to_numpy() == wanted).all()
    warned = any("lower bound" in warning for warning in found.record["warnings"])
    assert warned == (kind == "correct")


NETWORKS = """
suite: networks
task: digits
pool:
  train: {architecture: mlp, start: independent, members: 3, epochs: 1, options: {hidden: 8}}
cost: {latency: false, memory: false, energy: false}
methods:
"""
RULES = """
  - best_single
  - member: {index: [0, 2]}
  - linear: {weights: [uniform, learned, contextual, [0.5, 0.3, 0.2]]}
  - log_linear: {weights: [uniform, learned, contextual, [1.5, -0.5, 0.2]]}
  - majority_vote
  - greedy_ensemble: {metric: [nll, accuracy]}
  - temperature: {of: [linear, best_single, log_linear]}
  - expert_anti_expert: {anti: worst, mask: [none, contrastive, dexperts]}
"""


ROUNDING = {"aurc": 1e-4, "temperature": 1e-5}
"""Shares that a rounding may change more: the order of answers as sure as each other, and where a search ends."""


def test_files_of_networks_predictions_give_the_numbers_of_the_networks(tmp_path):
    """Every output rule on the members themselves, and on what they said in files: equal scores and comparisons."""
    plan = plan_of(tmp_path, NETWORKS + RULES)
    first = read_run(runner.run(plan, Tracker()))
    task, pool = task_of(plan.setting), plan.pools[0]["main"]
    for split in (task.heldout, task.test):
        table = pd.DataFrame({"id": list(split.ids), "label": split.labels.numpy()})
        table.to_parquet(tmp_path / f"{split.name}.parquet", index=False)
    members = []
    for planned in pool.members:
        keys = [predictions_key(planned.digests[0], split, "cpu") for split in (task.heldout, task.test)]
        said = [load_file(plan.store.path(key) / "log_probs.safetensors")["log_probs"] for key in keys]
        ids = [*task.heldout.ids, *task.test.ids]
        np.savez(tmp_path / f"{planned.name}.npz", ids=ids, log_probabilities=np.concatenate(said))
        members.append(f"{planned.name}: {planned.name}.npz")
    again = run(
        tmp_path,
        "suite: files\ntask: {table: {heldout: heldout.parquet, test: test.parquet}}\n"
        f"pool: {{predictions: {{members: {{{', '.join(members)}}}}}}}\nmethods:\n{RULES}",
    )
    tables = [found.variants.set_index(["variant", "seed"]) for found in (first, again)]
    told = [name for name in numbers() if tables[1][name].notna().any() and not name.endswith("_seconds")]
    assert {"accuracy", "nll", "brier", "ece", "aurc", "nll_diff", "temperature", "score_corrected"} <= set(told)
    for name in told:
        ours, theirs = (table[name].astype(float) for table in tables)
        near = ROUNDING.get(name, 1e-6)
        pd.testing.assert_series_equal(ours, theirs, atol=near, rtol=near)
    assert (tables[0]["verdict"] == tables[1]["verdict"]).all()
