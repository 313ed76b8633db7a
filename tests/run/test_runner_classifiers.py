"""Suites of a user's own texts and images through a whole run: pools from folders and pools that are tuned here."""

import json
from dataclasses import replace

import pytest
import torch

from harness.errors import BadInput
from harness.models.classifiers import schedule
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan, modules_to_preload
from harness.run.progress import Tracker
from harness.suite.suite import read_suite
from tests.inline import Inline
from tests.publish.classifier_runs import DATA, run_suite, write_data, write_models

TUNED = """
pool: {train: {base: base, start: shared_base, members: 2, epochs: 2, vary: {lr: [1e-4, 1e-3]}}}
pools:
  heads: {train: {base: base, start: independent, members: 2, epochs: 1}}
  run: {train: {base: base, start: shared_base, epochs: 3, checkpoints: 2}}
  bag: {train: {base: base, start: independent, members: 2, epochs: 1, bootstrap: true}}
  given: {hf: {base: base, members: [m0, m1]}}
methods:
  - best_single
  - linear: {pool: [main, given]}
  - uniform_soup: {pool: [main, heads, given]}
  - task_arithmetic: {pool: [main, given]}
  - checkpoint_average: {pool: run, n: 2}
  - bagging: {pool: bag}
cost: {latency: false, memory: false}
"""


@pytest.fixture(scope="module", params=["distilbert", "resnet"])
def run(request, tmp_path_factory):
    return run_suite(tmp_path_factory.mktemp(request.param), request.param, TUNED)


def whole(run):
    return run.variants[run.variants["seed"] == "all"].set_index("variant")


def test_every_pool_is_made_and_every_variant_is_scored(run):
    assert set(whole(run)["status"]) == {"ok"}
    assert run.variants["nll"].notna().all()


def test_what_a_reader_should_know_of_heads_and_texts_is_in_the_record(run):
    assert any("it has no head for these labels" in each for each in run.record["warnings"])
    words = ": the base has no head"
    told = {each.partition(words)[0] for each in run.record["warnings"] if words in each}
    assert told == {"heads:uniform_soup", "given:uniform_soup", "given:task_arithmetic"}


def test_flops_of_an_ensemble_are_those_of_its_members(run):
    flops = whole(run)["flops_per_example"]
    assert flops["linear"] == 2 * flops["best_single"] == 2 * flops["uniform_soup"] > 0


def test_run_again_nothing_is_made_anew(run, monkeypatch):
    monkeypatch.setattr("harness.engines.local._Pools", Inline)
    place = run.folder.parents[2]
    plan = make_plan(read_suite(place / "suite.yaml"), Options(place / "results", workers=1))
    again = read_run(runner.run(plan, Tracker()))
    rows = [json.loads(line) for line in (again.folder / "log.jsonl").read_text().splitlines()]
    assert again.record["summary"]["jobs_run"] == 0, rows
    assert json.dumps(again.record["warnings"]) == json.dumps(run.record["warnings"])


def test_texts_that_are_cut_are_counted(tmp_path):
    place = tmp_path
    suite = "pool: {hf: {members: [m0, m1]}}\nreference: linear\nmethods: [linear]\ncost: {memory: false}\n"
    write_data(place)
    rows = (place / "test.csv").read_text().splitlines()
    (place / "kept.csv").write_text("\n".join([*rows, f"{'day ' * 60},bad", f"{'rain ' * 39},good"]) + "\n")
    write_models(place, "distilbert")
    task = DATA["texts"].replace("test.csv", "kept.csv")
    (place / "suite.yaml").write_text(f"suite: own\ntask: {task}\n{suite}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.engines.local._Pools", Inline)
        plan = make_plan(read_suite(place / "suite.yaml"), Options(place / "results", workers=1))
        found = read_run(runner.run(plan, Tracker()))
    assert "m0, m1: 2 of 17 test texts are cut to the 40 tokens that it takes" in found.record["warnings"]


def test_workers_import_the_code_of_the_pools_networks_beforehand(run):
    place = run.folder.parents[2]
    plan = make_plan(read_suite(place / "suite.yaml"), Options(place / "results", workers=1))
    kind = "distilbert" if "distilbert" in str(place) else "resnet"
    assert f"transformers.models.{kind}.modeling_{kind}" in modules_to_preload(plan)


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        ("{base: base, start: shared_base, vary: {augment: [0.1]}}", "noise .'augment'. is added to numbers"),
        ("{start: shared_base}", "architecture 'small_cnn' is not for texts"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_anything_runs(tmp_path, pool, words):
    write_data(tmp_path)
    write_models(tmp_path, "distilbert", 0)
    text = f"suite: own\ntask: {DATA['texts']}\npool: {{train: {pool}}}\nreference: linear\nmethods: [linear]\n"
    (tmp_path / "suite.yaml").write_text(text)
    with pytest.raises(BadInput, match=words):
        make_plan(read_suite(tmp_path / "suite.yaml"), Options(tmp_path / "results"))


def test_the_rate_of_fine_tuning_warms_up_then_falls_to_nothing():
    usual = schedule(3)
    shares = torch.tensor([usual.share(step / 100) for step in range(101)])
    assert int(shares.argmax()) == 10
    assert float(shares.max()) == 1.0
    assert (shares[:11].diff() > 0).all()
    assert (shares[10:].diff() < 0).all()
    assert shares[0] > 0
    assert shares[-1] == 0
    assert replace(usual, decay="constant").share(0.0) == 1.0
