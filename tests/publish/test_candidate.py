"""A model from outside against a stored run: the pairing, the exit codes, and what a candidate cannot get past."""

import json
import shutil
from datetime import date

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.errors import BadInput
from harness.gate.baseline import set_baseline
from harness.publish.candidate import CANDIDATE, gate_candidate, score_candidate
from harness.publish.export import export
from harness.results.manifest import write_manifest
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.suite.suite import read_suite

pytestmark = pytest.mark.usefixtures("in_this_process")

SUITE = """
suite: tiny
task: digits
pool:
  train: {architecture: mlp, start: shared_base, base_epochs: 25, members: 2, epochs: 2, options: {hidden: 24}}
seeds: [0]
methods: [best_single, uniform_soup]
cost: {latency: false, memory: false}
"""
TODAY = date(2026, 11, 25)
NO_DROP = "- {id: no-drop, match: {metric: accuracy}, vs: baseline, max_drop: {abs: 0.05}, test: paired}"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A suite, a run of it that is the baseline, and its soup as a folder of weights."""
    folder = tmp_path_factory.mktemp("candidate")
    (folder / "suite.yaml").write_text(SUITE)
    run = runner.run(make_plan(suite(folder), Options(folder / "results", workers=2)), Tracker())
    set_baseline(run, folder / "results", "main", "the first", TODAY)
    export(read_run(run), "uniform_soup", folder / "soup")
    return folder


def suite(folder):
    return read_suite(folder / "suite.yaml")


def judged(place, weights, tmp_path, rules=NO_DROP, stands_for="uniform_soup", baseline="main"):
    """Run folder and gate."""
    (tmp_path / "policy.yaml").write_text(f"version: 1\nrules:\n{rules}\n")
    return gate_candidate(
        suite(place), weights, Options(place / "results", workers=2), Tracker(), policy_path=tmp_path / "policy.yaml",
        baseline=place / "results/baselines" / baseline, stands_for=stands_for, today=TODAY,
    )  # fmt: skip


def damaged(weights, target, change):
    shutil.copytree(weights, target)
    tensors = load_file(target / "model.safetensors")
    save_file({name: change(tensor) for name, tensor in tensors.items()}, target / "model.safetensors")
    return target


def test_the_very_model_of_the_baseline_gives_its_examples_and_passes(place, tmp_path):
    folder, gate = judged(place, place / "soup", tmp_path)
    run, old = read_run(folder), read_run(place / "results/tiny/latest")
    assert set(run.variants["variant"]) == {CANDIDATE}
    theirs = old.examples[old.examples["variant"] == "uniform_soup"]
    assert list(run.examples["example_id"].astype(str)) == list(theirs["example_id"].astype(str))
    np.testing.assert_array_equal(run.examples["prediction"], theirs["prediction"])
    np.testing.assert_allclose(run.examples["nll"], theirs["nll"], rtol=1e-6)
    assert (gate.outcome, gate.exit_code) == ("pass", 0), gate.checks
    assert gate.checks[0].variant == CANDIDATE
    assert gate.checks[0].n == len(theirs)
    assert json.loads((folder / "gate.json").read_text())["outcome"] == "pass"


def test_for_every_seed_of_the_suite_it_is_the_same_model(place, tmp_path):
    (tmp_path / "suite.yaml").write_text(SUITE.replace("seeds: [0]", "seeds: [0, 1]"))
    folder = score_candidate(suite(tmp_path), place / "soup", Options(place / "results", workers=2), Tracker())
    run = read_run(folder)
    assert list(run.variants["seed"]) == ["all", "0", "1"]
    one, other = (run.examples[run.examples["seed"] == seed].drop(columns="seed") for seed in (0, 1))
    pd.testing.assert_frame_equal(one.reset_index(drop=True), other.reset_index(drop=True))
    assert run.variants["accuracy"].nunique() == 1


def test_neither_the_baseline_nor_its_members_are_run_again(place, tmp_path):
    folder, _ = judged(place, place / "soup", tmp_path)
    jobs = {json.loads(line)["job"] for line in (folder / "log.jsonl").read_text().splitlines()}
    assert all("candidate" in job or "main/m0" in job for job in jobs)
    assert (place / "results/tiny/latest").resolve().parent != folder.parent


def test_a_model_that_is_worse_fails(place, tmp_path):
    torch.manual_seed(0)
    weights = damaged(place / "soup", tmp_path / "noise", lambda t: t + 0.5 * torch.randn_like(t))
    _, gate = judged(place, weights, tmp_path)
    assert (gate.outcome, gate.exit_code) == ("fail", 3)


def test_weights_that_are_no_numbers_are_no_verdict(place, tmp_path):
    weights = damaged(place / "soup", tmp_path / "nan", lambda t: torch.full_like(t, torch.nan))
    folder, gate = judged(place, weights, tmp_path)
    assert gate.exit_code == 5
    assert read_run(folder).record["status"] == "incomplete"


@pytest.mark.parametrize("metric", ["diff_vs_reference", "latency_ratio_p50"])
def test_a_rule_about_the_reference_finds_nothing_instead_of_a_comparison_with_itself(place, tmp_path, metric):
    _, gate = judged(place, place / "soup", tmp_path, f"- {{id: r, match: {{metric: {metric}}}, min: 0, max: 1}}")
    assert gate.exit_code == 5


def test_a_changed_suite_or_baseline_is_not_comparable(place, tmp_path):
    other = shutil.copytree(place / "results/baselines/main", tmp_path / "baseline")
    record = json.loads((other / "run.json").read_text())
    record["suite"]["digest"] = "0" * 64
    (other / "run.json").write_text(json.dumps(record))
    write_manifest(other)
    _, gate = judged(place, place / "soup", tmp_path, baseline=other)
    assert gate.exit_code == 5
    assert any("changed" in problem for problem in gate.problems)


def test_examples_that_the_baseline_lacks_are_no_verdict(place, tmp_path):
    run = (place / "results/tiny/latest").resolve()
    other = shutil.copytree(run, tmp_path / "run")
    examples = pd.read_parquet(other / "examples.parquet")
    examples[examples["example_id"] != examples["example_id"].iloc[0]].to_parquet(other / "examples.parquet")
    write_manifest(other)
    _, gate = judged(place, place / "soup", tmp_path, baseline=other)
    assert gate.exit_code == 5


def test_a_baseline_without_the_variant_is_refused_before_anything_is_scored(place, tmp_path):
    before = sorted((place / "results/tiny-candidate").glob("*"))
    with pytest.raises(BadInput, match="did you mean 'uniform_soup'"):
        judged(place, place / "soup", tmp_path, stands_for="uniform_soop")
    assert sorted((place / "results/tiny-candidate").glob("*")) == before


def test_without_a_baseline_there_is_no_verdict(place, tmp_path):
    _, gate = judged(place, place / "soup", tmp_path, baseline="none")
    assert gate.exit_code == 5


def test_a_folder_that_does_not_fit_the_task_is_refused(place, tmp_path):
    weights = shutil.copytree(place / "soup", tmp_path / "other")
    name, options = json.loads((weights / "architecture.json").read_text())
    (weights / "architecture.json").write_text(json.dumps([name, {**options, "classes": 7}]))
    with pytest.raises(BadInput, match="classes 7; the task 'digits' has side 8, classes 10"):
        judged(place, weights, tmp_path)
    (weights / "architecture.json").write_text(json.dumps(["mpl", options]))
    with pytest.raises(BadInput, match="did you mean 'mlp'"):
        judged(place, weights, tmp_path)
