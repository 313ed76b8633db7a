"""Exported classifiers are folders of the same kind: transformers reads them, and their card's code runs."""

import json
import re
import runpy
from datetime import date
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoTokenizer, pipeline

from harness.compare import compare
from harness.errors import BadInput
from harness.models.raw import contents
from harness.publish.candidate import gate_candidate
from harness.publish.export import export
from harness.publish.model_card import eval_results
from harness.results.run import read_run
from harness.run.plan import Options
from harness.run.progress import Tracker
from harness.suite.suite import read_suite
from tests.inline import Inline
from tests.models.classifier_folders import LABELS, TEXTS
from tests.publish.classifier_runs import inputs_of_test, run_suite

SUITE = """
pool: {hf: {base: base, members: [m0, m1]}}
reference: member/index=0
methods:
  - member: {index: [0, 1]}
  - linear
  - uniform_soup
  - distill: {size: half, epochs: 1}
cost: {latency: false, memory: false}
"""
FAMILIES = ("bert", "llama", "resnet")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return {family: run_suite(tmp_path_factory.mktemp(family), family, SUITE) for family in FAMILIES}


def probabilities(folder, family, inputs):
    """What transformers' pipeline on an exported folder says of test, in the order of its labels."""
    words = "text-classification" if family in TEXTS else "image-classification"
    pipe, rows = pipeline(words, str(folder), device="cpu"), []
    assert [pipe.model.config.id2label[row] for row in range(3)] == sorted(LABELS)
    for number, content in enumerate(contents(inputs)):
        if family in TEXTS:
            given, settings = json.loads(content)[0], {"truncation": True, "max_length": 40}
        else:
            given, settings = str(folder.parent / f"{number}.png"), {}
            Path(given).write_bytes(content)
        said = {each["label"]: each["score"] for each in pipe(given, top_k=None, **settings)}
        rows.append([said[label] for label in sorted(LABELS)])
    return torch.tensor(rows)


@pytest.mark.parametrize("variant", ["member/index=1", "uniform_soup", "distill/epochs=1,size=half"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_is_read_by_transformers_with_the_tasks_labels_and_says_what_the_run_says(
    runs, tmp_path, family, variant
):
    run = runs[family]
    folder = export(run, variant, tmp_path / "out")
    found = probabilities(folder, family, inputs_of_test(run))
    rows = run.examples[(run.examples["variant"] == variant) & (run.examples["seed"] == 0)]
    assert found.argmax(-1).tolist() == rows["prediction"].tolist()
    true = [sorted(LABELS).index(LABELS[n % 3]) for n in range(28, 43)]
    nll = -found[range(len(true)), true].log()
    torch.testing.assert_close(nll, torch.tensor(rows["nll"].to_numpy()).float(), rtol=0, atol=1e-5)
    reader = AutoTokenizer if family in TEXTS else AutoImageProcessor
    assert reader.from_pretrained(folder)
    assert (folder / "config.json").is_file()


@pytest.mark.parametrize("family", ["bert", "resnet"])
def test_a_member_whose_labels_are_in_the_tasks_order_is_given_back_bit_by_bit(runs, tmp_path, family):
    run = runs[family]
    folder = export(run, "member/index=1", tmp_path / "out")
    stored, given = (load_file(each / "model.safetensors") for each in (folder, run.folder.parents[2] / "m1"))
    order = [["good", "none", "bad"].index(label) for label in sorted(LABELS)]
    assert stored.keys() == given.keys()
    for name, tensor in given.items():
        assert torch.equal(stored[name], tensor[order] if name.startswith("classifier") else tensor)


@pytest.mark.parametrize("family", ["bert", "resnet"])
def test_the_card_has_the_tags_and_code_that_runs(runs, tmp_path, family, monkeypatch, capsys):
    folder = export(runs[family], "uniform_soup", tmp_path / "out")
    text = (folder / "README.md").read_text()
    tags = yaml.safe_load(text.split("---")[1])
    wanted = "text-classification" if family in TEXTS else "image-classification"
    assert tags["pipeline_tag"] == wanted
    assert tags["model-index"][0]["results"][0]["task"]["type"] == wanted
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    Image.new("RGB", (20, 16)).save(folder / "image.png")
    (tmp_path / "code.py").write_text(code)
    monkeypatch.chdir(folder)
    capsys.readouterr()
    runpy.run_path(str(tmp_path / "code.py"))
    assert re.search("bad|good|none", capsys.readouterr().out)
    assert "accuracy" in eval_results(runs[family], "uniform_soup", "user/set", "own", "accuracy")


def test_what_is_no_single_model_is_refused(runs, tmp_path):
    with pytest.raises(BadInput, match="an output rule over 2 models"):
        export(runs["bert"], "linear", tmp_path / "out")


def test_a_precision_may_be_asked_for(runs, tmp_path):
    folder = export(runs["bert"], "uniform_soup", tmp_path / "out", dtype="bfloat16")
    kept = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.bfloat16}


POLICY = """
version: 1
rules:
- {id: answers, match: {metric: accuracy}, vs: baseline, max_drop: {abs: 0.9}, test: paired}
"""


@pytest.mark.parametrize("family", ["bert", "resnet"])
def test_a_folder_from_outside_is_gated_against_a_run(runs, tmp_path, family, monkeypatch):
    monkeypatch.setattr("harness.engines.local._Pools", Inline)
    run = runs[family]
    place = run.folder.parents[2]
    candidate = export(run, "uniform_soup", tmp_path / "candidate")
    (place / "policy.yaml").write_text(POLICY)
    folder, gate = gate_candidate(
        read_suite(place / "suite.yaml"), candidate, Options(place / "results"), Tracker(),
        policy_path=place / "policy.yaml", baseline=run.folder, stands_for="uniform_soup", today=date(2026, 11, 29),
    )  # fmt: skip
    assert gate.outcome == "pass"
    found = read_run(folder)
    same = run.variants[run.variants["variant"] == "uniform_soup"].iloc[0]
    assert found.variants.iloc[0]["nll"] == pytest.approx(same["nll"], abs=1e-6)
    assert compare(run, found)
