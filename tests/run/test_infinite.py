"""Labels that are given probability 0: exactly what is a mean of their losses is empty, and all else stands."""

import numpy as np
import pandas as pd
import pytest

from harness.compare import as_json, compare
from harness.engines import local
from harness.gate.decide import decide
from harness.report import write_report
from harness.results.columns import numbers
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.suite.suite import read_suite
from tests.gate.planted import TODAY, policy
from tests.inline import Inline
from tests.pools.planted_predictions import CLASSES, HELDOUT, IDS, LABELS, probabilities, write_labels

SUITE = """suite: zeros
task: {{table: {{heldout: heldout.csv, test: test.csv}}}}
pool: {{predictions: {{members: {{a: {a}, b: b.csv, c: c.csv}}}}}}
score: {score}
methods: [best_single, linear, majority_vote, {{member: {{index: [0, 1, 2]}}}}]
"""
SEEDS = """suite: seeds
task: digits
pool: {train: {architecture: mlp, start: shared_base, base_epochs: 1, members: 2, epochs: 1, options: {hidden: 8}}}
seeds: [0, 1]
split: per_seed
methods: [best_single, linear, {expert_anti_expert: {a: 1.0, mask: dexperts}}]
cost: {latency: false, memory: false, energy: false}
"""
TEST = IDS[HELDOUT:]
ZEROS = {"a": TEST[3:8], "c": TEST[5:6]}
"""The rows whose label a member gives probability 0."""
LOST = {"member/index=0": "5 of 60 test labels were", "member/index=2": "1 of 60 test labels was"}
EMPTY = {"nll", "nll_low", "nll_high", "nll_calibrated", "nll_diff", "nll_diff_low", "nll_diff_high"}


@pytest.fixture(scope="module", autouse=True)
def _inline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "_Pools", Inline)
        yield


def run_in(folder, text, name, report=False):
    (folder / "suite.yaml").write_text(text)
    plan = make_plan(read_suite(folder / "suite.yaml"), Options(out=folder / name))
    finished = runner.run(plan, Tracker())
    if report:
        write_report(finished)
    return read_run(finished)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zeros")
    write_labels(folder)
    for position, name in enumerate("abc"):
        said = probabilities(2 - position)  # the first is the best on held-out
        for row in map(IDS.index, ZEROS.get(name, ())):
            said[row, LABELS[row]] = 0
            said[row] /= said[row].sum()
        pd.DataFrame(said, columns=CLASSES).assign(id=IDS).to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    return run_in(folder, SUITE.format(a="a.csv", score="[accuracy, nll]"), "by_accuracy", report=True)


@pytest.fixture(scope="module")
def floored(folder):
    """With so little a floor that only logarithms feel it."""
    text = SUITE.format(a="{file: a.csv, floor: 1e-12}", score="[accuracy, nll]")
    return run_in(folder, text.replace("c: c.csv", "c: {file: c.csv, floor: 1e-12}"), "floored")


@pytest.fixture(scope="module")
def by_loss(folder):
    return run_in(folder, SUITE.format(a="a.csv", score="nll"), "by_loss", report=True)


def rows_of(found, seed="all"):
    return found.variants.query("seed == @seed").set_index("variant")


@pytest.mark.parametrize("seed", ["all", "0"])
def test_only_what_is_a_mean_of_the_loss_is_empty_and_the_rest_is_as_with_a_tiny_floor(run, floored, seed):
    ours, theirs = rows_of(run, seed), rows_of(floored, seed)
    assert (ours["status"] == "ok").all()
    assert (ours["verdict"] == theirs["verdict"]).all()
    lost = [*LOST, "best_single"]  # the first member
    for name in numbers():
        table = pd.DataFrame({"ours": ours[name], "theirs": theirs[name]}).drop(index=lost if name in EMPTY else [])
        if name.startswith("nll_diff"):
            assert table["ours"].isna().all()  # the reference has no NLL
        elif not name.endswith("_seconds"):
            np.testing.assert_allclose(*table.astype(float).to_numpy().T, rtol=1e-4, atol=1e-5, err_msg=name)
    assert ours.loc[lost, sorted(EMPTY)].isna().all(axis=None)
    assert ours.loc["linear", ["nll", "nll_calibrated"]].notna().all()


def test_comparisons_by_other_scores_stand(run, floored):
    keys = ["variant", "metric", "seed"]
    tables = [found.comparisons.set_index(keys).sort_index() for found in (run, floored)]
    assert set(tables[0].reset_index()["metric"]) == {"accuracy", "brier"}
    shared = tables[1].drop("nll", level="metric")
    pd.testing.assert_frame_equal(tables[0], shared, rtol=1e-5, atol=1e-6)
    best = run.record["best"]
    assert best["nll"]["variant"] in {"linear", "member/index=1", "majority_vote"}
    assert not {*LOST, "best_single"} & set(best["nll"]["set"])


def test_the_rows_that_are_infinite_are_those_labels(run):
    variants = dict(tuple(run.examples.groupby("variant", observed=True)))
    for name, member in (("member/index=0", "a"), ("member/index=2", "c"), ("linear", "none")):
        examples = variants[name].set_index("example_id")
        assert set(examples.index[np.isinf(examples["nll"])]) == set(ZEROS.get(member, ()))
        assert not examples["nll"].isna().any()


def test_the_report_says_it_once_with_what_helps(run):
    page = (run.folder / "report.md").read_text(encoding="utf-8")
    assert run.record["status"] == "complete"
    for name, words in LOST.items():
        (said,) = [warning for warning in run.record["warnings"] if warning.startswith(f"{name}: ")]
        assert f"its NLL is infinite: {words} given probability 0; a floor" in said
        assert page.count(f"{name}: its NLL is infinite") == 1
    assert not any(warning.startswith("linear: ") for warning in run.record["warnings"])


def test_a_reference_without_the_suites_score_leaves_no_verdicts_by_it_and_the_answer_says_so(by_loss):
    rows = rows_of(by_loss)
    assert rows.loc["best_single", "verdict"] == "reference"
    assert "its NLL is infinite: 5 of 60" in rows.loc["best_single", "reason"]
    others = rows.drop(index=["best_single", "member/index=0"])
    assert (others["verdict"] == "no_reference").all()
    assert others.loc["linear", "reason"].startswith("not compared: the reference's NLL is infinite: 5 of 60")
    assert others.loc["member/index=2", "reason"].startswith("not compared: its NLL is infinite: 1 of 60")
    assert others[["diff_vs_reference", "brier_diff"]].notna().all(axis=None)
    assert rows_of(by_loss, "0").loc[others.index, "mcnemar_p"].notna().all()
    assert not rows.loc[[*LOST, "best_single"], "best_set"].any()
    page = (by_loss.folder / "report.md").read_text(encoding="utf-8")
    answer = page.split("**")[1]
    assert "There is no answer" in answer
    assert "NLL is infinite" in answer


def test_a_variant_without_the_suites_score_is_not_worse_but_not_compared(folder):
    finite = SUITE.format(a="a.csv", score="nll").replace("suite:", "reference: member/index=1\nsuite:", 1)
    rows = rows_of(run_in(folder, finite, "other_reference"))
    assert set(rows.loc[[*LOST, "best_single"], "verdict"]) == {"no_reference"}
    assert rows.loc["linear", "verdict"] not in ("no_reference", "reference")
    assert rows.loc["best_single", "reason"].startswith("not compared: its NLL is infinite")
    assert rows["diff_vs_reference"].notna().all()


def test_a_rule_on_the_loss_fails_closed_and_one_on_accuracy_holds(run, tmp_path):
    rule = "{{id: {0}, match: {{variant: member/index=0, metric: {0}}}, {1}}}"
    rules = [rule.format("nll", "max: 9"), rule.format("accuracy", "min: 0.1")]
    found = decide(policy(tmp_path, rules), run, None, today=TODAY)
    assert found.exit_code == 5
    states = {check.metric: check.state for check in found.checks}
    assert states == {"nll": "error", "accuracy": "pass"}
    (reason,) = [check.reason for check in found.checks if check.state == "error"]
    assert "infinite on 5 of 60" in reason


def test_two_runs_are_compared_by_what_they_have(run, by_loss):
    found = {item.variant: item for item in compare(run, run).variants}
    assert {item.verdict for item in found.values()} == {"unclear"}
    assert {name for name, item in found.items() if "nll" not in item.differences} == {*LOST, "best_single"}
    assert all("brier" in item.differences for item in found.values())
    assert as_json(compare(run, run))
    by_nll = {item.variant: item for item in compare(by_loss, by_loss).variants}
    assert by_nll["member/index=0"].verdict == "not comparable"
    assert "has no nll of 'member/index=0'" in by_nll["member/index=0"].reason
    assert by_nll["linear"].verdict == "unclear"


def test_seeds_with_splits_of_their_own_have_no_mean_where_one_is_infinite(tmp_path):
    """A mask of zeros, which rules labels out."""
    found = run_in(tmp_path, SEEDS, "seeds")
    name = "expert_anti_expert/a=1,mask=dexperts"
    rows = found.variants.set_index(["variant", "seed"])
    lost = found.examples.query("variant == @name").groupby("seed")["nll"].agg(lambda values: np.isinf(values).sum())
    assert lost.max() > 0
    for seed, count in [*lost.items(), ("all", lost.sum())]:
        row = rows.loc[(name, str(seed))]
        assert (row["status"], pd.isna(row["nll"]), pd.isna(row["nll_diff"])) == ("ok", count > 0, count > 0)
        assert row[["accuracy", "brier", "ece", "diff_vs_reference", "brier_diff"]].notna().all()
        assert row["verdict"] in ("better", "worse", "equivalent", "unclear")
    (said,) = [warning for warning in found.record["warnings"] if warning.startswith(f"{name}: its NLL")]
    assert f"{lost.sum()} of {found.examples['variant'].eq(name).sum():,} test labels" in said
    assert pd.notna(rows.loc[("linear", "all"), "nll_diff"])
