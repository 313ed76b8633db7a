"""A whole suite over folders of language models, two of which share a tokenizer and one of which does not."""

import pandas as pd
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from harness.errors import BadInput
from harness.models.causal_lm import tiny_llama
from harness.publish.candidate import score_candidate
from harness.publish.export import export
from harness.report import write_report
from harness.results.columns import MEASURE_COLUMNS, variant_columns
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.suite.suite import read_suite
from harness.tasks.archives import SCRIPTURE, SPEECHES, archive_folder
from harness.tasks.corpora import split_of
from tests.gate.law import unproven

pytestmark = pytest.mark.usefixtures("in_this_process", "few_windows", "undrawn")

TASK_FILES = __file__.replace("tests/run/test_runner_text.py", "suites/tasks")
SUITE = f"""
suite: folders
task: {{lm_eval: [bytes_python, cloze_python], heldout: [cloze_python_heldout], include_path: {TASK_FILES}}}
pool: {{hf: {{members: [a, b, other]}}}}
reference: member/index=0
methods:
  - member: {{index: [0, 2]}}
  - linear
  - linear: {{members: [0, 1]}}
  - linear: {{weights: [[1.0, 0.0, 0.0], [0.5, 0.0, 0.5]]}}
  - linear: {{weights: learned}}
  - log_linear
  - uniform_soup
  - uniform_soup: {{members: [0, 1]}}
  - expert_merge: {{members: [0, 1]}}
  - recipe: {{file: merge.yml, members: [0, 1]}}
  - best_single
  - cascade: {{stages: [["0", "0+1+2"]]}}
  - routed_members: {{members: [0, 1]}}
correlate: {{subsets: {{sizes: [2], at_most: 3}}}}
"""

RECIPE = """
base_model: b
experts:
  - {source_model: a, positive_prompts: ["def f(x):", "import os"]}
  - {source_model: b, positive_prompts: [once upon a time], negative_prompts: ["return"]}
experts_per_token: 1
"""


def save(folder, name, vocabulary, seed, tokenizer=True):
    trained = ByteLevelBPETokenizer()
    text = "".join(split_of("python", "train"))[:20_000]
    trained.train_from_iterator([text], vocab_size=vocabulary, special_tokens=["<end>"], show_progress=False)
    words = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<end>")
    torch.manual_seed(seed)
    tiny_llama(vocab=len(words), hidden=16, layers=1, heads=2).save_pretrained(folder / name)
    if tokenizer:
        words.save_pretrained(folder / name)


def archives_or_skip():
    if missing := [a.file for a in (SCRIPTURE, SPEECHES) if not (archive_folder() / a.file).is_file()]:
        pytest.skip(f"{missing[0]} is not on this machine, and tests fetch nothing")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    archives_or_skip()
    folder = tmp_path_factory.mktemp("folders")
    for name, vocabulary, seed in (("a", 300, 0), ("b", 300, 1), ("other", 280, 2)):
        save(folder, name, vocabulary, seed)
    (folder / "merge.yml").write_text(RECIPE)
    (folder / "suite.yaml").write_text(SUITE)
    suite = read_suite(folder / "suite.yaml")
    plan = make_plan(suite, Options(out=folder / "results", workers=2, limit=6))
    return read_run(runner.run(plan, Tracker()))


@pytest.fixture(scope="module")
def report(run):
    return write_report(run.folder).with_suffix(".md").read_text()


def row(run, variant):
    return run.variants[(run.variants["seed"] == "all") & (run.variants["variant"] == variant)].iloc[0]


def of(run, variant, column):
    return run.examples[run.examples["variant"] == variant][column].to_numpy()


def test_the_contract_is_that_of_images_and_bits_per_byte(run):
    assert list(run.variants.columns) == list(variant_columns())
    without_clusters = [column for column in MEASURE_COLUMNS if column != "cluster"]
    assert list(run.document_measures.columns) == without_clusters
    assert row(run, "member/index=0")["bits_per_byte"] > 0
    scores = pd.read_parquet(run.folder / "scores.parquet")
    assert not scores.duplicated(["variant", "seed", "metric"]).any()
    assert not any(run.variants["status"] == "failed"), run.variants["reason"].dropna().tolist()


def test_what_quality_costs_counts_documents_as_the_comparisons_do(run):
    told = run.comparisons[run.comparisons["metric"] == run.curves["score"]]
    assert set(told["n"]) == {run.curves["examples"]}
    for family in run.curves["families"]:
        for point in family["points"]:
            assert point["score"] == pytest.approx(row(run, point["name"])[run.curves["score"]])


def test_members_with_different_tokenizers_are_mixed_by_whole_continuations_and_it_says_so(run):
    assert row(run, "linear")["status"] == "ok"
    assert run.details["linear"]["0"]["level"] == "a sequence-level mixture"
    assert "level" not in run.details["linear/members=0+1"]["0"]
    assert of(run, "linear/weights=1:0:0", "nll") == pytest.approx(of(run, "member/index=0", "nll"), abs=1e-6)
    one, other, mixed = (
        run.document_measures.query("variant == @name and metric == 'bits_per_byte'")["value"].to_numpy()
        for name in ("member/index=0", "member/index=2", "linear/weights=0.5:0:0.5")
    )
    assert (mixed <= (one + other) / 2 + 1e-9).all()  # the mean of two likelihoods is no less than their geometric mean


@pytest.mark.parametrize(
    ("variant", "why"),
    [
        ("linear/weights=learned", "tokenizer"),
        ("log_linear", "tokenizer"),
        ("best_single", "tokenizer"),
        ("uniform_soup", "vocab_size 300 and 280"),
    ],
)
def test_what_needs_common_tokens_is_not_applicable_and_says_why(run, variant, why):
    found = row(run, variant)
    assert found["status"] == "not_applicable"
    assert why in found["reason"]
    assert pd.isna(found["accuracy"])


def test_members_that_share_a_tokenizer_are_merged_and_timed_as_ever(run):
    soup = row(run, "uniform_soup/members=0+1")
    assert soup["status"] == "ok"
    assert soup["peak_memory_bytes"] > 0
    assert soup["latency_ratio_p50"] > 0


def test_costs_that_have_no_common_input_are_unavailable_with_the_reason(run):
    found = row(run, "linear")
    assert pd.isna(found["latency_ratio_p50"])
    assert found["memory_source"].startswith("unavailable: m2 has a tokenizer of its own")


@pytest.mark.parametrize("variant", ["cascade/stages=0:0+1+2", "routed_members/members=0+1"])
def test_what_decides_by_choices_has_the_scores_of_tasks_with_choices_and_says_what_it_lacks(run, report, variant):
    found = row(run, variant)
    why = "not applicable to bytes_python: it decides by the choices of a document, and these have none"
    assert found["status"] == "ok"
    assert found["accuracy"] == of(run, variant, "correct").mean()
    assert pd.isna(found["bits_per_byte"])
    assert why in found["reason"]
    assert run.details[variant]["0"]["lacking"].keys() == {"bytes_python"}
    scores = pd.read_parquet(run.folder / "scores.parquet").query("variant == @variant and seed == 'all'")
    assert "acc/cloze_python" in set(scores["metric"])
    assert not any(metric.startswith("bits_per_byte") for metric in scores["metric"])
    assert f"| `{variant}` | scored in part |" in report
    assert "no place in what is said" not in report  # accuracy, which decides here, they have
    assert found["verdict"] in ("better", "worse", "equivalent", "unclear")
    assert why.replace("_", "\\_") in report


def test_by_a_score_that_they_lack_they_are_not_compared_and_the_answer_says_so(run):
    path = run.folder.parents[2] / "bits.yaml"
    path.write_text(SUITE.replace("suite: folders", "suite: bits\nscore: [bits_per_byte, accuracy]"))
    again = read_run(runner.run(make_plan(read_suite(path), Options(out=run.folder.parents[1], limit=6)), Tracker()))
    report = write_report(again.folder).with_suffix(".md").read_text().replace("\\_", "_")
    assert "cascade/stages=0:0+1+2, routed_members/members=0+1 have no bits per byte, and so no place" in report
    for variant in ("cascade/stages=0:0+1+2", "routed_members/members=0+1"):
        assert row(again, variant)["verdict"] == "no_reference"
        assert row(again, variant)["reason"].startswith("not compared: the run has no bits_per_byte of it; not applic")
        told = again.comparisons[again.comparisons["variant"] == variant]
        assert "accuracy" in set(told["metric"])


def test_the_study_is_left_out_with_a_warning(run):
    assert any("study of pool 'main'" in w and "tokenizer" in w for w in run.record["warnings"])


@pytest.mark.parametrize("variant", ["member/index=0", "member/index=2", "uniform_soup/members=0+1",
                                     "expert_merge/members=0+1", "recipe/file=merge.yml,members=0+1"])  # fmt: skip
def test_an_exported_model_is_what_transformers_loads_and_scores_as_it_did_here(run, tmp_path, variant):
    folder = export(run, variant, tmp_path / "out")
    half = export(run, variant, tmp_path / "half", dtype="bfloat16")
    assert "in bfloat16, rounded from" in (half / "README.md").read_text()
    module, words = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert len(words) == module.config.vocab_size
    suite = read_suite(run.folder.parents[2] / "suite.yaml")
    options = Options(out=run.folder.parents[1], workers=2, limit=6)
    candidate = read_run(score_candidate(suite, folder, options, Tracker()))
    assert of(candidate, "candidate", "nll") == pytest.approx(of(run, variant, "nll"), rel=1e-5)
    assert row(candidate, "candidate")["bits_per_byte"] == pytest.approx(row(run, variant)["bits_per_byte"])


def test_the_report_says_which_experts_ran_for_the_tokens_of_each_task(run):
    (layer,) = run.details["expert_merge/members=0+1"]["0"]["experts"]["layers"].values()
    assert list(layer["by_group"]) == ["bytes_python", "cloze_python"]
    assert layer["load"] == [1.0, 1.0]  # both of two
    (layer,) = run.details["recipe/file=merge.yml,members=0+1"]["0"]["experts"]["layers"].values()
    assert sum(layer["load"]) == pytest.approx(1)
    dense = [of for name, of in run.details.items() if name.split("/")[0] not in ("expert_merge", "recipe")]
    assert all("experts" not in seed for of in dense for seed in of.values())


def test_a_pool_of_language_models_is_not_for_images(run, tmp_path):
    (tmp_path / "suite.yaml").write_text("suite: digits\ntask: digits\nmethods: [best_single]\npool: {train: "
                                         "{architecture: mlp, start: independent}}\n")  # fmt: skip
    suite = read_suite(tmp_path / "suite.yaml")
    with pytest.raises(BadInput, match="a language model, which the task 'digits' is not for"):
        score_candidate(suite, run.folder.parents[2] / "a", Options(out=tmp_path, workers=1), Tracker())


def test_weights_without_a_tokenizer_read_the_tokens_of_their_base(tmp_path, run):
    for name, seed in (("base", 0), ("a", 1), ("b", 2)):
        save(tmp_path, name, 300, seed, tokenizer=name == "base")
    text = SUITE.replace("{hf: {members: [a, b, other]}}", "{hf: {base: base, members: [a, b]}}").split("methods:")[0]
    methods = "methods: [member: {index: 0}, expert_anti_expert: {on: base, a: 0.5}, task_arithmetic: {scale: 0.5}]\n"
    (tmp_path / "suite.yaml").write_text(text + methods + "cost: {latency: false, memory: false}\n")
    suite = read_suite(tmp_path / "suite.yaml")
    found = read_run(runner.run(make_plan(suite, Options(out=tmp_path / "results", limit=2)), Tracker()))
    assert set(found.variants["status"]) == {"ok"}, found.variants["reason"].dropna().tolist()
    adapted = export(found, "task_arithmetic/scale=0.5", tmp_path / "out", adapter_rank=3)
    module = AutoPeftModelForCausalLM.from_pretrained(adapted)
    assert module.generate(input_ids=torch.tensor([[1, 2, 3]]), max_new_tokens=2, min_new_tokens=2).shape == (1, 5)


def test_the_examples_give_all_that_the_tables_say(run):
    assert unproven(run.folder) == ["the run was limited to 6 test examples (--limit)"]
