"""Language models from outside: adapters and folders against a stored run, by answers and by bits per byte."""

import shutil
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from scipy.stats import ttest_1samp
from transformers import AutoModelForCausalLM

from harness.compare import compare
from harness.errors import BadInput
from harness.models.causal_lm import tiny_llama
from harness.publish.candidate import gate_candidate
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.suite.suite import read_suite
from tests.run.test_runner_text import TASK_FILES, archives_or_skip, save

pytestmark = pytest.mark.usefixtures("in_this_process", "few_windows")

TODAY = date(2026, 11, 28)
SUITE = """
suite: lm
task: {lm_eval: [few_cloze, few_bytes], include_path: tasks}
pool: {hf: {base: base, members: [base, other]}}
reference: member/index=0
methods: [member: {index: [0, 1]}]
cost: {latency: false, memory: false}
"""
RULES = """
- {id: answers, match: {metric: acc/few_cloze}, vs: baseline, max_drop: {abs: 0.2}, test: paired}
- {id: text, match: {metric: bits_per_byte/few_bytes}, vs: baseline, max_increase: {abs: 0.05}, test: paired}
- {id: all-text, match: {metric: bits_per_byte}, vs: baseline, max_increase: {abs: 0.05}, test: paired}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A suite of few documents, a run of it, and three adapters: one that changes nothing, two that do."""
    archives_or_skip()
    folder = tmp_path_factory.mktemp("lm")
    shutil.copytree(TASK_FILES, folder / "tasks")
    for kind, count in (("cloze", 60), ("bytes", 36)):
        task = f"include: {kind}_python.yaml\ntask: few_{kind}\ndataset_kwargs: {{domain: python, count: {count}}}\n"
        (folder / f"tasks/few_{kind}.yaml").write_text(task)
    for name, seed in (("base", 0), ("other", 1)):
        save(folder, name, 300, seed)
    (folder / "suite.yaml").write_text(SUITE)
    runner.run(make_plan(suite(folder), Options(folder / "results", workers=2)), Tracker())
    for name, size in (("nothing", 0.0), ("little", 0.02), ("much", 3.0)):
        adapter(folder / "base", folder / name, size)
    return folder


def adapter(base, target, size):
    module = AutoModelForCausalLM.from_pretrained(base)
    module = get_peft_model(module, LoraConfig(target_modules=["q_proj", "v_proj", "lm_head"], r=2))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_B" in name:
                parameter.copy_(size * torch.randn_like(parameter))
    module.save_pretrained(target)


def suite(folder):
    return read_suite(folder / "suite.yaml")


def judged(place, weights, tmp_path, stands_for="member/index=0", text=SUITE):
    (tmp_path / "policy.yaml").write_text(f"version: 1\nrules:\n{RULES}\n")
    (place / "suite.yaml").write_text(text)
    return gate_candidate(
        suite(place), weights, Options(place / "results", workers=2), Tracker(), policy_path=tmp_path / "policy.yaml",
        baseline=place / "results/lm/latest", stands_for=stands_for, today=TODAY,
    )  # fmt: skip


def states(gate):
    return {check.rule: check.state for check in gate.checks}


def test_an_adapter_that_changes_nothing_passes_and_one_that_breaks_the_model_fails(place, tmp_path):
    folder, gate = judged(place, place / "nothing", tmp_path)
    assert states(gate) == {"answers": "pass", "text": "pass", "all-text": "pass"}, gate
    assert (gate.exit_code, [check.n for check in gate.checks]) == (0, [60, 36, 36])
    ours, theirs = (read_run(path).document_measures for path in (folder, place / "results/lm/latest"))
    theirs = theirs[theirs["variant"] == "member/index=0"]
    pd.testing.assert_series_equal(ours["value"], theirs["value"].reset_index(drop=True), rtol=1e-5)
    _, gate = judged(place, place / "much", tmp_path)
    assert gate.exit_code == 3
    assert states(gate)["text"] == states(gate)["all-text"] == "fail"


def test_two_candidates_compare_in_bits_per_byte_by_passage(place, tmp_path):
    folders = [judged(place, place / name, tmp_path)[0] for name in ("nothing", "little")]
    runs = [read_run(folder) for folder in folders]
    item = compare(*runs).variants[0]
    bits = [run.document_measures.query("metric == 'bits_per_byte'")["value"].to_numpy() for run in runs]
    expected = ttest_1samp(bits[1] - bits[0], 0).confidence_interval(0.95)
    found = item.differences["bits_per_byte"]
    assert found.value == pytest.approx((bits[1] - bits[0]).mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert item.n == 60


def without(name):
    return lambda folder: (folder / name).unlink()


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-40])


def text_of(name, text):
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("of", "damage", "words"),
    [
        ("base", without("config.json"), "config.json is missing"),
        ("base", cut("config.json"), "config.json is not JSON"),
        ("base", text_of("config.json", "[]"), "config.json is not a model's configuration"),
        ("base", text_of("config.json", '{"model_type": "resnet"}'), "'resnet' is no causal language model"),
        ("base", text_of("config.json", '{"model_type": "mine", "auto_map": {}}'), "brings its own code"),
        ("base", without("model.safetensors"), "safetensors"),
        ("base", cut("model.safetensors"), "model.safetensors"),
        ("nothing", without("adapter_model.safetensors"), "adapter_model.safetensors is missing"),
        ("nothing", cut("adapter_model.safetensors"), "adapter_model.safetensors"),
        ("nothing", text_of("adapter_config.json", "{"), "adapter_config.json is not JSON"),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_model_is_refused_in_a_line_before_anything_is_scored(place, tmp_path, of, damage, words):
    weights = Path(shutil.copytree(place / of, tmp_path / "weights"))
    damage(weights)
    before = sorted((place / "results/lm-candidate").glob("*"))
    with pytest.raises(BadInput) as raised:
        judged(place, weights, tmp_path)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert str(weights) in str(raised.value)
    assert sorted((place / "results/lm-candidate").glob("*")) == before


def test_an_adapter_needs_a_suite_with_a_base(place, tmp_path):
    no_base = SUITE.replace("base: base, ", "")
    with pytest.raises(BadInput, match="an adapter needs the pool's base model"):
        judged(place, place / "nothing", tmp_path, text=no_base)


def test_an_adapter_of_another_model_is_refused_before_anything_is_scored(place, tmp_path):
    tiny_llama(vocab=300, hidden=8, layers=1, heads=2).save_pretrained(tmp_path / "small")
    adapter(tmp_path / "small", tmp_path / "narrow", 0.1)
    with pytest.raises(BadInput, match="size mismatch"):
        judged(place, tmp_path / "narrow", tmp_path)
