"""Where peers pass on evidence that is missing, stale or not comparable, this gate gives no verdict (exit code 5)."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.errors import BadInput
from harness.gate.baseline import FILES
from harness.gate.decide import decide
from harness.gate.release import gate_run
from harness.results.manifest import write_manifest
from tests.gate.planted import TODAY, changed, coins, planted, policy, saved, worse

GOOD = coins(0.9, n=2000)
VIEWS = {n: {"accuracy/blurred": coins(0.8, n=800)} for n in ("linear", "ties")}
RUN = planted({"linear": GOOD, "ties": GOOD}, {n: {"latency_ratio_p50": 1.0} for n in VIEWS}, measures=VIEWS)
FLOOR = "{id: floor, match: {metric: accuracy}, min: 0.5}"
DROP = "{id: drop, match: {metric: accuracy}, vs: baseline, max_drop: {abs: 0.02}, test: paired}"
SLOWER = "{id: slower, match: {metric: latency_ratio_p50}, vs: baseline, max_increase: {rel: 0.1}}"
VIEW = "{id: view, match: {metric: accuracy/blurred}, vs: baseline, max_drop: {abs: 0.05}, test: paired}"
RULES = [FLOOR, DROP, SLOWER, VIEW]


def gate(tmp_path, run, baseline=RUN, rules=RULES, more=""):
    return decide(policy(tmp_path, rules, more), run, baseline, today=TODAY)


def gives_no_verdict(found, words):
    assert (found.outcome, found.exit_code) == ("error", 5)
    said = [*found.problems, *(check.reason for check in found.checks if check.state == "error")]
    assert any(words in line for line in said), said


def test_the_same_run_passes(tmp_path):
    """Every test below is this one with one thing wrong."""
    found = gate(tmp_path, RUN)
    assert (found.outcome, found.problems, found.counts) == ("pass", [], {"pass": 8})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("table", ["variants", "scores"])
def test_a_value_that_is_no_number(tmp_path, table, bad):
    broken = RUN.__dict__[table].copy()
    column = "accuracy" if table == "variants" else "value"
    rows = (broken["variant"] == "ties") & (broken["seed"] == "all")
    broken.loc[rows if table == "variants" else rows & (broken["metric"] == "accuracy"), column] = bad
    gives_no_verdict(gate(tmp_path, changed(RUN, **{table: broken})), "not a finite number")
    gives_no_verdict(gate(tmp_path, RUN, changed(RUN, **{table: broken})), "not a finite number")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_example_that_is_no_number(tmp_path, bad):
    examples = RUN.examples.copy()
    examples.loc[3, "nll"] = bad
    rule = "{id: a, match: {metric: nll}, vs: baseline, max_increase: {abs: 9}, test: paired}"
    gives_no_verdict(gate(tmp_path, changed(RUN, examples=examples), rules=[rule]), "the examples of the run give nll")


def test_a_row_that_is_missing(tmp_path):
    variants = RUN.variants[RUN.variants["variant"] != "ties"]
    gives_no_verdict(gate(tmp_path, changed(RUN, variants=variants)), "has 1 of the run's 2 variants")
    gives_no_verdict(gate(tmp_path, changed(RUN, variants=variants)), "the run has no 'ties'")


def test_a_variant_that_the_baseline_lacks(tmp_path):
    gives_no_verdict(gate(tmp_path, RUN, planted({"linear": GOOD})), "the baseline has no 'ties'")


def test_a_variant_that_only_the_baseline_has(tmp_path):
    gives_no_verdict(gate(tmp_path, planted({"linear": GOOD}), rules=[DROP]), "the run has no 'ties'")


def test_a_variant_that_no_longer_applies(tmp_path):
    run = planted({"linear": GOOD}, not_ok={"ties": ("not_applicable", "other shapes")})
    gives_no_verdict(gate(tmp_path, run, rules=[DROP]), "no longer applies")
    assert gate(tmp_path, run, run, rules=[DROP]).outcome == "pass"
    gives_no_verdict(gate(tmp_path, run, rules=[FLOOR.replace("{metric", "{variant: ties, metric")]), "nothing was")


def test_a_variant_that_failed_on_one_seed(tmp_path):
    two = planted({"a": coins(0.9, n=100, seeds=2)})
    failed = two.variants.assign(status=two.variants["status"].where(two.variants["seed"] != "1", "failed"))
    gives_no_verdict(gate(tmp_path, changed(two, variants=failed), rules=[FLOOR]), "'a' is failed in the run")


def test_a_row_that_is_there_twice(tmp_path):
    """It may hide that another is gone, and no one knows which of the two is right."""
    linear = RUN.variants[RUN.variants["variant"] == "linear"]
    gives_no_verdict(gate(tmp_path, changed(RUN, variants=pd.concat([linear, linear])), rules=[FLOOR]), "has 1 of the")
    better = pd.concat([RUN.variants, linear.assign(accuracy=1.0)])
    gives_no_verdict(gate(tmp_path, changed(RUN, variants=better), rules=[FLOOR]), "variants.csv says two things of")
    scores = pd.concat([RUN.scores, RUN.scores[:1].assign(low=0.9)])
    gives_no_verdict(gate(tmp_path, changed(RUN, scores=scores), rules=[FLOOR]), "scores.parquet says two things of")


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"value": 92.4}, "is 92.4, which it cannot be"), ({"value": -0.1}, "is -0.1, which it cannot be"),
     ({"low": 0.95, "high": 0.1}, "ends before it begins")],
)  # fmt: skip
def test_a_value_that_cannot_be(tmp_path, changes, words):
    is_it = (RUN.scores["variant"] == "ties") & (RUN.scores["seed"] == "all") & (RUN.scores["metric"] == "accuracy")
    scores = RUN.scores.copy()
    scores.loc[is_it, list(changes)] = list(changes.values())
    variants = RUN.variants.assign(accuracy=changes.get("value", RUN.variants["accuracy"]))
    gives_no_verdict(gate(tmp_path, changed(RUN, scores=scores, variants=variants), rules=[FLOOR]), words)


def test_a_change_too_large_for_a_number(tmp_path):
    runs = [planted({"linear": GOOD}, {"linear": {"log/score": value}}) for value in (1.7e308, -1.7e308)]
    rule = "{id: a, match: {metric: log/score}, vs: baseline, max_drop: {abs: 1}}"
    gives_no_verdict(gate(tmp_path, *runs, [rule]), "the change of log/score")


def test_a_value_that_is_missing(tmp_path):
    scores = RUN.scores[(RUN.scores["variant"] != "ties") | (RUN.scores["metric"] != "latency_ratio_p50")]
    gives_no_verdict(gate(tmp_path, changed(RUN, scores=scores)), "no latency_ratio_p50 of 'ties'")
    found = gate(tmp_path, changed(RUN, scores=scores), more="defaults: {on_missing: fail}")
    assert (found.outcome, found.exit_code) == ("fail", 3)


def test_files_that_disagree(tmp_path):
    variants = RUN.variants.assign(accuracy=RUN.variants["accuracy"] + 1e-4)
    gives_no_verdict(gate(tmp_path, changed(RUN, variants=variants)), "variants.csv and scores.parquet")
    flipped = RUN.examples.assign(correct=np.where(RUN.examples.index < 50, True, RUN.examples["correct"]))
    gives_no_verdict(gate(tmp_path, changed(RUN, examples=flipped)), "the examples of the run give accuracy")


def test_an_empty_run(tmp_path):
    found = gate(tmp_path, planted({}), rules=[FLOOR])
    gives_no_verdict(found, "summary.variants of run.json is 0")
    gives_no_verdict(found, "nothing was judged")


@pytest.mark.parametrize(
    ("field", "words"),
    [({"limit": 100}, "limited to 100 test examples"), ({"only": "linear*"}, "--only linear*"),
     ({"status": "incomplete"}, "the run is incomplete"), ({"status": None}, "status of run.json is None"),
     ({"seeds": [7]}, "the run has seeds [7], its suite asks for [0]"),
     ({"suite": {"name": "s", "digest": "d" * 64, "yaml": "x"}}, "its suite asks for None"),
     ({"suite": {"name": "s", "digest": "d" * 64}}, "suite.yaml is not recorded")],
)  # fmt: skip
def test_a_run_that_is_not_all_of_its_suite(tmp_path, field, words):
    gives_no_verdict(gate(tmp_path, changed(RUN, **field), rules=[FLOOR]), words)


def test_a_rule_that_matches_nothing(tmp_path):
    nothing = "{id: typo, match: {variant: tise, metric: accuracy}, min: 0.5}"
    gives_no_verdict(gate(tmp_path, RUN, rules=[FLOOR, nothing]), "the rule matches no variant of seed all")
    gives_no_verdict(gate(tmp_path, RUN, rules=[FLOOR.replace("accuracy}", "accuracy, seed: 3}")]), "of seed 3")


def test_a_suite_that_was_changed(tmp_path):
    other = changed(RUN, suite={**RUN.record["suite"], "digest": "e" * 64})
    gives_no_verdict(gate(tmp_path, other), "the suite was changed since")
    assert {c.rule for c in gate(tmp_path, other).checks if c.state == "pass"} == {"floor"}
    unrecorded = changed(RUN, suite={"yaml": RUN.record["suite"]["yaml"]})
    gives_no_verdict(gate(tmp_path, RUN, unrecorded), "suite_digest is not recorded in the baseline")


@pytest.mark.parametrize("column", ["example_id", "label"])
def test_other_examples(tmp_path, column):
    examples = RUN.examples.copy()
    examples.loc[examples[column].index % 2000 == 5, column] = "new" if column == "example_id" else 0
    gives_no_verdict(gate(tmp_path, changed(RUN, examples=examples)), "test examples differ: 1 are new")
    gives_no_verdict(gate(tmp_path, changed(RUN, examples=None)), "no examples.parquet")


def test_other_data_of_which_the_examples_have_the_same_names(tmp_path):
    for field in ("digest", "source", "splits"):
        other = changed(RUN, task={**RUN.record["task"], "splits": {}, field: "other"})
        first = changed(RUN, task={**RUN.record["task"], "splits": {}, "source": "a"})
        gives_no_verdict(gate(tmp_path, other, first, [DROP]), "other data")


@pytest.mark.parametrize("more", ["", "comparable: [suite_digest]", "comparable: []"])
def test_a_task_that_asks_something_else_whatever_the_policy_compares(tmp_path, more):
    found = gate(tmp_path, changed(RUN, task=RUN.record["task"] | {"digest": "other"}), more=more)
    gives_no_verdict(found, "content")
    assert {check.rule for check in found.checks if check.state == "pass"} == {"floor"}


def test_examples_are_paired_even_if_the_policy_does_not_ask_for_the_same(tmp_path):
    examples = RUN.examples.assign(example_id="other" + RUN.examples["example_id"])
    found = gate(tmp_path, changed(RUN, examples=examples), rules=[DROP], more="comparable: [suite_digest]")
    gives_no_verdict(found, "not scored on the same examples")


def test_an_example_that_is_lost_or_scored_twice(tmp_path):
    gives_no_verdict(gate(tmp_path, changed(RUN, examples=RUN.examples.drop(7))), "of the run give accuracy of")
    two = planted({"linear": coins(0.9, n=100, seeds=2)})
    one_less = changed(two, examples=two.examples.drop(7))
    gives_no_verdict(gate(tmp_path, one_less, two, [DROP]), "has 99 examples of 'linear', seed 0")
    twice = RUN.examples.copy()
    twice.loc[8, "example_id"] = "x7"
    gives_no_verdict(gate(tmp_path, changed(RUN, examples=twice)), "is scored twice")


def test_documents_of_a_view_that_are_lost_twice_there_other_ones_or_no_numbers(tmp_path):
    table = RUN.document_measures
    lost = changed(RUN, document_measures=table[table["document"] != 0])
    gives_no_verdict(gate(tmp_path, lost, rules=[VIEW]), "give accuracy/blurred of")
    gives_no_verdict(gate(tmp_path, changed(RUN, document_measures=table[table["variant"] == "ties"]), rules=[VIEW]),
                     "no accuracy/blurred of the documents of 'linear'")  # fmt: skip
    gives_no_verdict(gate(tmp_path, changed(RUN, document_measures=None)), "of the documents of 'ties'")
    gives_no_verdict(gate(tmp_path, changed(RUN, document_measures=pd.concat([table, table[:1]]))), "scored twice")
    moved = changed(RUN, document_measures=table.assign(document=table["document"] + 1))
    gives_no_verdict(gate(tmp_path, moved), "not scored on the same examples")
    for bad in (math.nan, math.inf):
        broken = table.assign(value=table["value"].where(table["document"] != 3, bad))
        gives_no_verdict(gate(tmp_path, changed(RUN, document_measures=broken)), "accuracy/blurred of")


@pytest.mark.parametrize(("key", "other"), [("dtype", "bfloat16"), ("batch_policy", {"test": 9})])
def test_what_the_policy_asks_to_be_the_same(tmp_path, key, other):
    more = f"comparable: [suite_digest, example_ids, {key}]"
    assert gate(tmp_path, RUN, more=more).outcome == "pass"
    gives_no_verdict(gate(tmp_path, changed(RUN, **{key: other}), more=more), f"{key} differs")
    gives_no_verdict(gate(tmp_path, RUN, changed(RUN, **{key: None}), more=more), f"{key} is not recorded")


def test_other_seeds(tmp_path):
    two = np.concatenate([GOOD, GOOD])
    gives_no_verdict(gate(tmp_path, planted({"linear": two}), planted({"linear": GOOD}), rules=[DROP]), "seeds differs")


@pytest.mark.parametrize(
    "field",
    [{"machine": {"system": "Linux x86_64", "cpu": "another", "cores": 2}}, {"device": "cuda:0"},
     {"devices": [{"kind": "cuda", "name": "a gpu"}]}, {"engine": {"workers": 4, "threads_per_worker": 1}}],
)  # fmt: skip
def test_other_hardware(tmp_path, field):
    found = gate(tmp_path, changed(RUN, **field))
    gives_no_verdict(found, "other hardware")
    assert {check.rule for check in found.checks if check.state == "error"} == {"slower"}
    ignoring = SLOWER.replace("vs:", "same_hardware: ignore, vs:")
    assert gate(tmp_path, changed(RUN, **field), rules=[ignoring]).outcome == "pass"
    requiring = DROP.replace("vs:", "same_hardware: require, vs:")
    gives_no_verdict(gate(tmp_path, changed(RUN, **field), rules=[requiring]), "other hardware")


@pytest.mark.parametrize("value", [0.0, 1e-12, -1e-12])
def test_a_relative_change_from_nearly_nothing(tmp_path, value):
    baseline = planted({"linear": GOOD}, extra={"linear": {"log/score": value}})
    run = planted({"linear": GOOD}, extra={"linear": {"log/score": 5.0}})
    rule = '{id: a, match: {metric: "log/score"}, vs: baseline, max_%s: {rel: 0.1}}'
    for way in ("drop", "increase"):
        gives_no_verdict(gate(tmp_path, run, baseline, [rule % way]), "near zero")


def test_a_relative_change_from_what_may_be_zero(tmp_path):
    hardly_any = planted({"linear": np.zeros((1, 50))})
    rule = "{id: a, match: {metric: accuracy}, vs: baseline, max_drop: {rel: 0.1}}"
    gives_no_verdict(gate(tmp_path, planted({"linear": np.ones((1, 50))}), hardly_any, [rule]), "near zero")


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_floor_is_not_passed_for_sure_because_no_answer_was_wrong(tmp_path, seeds):
    perfect = planted({"a": np.ones((seeds, 40))}, measures={"a": {"acc/x": np.ones((seeds, 20))}})
    rule = "{id: %s, match: {metric: %s}, min: 0.99, apply_to: ci_low}"
    rules = [rule % ("whole", "accuracy"), rule % ("task", "acc/x")]
    assert [check.state for check in gate(tmp_path, perfect, None, rules).checks] == ["fail", "fail"]


def test_no_baseline(tmp_path):
    gives_no_verdict(gate(tmp_path, RUN, None), "there is no baseline")


@pytest.mark.parametrize(
    ("waiver", "words"),
    [('{rule: floor, variant: ties, reason: old, expires: 2026-11-24}', "expired on 2026-11-24"),
     ('{rule: floor, variant: tise, reason: typo, expires: 2027-01-01}', "for 'tise' matches nothing")],
)  # fmt: skip
def test_a_waiver_that_is_stale(tmp_path, waiver, words):
    gives_no_verdict(gate(tmp_path, RUN, more=f"waivers: [{waiver}]"), words)


@pytest.mark.parametrize(
    "failing",
    ["{variant: gone, metric: accuracy}", "{variant: ties, metric: energy_j_per_example}",
     "{variant: broken, metric: accuracy}"],
)  # fmt: skip
def test_a_waiver_of_evidence_that_is_not_there(tmp_path, failing):
    """Not even where the policy calls that a failure."""
    run = planted({"ties": GOOD, "broken": GOOD})
    scores = run.scores.assign(value=run.scores["value"].where(run.scores["variant"] != "broken", math.nan))
    more = "defaults: {on_missing: fail, on_nonfinite: fail}\n"
    more += 'waivers: [{rule: a, variant: "*", reason: known, expires: 2027-01-01}]'
    found = gate(tmp_path, changed(run, scores=scores), None, [f"{{id: a, match: {failing}, max: 1}}"], more)
    assert (found.outcome, found.exit_code, found.checks[0].missing) == ("fail", 3, True)


def test_a_waiver_that_has_expired_covers_nothing(tmp_path):
    failing = "{id: floor, match: {variant: ties, metric: accuracy}, min: 0.95}"
    waiver = "waivers: [{rule: floor, variant: ties, reason: old, expires: 2026-11-24}]"
    found = gate(tmp_path, RUN, rules=[failing], more=waiver)
    gives_no_verdict(found, "expired")
    assert found.checks[0].state == "fail"


# folders


def named(tmp_path, baseline, sha256=None, rules=RULES):
    digest = f", sha256: {sha256}" if sha256 else ""
    return Path(policy(tmp_path, rules, f"baseline: {{path: {baseline}{digest}}}").path)


def test_a_baseline_that_is_not_the_one_the_policy_names(tmp_path):
    run, baseline = saved(RUN, tmp_path / "run"), saved(RUN, tmp_path / "baseline")
    sha256 = gate_run(run, named(tmp_path, baseline), None, TODAY).baseline["sha256"]
    path = named(tmp_path, baseline, sha256)
    assert gate_run(run, path, None, TODAY).outcome == "pass"
    other = saved(planted({"linear": worse(GOOD, 9), "ties": GOOD}), tmp_path / "other")
    gives_no_verdict(gate_run(run, path, other, TODAY), "not the one the policy names")
    (baseline / "variants.csv").write_text((baseline / "variants.csv").read_text() + "\n")
    gives_no_verdict(gate_run(run, path, None, TODAY), "variants.csv was changed since the run was written")
    write_manifest(baseline)
    gives_no_verdict(gate_run(run, path, None, TODAY), "not the one the policy names")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["gone", "cut", "empty"])
@pytest.mark.parametrize("which", ["run", "baseline"])
def test_a_file_that_is_gone_or_cut_off(tmp_path, name, damage, which):
    folders = {"run": saved(RUN, tmp_path / "run"), "baseline": saved(RUN, tmp_path / "baseline")}
    file = folders[which] / name
    content = file.read_bytes()
    file.unlink()
    if damage != "gone":
        file.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    found = gate_run(folders["run"], named(tmp_path, folders["baseline"]), None, TODAY)
    assert found.exit_code == 5


@pytest.mark.parametrize("which", ["run", "baseline"])
@pytest.mark.parametrize(
    ("name", "change"),
    [("variants.csv", lambda p: p.write_text(p.read_text().replace("0.9", "n.a", 1))),
     ("scores.parquet", lambda p: pd.read_parquet(p).astype({"value": str}).to_parquet(p)),
     ("examples.parquet", lambda p: pd.read_parquet(p).astype({"correct": str}).to_parquet(p)),
     ("measures.parquet", lambda p: pd.read_parquet(p).astype({"value": str}).to_parquet(p)),
     ("run.json", lambda p: p.write_text("[]")),
     ("run.json", lambda p: p.write_text('{"schema_version": 1, "suite": null}'))],
)  # fmt: skip
def test_a_file_that_holds_something_else(tmp_path, which, name, change):
    folders = {"run": saved(RUN, tmp_path / "run"), "baseline": saved(RUN, tmp_path / "baseline")}
    change(folders[which] / name)
    assert gate_run(folders["run"], named(tmp_path, folders["baseline"]), None, TODAY).exit_code == 5


def test_the_run_itself_as_its_baseline(tmp_path):
    run = saved(RUN, tmp_path / "run")
    (tmp_path / "latest").symlink_to(run)
    gives_no_verdict(gate_run(run, named(tmp_path, tmp_path / "latest"), None, TODAY), "the baseline is the run itself")


def test_an_earlier_verdict_is_not_left_behind(tmp_path):
    run = saved(RUN, tmp_path / "run")
    assert gate_run(run, named(tmp_path, saved(RUN, tmp_path / "baseline")), None, TODAY).outcome == "pass"
    (tmp_path / "policy.yaml").write_text("version: 2\n")
    with pytest.raises(BadInput):
        gate_run(run, tmp_path / "policy.yaml", None, TODAY)
    assert not (run / "gate.json").exists()


def test_a_verdict_that_cannot_be_written_is_said(tmp_path):
    run = saved(RUN, tmp_path / "run")
    (run / "gate.json").mkdir()
    with pytest.raises(BadInput, match=r"gate\.json cannot be written"):
        gate_run(run, named(tmp_path, run), None, TODAY)


def test_a_run_that_was_stopped(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text("{}\n")
    found = gate_run(tmp_path / "run", named(tmp_path, tmp_path / "none"), None, TODAY)
    gives_no_verdict(found, "no run.json")
