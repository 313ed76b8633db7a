"""Whole runs of suites whose tasks are answered in writing: rows, verdicts, costs and the report."""

import json
import re

import pandas as pd
import pytest
import torch

from harness.engines import local
from harness.errors import BadInput
from harness.lm import lm_eval_model
from harness.models.tokens import read_tokenizer
from harness.report import write_report
from harness.results.columns import column_of
from harness.results.evidence import read_tables
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.run.stages import setting, variant
from harness.suite.suite import read_suite
from tests.inline import Inline
from tests.lm.written_tasks import load, small_domain, store_of, trained_parts, write_task

pytestmark = pytest.mark.usefixtures("undrawn")

SUITE = """
suite: written
task: {lm_eval: [letters], include_path: tasks}
pool: {hf: {members: [a, b, c]}}
reference: member/index=0
methods:
  - member: {index: [0, 1]}
  - linear
  - log_linear
  - uniform_soup
  - best_single
  - self_consistency: {n: [1, 4], by: [majority, log_probability]}
  - cascade: {stages: [[0, 1]], threshold: 0.4}
cost: {latency: false, memory: true, energy: false}
"""
NO_COSTS = "cost: {latency: false, memory: false, energy: false}\n"
CASCADE = "cascade/stages=0:1,threshold=0.4"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three folders of models and the task, made once."""
    patch, folder = pytest.MonkeyPatch(), tmp_path_factory.mktemp("written")
    small_domain(patch)
    (folder / "tasks").mkdir()
    write_task(folder / "tasks")
    task = load(folder / "tasks", store_of(tmp_path_factory), "letters")
    for name, part in zip("abc", trained_parts(task), strict=True):
        part.module.save_pretrained(folder / name)
        read_tokenizer(task.tokenizer).save_pretrained(folder / name)
    yield folder
    patch.undo()


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    monkeypatch.setattr(local, "_Pools", Inline)
    yield
    for cached in (setting.task_of, setting.documents_of, variant.pool_of):
        cached.cache_clear()


def run(folder, text, out=None):
    (folder / "suite.yaml").write_text(text)
    plan = make_plan(read_suite(folder / "suite.yaml"), Options(out=out or folder / "results", device="cpu"))
    return read_run(runner.run(plan, Tracker()))


@pytest.fixture(scope="module")
def found(made):
    patch = pytest.MonkeyPatch()
    patch.setattr(local, "_Pools", Inline)
    yield run(made, SUITE)
    patch.undo()


def rows(found):
    return found.variants[found.variants["seed"] == "all"].set_index("variant")


def of(found, name):
    return found.examples[found.examples["variant"] == name]


def test_accuracy_is_the_share_of_right_answers_and_probabilities_are_not_known(found):
    table = rows(found)
    assert table["status"].tolist() == ["ok"] * len(table), table["reason"].dropna().tolist()
    measured = found.document_measures
    for name, row in table.iterrows():
        values = measured.query("variant == @name and metric == 'exact_match,first/letters'")["value"]
        assert row["accuracy"] == pytest.approx(values.mean())
        assert of(found, name)["correct"].tolist() == (values == 1).tolist()
        assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]
    assert table[["nll", "ece", "brier", "aurc"]].isna().all().all()
    assert 0 < table["accuracy"].min() < table["accuracy"].max()
    differences = table["accuracy"] - table.loc["member/index=0", "accuracy"]
    assert table["diff_vs_reference"].tolist() == pytest.approx(differences.tolist())
    read_tables(found.folder)


def test_costs_are_of_the_models_that_ran_and_tokens_are_counted(found):
    table = rows(found)
    assert of(found, "linear")["calls"].tolist() == [3] * 24
    flops = table["flops_per_example"]
    assert flops["linear"] == pytest.approx(3 * flops["member/index=0"])
    assert of(found, "self_consistency/n=4")["calls"].tolist() == [4] * 24
    assert flops["self_consistency/n=4"] == pytest.approx(4 * flops["self_consistency/n=1"])
    assert "answers in writing" in table.loc["self_consistency/n=1", "memory_source"]
    calls = of(found, CASCADE)["calls"]
    assert set(calls) == {1, 2}
    assert flops[CASCADE] == pytest.approx(calls.mean() * flops["member/index=0"])
    stages = found.details[CASCADE]["0"]["stages"]
    assert [each["share"] for each in stages] == pytest.approx([(calls == 1).mean(), (calls == 2).mean()])
    tokens = found.measures["generated_tokens/letters"]
    assert 3 <= tokens["linear"] <= 18
    assert tokens["uniform_soup"] <= 6
    column = column_of("generated_tokens/letters")
    assert (column.better, column.unit) == ("lower", "tokens")


def test_the_report_says_what_is_right(found):
    write_report(found.folder)
    page = (found.folder / "report.html").read_text()
    assert "answers are written: one is right where the first metric of its task" in page


def test_where_memory_is_short_the_run_says_how_many_tokens_fitted(made, found, tmp_path, monkeypatch):
    plain = lm_eval_model.write

    def write(models, rule, prompts, *arguments, **options):
        if len(prompts) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(models, rule, prompts, *arguments, **options)

    monkeypatch.setattr(lm_eval_model, "write", write)
    short = run(made, SUITE[: SUITE.index("  - log_linear")] + NO_COSTS, tmp_path)
    names = ["linear", "member/index=0", "member/index=1"]
    assert rows(short)["accuracy"].to_dict() == rows(found)["accuracy"][names].to_dict()
    tokens = {each["batch_tokens"] for name in names for each in short.details[name].values()}
    assert len(tokens) == 1
    warning = f"memory ran out, and batches were halved until {tokens.pop()} tokens fitted"
    write_report(short.folder)
    for told in (json.dumps(short.record["warnings"]), (short.folder / "report.html").read_text()):
        assert warning in told
    assert not any("memory ran out" in each for each in found.record["warnings"])


def test_rounds_of_revision_are_scores_with_intervals_and_what_failed_is_in_the_details(made):
    write_task(made / "tasks", "stops", generation_kwargs={"until": ["e"], "max_gen_toks": 4})
    text = SUITE[: SUITE.index("  - linear")].replace("letters", "stops")
    text += "  - refine: {reviser: 1, rounds: [0, 2], template: '{answer}{question}'}\n"
    text += "  - refine: {rounds: 1, template: 'Again, {question}?'}\n"
    found = run(made, text + NO_COSTS)
    named = {json.loads(row["params"]).get("rounds"): name for name, row in rows(found).iterrows()}
    pattern = r"refine/(reviser=1,)?rounds=\d,template=[0-9a-f]{8}"
    assert all(re.fullmatch(pattern, named[number]) for number in range(3))
    table, scores = rows(found), pd.read_parquet(found.folder / "scores.parquet").query("seed == 'all'")
    assert table.loc[named[0], "accuracy"] == table.loc["member/index=0", "accuracy"]
    told = found.details[named[2]]["0"]
    for number, of_round in enumerate(told["rounds"]):
        metric = f"exact_match,first,round_{number}/stops"
        row = scores.query("variant == @named[2] and metric == @metric").iloc[0]
        assert row["value"] == pytest.approx(of_round["accuracy"])
        assert row["low"] < row["value"] < row["high"]
        assert (column_of(metric).better, column_of(metric).most) == ("higher", 1.0)
    assert told["rounds"][2]["accuracy"] == pytest.approx(table.loc[named[2], "accuracy"])
    assert {each["verdict"] for each in (told["rounds"][2]["against_draft"],)} <= {"harm", "gain", "unclear"}
    assert of(found, named[2])["calls"].mean() == pytest.approx(told["rounds"][2]["calls"])
    empty = [each for each in told["failed"] if each["reason"] == "the answer is empty"]
    assert empty
    assert {each["document"] for each in empty} <= set(of(found, named[2])["example_id"])
    assert sum(told["failures"].values()) == len(told["failed"])
    assert table.loc[named[1], "status"] == "not_applicable"
    assert "has no {answer}" in table.loc[named[1], "reason"]
    read_tables(found.folder)
    write_report(found.folder)


def test_where_nothing_is_to_be_written_drawing_does_not_apply(made):
    choices = {"output_type": "multiple_choice", "doc_to_choice": ["a", "e", "t"], "doc_to_target": 1}
    write_task(made / "tasks", "choices", metric_list=[{"metric": "acc"}], filter_list=None, **choices)
    text = SUITE[: SUITE.index("  - linear")].replace("letters", "choices")
    found = run(made, text + "  - self_consistency\ncost: {latency: false, memory: false, energy: false}\n")
    row = rows(found).loc["self_consistency"]
    assert row["status"] == "not_applicable"
    assert "what is scored here is not answered so" in row["reason"]


def test_a_score_that_needs_probabilities_is_refused(made):
    with pytest.raises(BadInput, match="the suite's score is nll, and answers that are written are only known to be"):
        run(made, SUITE + "score: nll\n")


def test_how_a_model_writes_by_its_own_account_is_obeyed_and_no_stale_answer_is_kept(made, found):
    """An end of text that the folder names stops an answer there; what nobody changed is not scored again."""
    file = made / "b" / "generation_config.json"
    kept = file.read_text()
    ends = list(range(2, 300))
    file.write_text(json.dumps({**json.loads(kept), "eos_token_id": ends}))
    again = run(made, SUITE)
    file.write_text(kept)
    tokens, before = (each.measures["generated_tokens/letters"] for each in (again, found))
    assert tokens["member/index=1"] == 1
    assert tokens["linear"] == 3
    assert tokens["member/index=0"] == before["member/index=0"] > 1
    jobs = pd.read_json(again.folder / "log.jsonl", lines=True)["job"].dropna()
    assert "seed 0: score member/index=1" in set(jobs)
    assert "seed 0: score member/index=0" not in set(jobs)
