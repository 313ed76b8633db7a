"""A run whose seeds have splits of their own: each is scored on its own test examples, and all are put together."""

import numpy as np
import pytest

from harness.compare import compare
from harness.errors import BadInput
from harness.gate.decide import decide
from harness.report import write_report
from harness.results.evidence import Evidence
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.run.stages.prepare import Prepare
from harness.store import Store
from harness.suite.suite import read_suite
from harness.tasks import images
from tests.gate.law import unproven
from tests.gate.planted import TODAY, policy

pytestmark = pytest.mark.usefixtures("in_this_process")

SEEDS = (4, 0)  # the place in the suite says which fold, not the number
VARIANTS = {"best_single", "member/index=0", "linear", "views:best_single"}
SUITE = """
suite: folds
task: digits
pool:
  train: {architecture: mlp, start: independent, members: 2, epochs: 3, options: {hidden: 8}, vary: {lr: [3e-3]}}
pools:
  views:
    train: {architecture: mlp, start: independent, members: 1, epochs: 1, options: {hidden: 8},
            vary: {data: [labels_0_4]}}
seeds: [4, 0]
split: per_seed
methods:
  - best_single
  - member: {index: [0]}
  - linear
  - best_single: {pool: views}
cost: {latency: false, memory: false}
"""
RULES = [
    "{id: floor, match: {variant: linear, metric: accuracy}, min: 0.2}",
    "{id: paired, match: {variant: linear, metric: accuracy}, vs: 'variant:member/index=0', max_drop: {abs: 0.5}, "
    "test: paired}",
    "{id: loss, match: {variant: linear, metric: nll}, vs: baseline, max_increase: {abs: 0.1}, test: paired}",
    "{id: view, match: {variant: 'views:best_single', metric: accuracy/labels_0_4}, vs: baseline, "
    "max_drop: {abs: 0.1}, test: paired}",
]


def planned(folder, text=SUITE, **options):
    (folder / "suite.yaml").write_text(text)
    return make_plan(read_suite(folder / "suite.yaml"), Options(out=folder / "results", workers=2, **options))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("folds")


@pytest.fixture(scope="module")
def run(folder):
    return read_run(runner.run(planned(folder), Tracker()))


@pytest.fixture(scope="module")
def folds(folder, run):
    return {seed: images.load("digits", Store(folder / "results/.store"), fold=i) for i, seed in enumerate(SEEDS)}


def test_every_seed_is_scored_on_its_own_examples(run, folds):
    assert set(run.variants["status"]) == {"ok"}
    for (_, seed), rows in run.examples.groupby(["variant", "seed"], observed=True):
        assert rows["example_id"].tolist() == list(folds[seed].test.ids)
        assert rows["label"].tolist() == folds[seed].test.labels.tolist()
    assert not set(folds[4].test.ids) & set(folds[0].test.ids)  # of these two


def test_scores_are_those_of_a_seeds_examples_and_means_over_the_seeds(run):
    scores = run.variants.set_index(["variant", "seed"])
    for name in VARIANTS:
        rows = run.examples[run.examples["variant"] == name]
        for column, outcome in (("accuracy", "correct"), ("nll", "nll"), ("brier", "brier")):
            of_seeds = [rows[rows["seed"] == seed][outcome].astype(float).mean() for seed in SEEDS]
            found = [scores.loc[(name, str(seed)), column] for seed in SEEDS]
            assert found == pytest.approx(of_seeds, rel=1e-5)
            assert scores.loc[(name, "all"), column] == pytest.approx(np.mean(of_seeds), rel=1e-5)
        for column in ("ece", "macro_f1", "diff_vs_reference"):
            of_seeds = [scores.loc[(name, str(seed)), column] for seed in SEEDS]
            assert scores.loc[(name, "all"), column] == pytest.approx(np.mean(of_seeds))
        assert [scores.loc[(name, seed), "n"] for seed in ("4", "0", "all")] == [700, 700, 1400]


def test_the_record_says_so_and_counts_every_document_once(run):
    task = run.record["task"]
    assert (task["split"], task["splits"]) == ("per_seed", {"train": 600, "heldout": 400, "test": 700})
    assert task["documents"] == {"digits": 1400}
    assert run.splits_differ


def test_a_document_has_one_position_whatever_the_seed(run):
    """Of the images that both have, views show what the plain split does: the label view changes no pixel."""
    table, places = run.document_measures, run.places
    examples = run.examples[run.examples["variant"] == "views:best_single"]
    assert set(table["variant"]) == {"views:best_single"}
    for seed in SEEDS:
        rows = examples[(examples["seed"] == seed) & (examples["label"] < 5)]
        expected = dict(zip(rows["example_id"].astype(str).map(places), rows["correct"].astype(float), strict=True))
        of_seed = table[table["seed"] == seed]
        assert dict(zip(of_seed["document"], of_seed["value"], strict=True)) == expected


def test_a_gate_a_comparison_and_a_report_read_it(run, tmp_path):
    found = decide(policy(tmp_path, RULES), run, run, today=TODAY)
    assert {check.rule: check.state for check in found.checks} == {
        "floor": "pass", "paired": "pass", "loss": "pass", "view": "pass",
    }  # fmt: skip
    assert {check.rule: check.n for check in found.checks if check.n} == {"paired": 1400, "loss": 1400, "view": 700}
    for item in compare(run, run).variants:
        assert (item.verdict, item.n, item.accuracy.value) == ("unclear", 1400, 0)
    write_report(run.folder)
    text = (run.folder / "report.md").read_text()
    assert "1400 documents to test, over the seeds: each has a split of its own" in text


def test_a_seed_alone_keeps_its_split(run, folder):
    plan = planned(folder, seed=0)
    assert not {"train", "build"} & {job.stage.group for job in plan.missing()}
    alone = read_run(runner.run(plan, Tracker()))
    assert alone.record["task"]["digest"] == run.record["task"]["digest"]
    ours, theirs = (Evidence(each, "run").outcomes("linear", "0", "nll") for each in (run, alone))
    assert ours.equals(theirs)
    assert all(item.seeds == (0,) and item.accuracy.value == 0 for item in compare(run, alone).variants)
    with pytest.raises(BadInput, match="--seed: the suite has no split for seed 7; it has 4, 0"):
        planned(folder, seed=7)


def test_a_limit_keeps_the_first_examples_of_every_seed(run, folder, folds):
    plan = planned(folder, limit=40, only="member")
    limited = read_run(runner.run(plan, Tracker()))
    for seed, rows in limited.examples[limited.examples["variant"] == "best_single"].groupby("seed"):
        assert rows["example_id"].tolist() == list(folds[seed].test.ids[:40])
    assert limited.record["task"]["documents"] == {"digits": 80}


def test_a_member_that_seeds_share_is_run_on_the_splits_of_each(folder):
    """As one from a folder is: its digest is the same on every seed."""
    plan = planned(folder)
    member = plan.pools[4]["main"].members[0]
    first, second = (Prepare(plan.setting.of(seed), member, "main", seed) for seed in SEEDS)
    assert first.identity != second.identity
    assert len({*first.artefacts()} - {*second.artefacts()}) == 2  # on held-out and test


def test_shared_splits_are_those_of_the_first_fold(run, folder, folds):
    plan = planned(folder, SUITE.replace("split: per_seed\n", ""))
    assert {variant.data.scored for of in plan.variants.values() for variant in of.values()} == {
        folds[4].digest, folds[4].of_groups(("labels_0_4",)).digest,
    }  # fmt: skip
    assert all(plan.setting.of(seed) is plan.setting for seed in SEEDS)


def test_the_examples_give_all_that_the_tables_say(run):
    assert unproven(run.folder) == []
