"""The whole path on a tiny suite: what is reused, what is repeated, what a fault leaves behind."""

import json
from pathlib import Path

import pandas as pd
import pytest

from harness.errors import BadInput
from harness.results.columns import CORRELATION_COLUMNS, EXAMPLE_COLUMNS, RUN_FIELDS, variant_columns
from harness.results.run import Run, read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.suite.suite import read_suite
from tests.gate.law import unproven
from tests.inline import in_this_process

SUITE = """
suite: tiny
task: digits
pool:
  train: {architecture: mlp, start: shared_base, base_epochs: 1, members: 3, epochs: 1, vary: {lr: [1e-3, 3e-3]},
          options: {hidden: 8}}
pools:
  mixed:
    train: {architecture: [mlp, small_cnn], start: independent, members: 2, epochs: 1}
seeds: [0, 1]
methods:
  - best_single
  - linear: {weights: [uniform, learned]}
  - uniform_soup
  - linear: {pool: mixed}
  - uniform_soup: {pool: mixed}
correlate: {pools: [main, mixed], subsets: {sizes: [2], at_most: 3}}
cost: {latency: false, memory: false}
"""

OF_THE_TABLE = ["pareto", "best_set", "verdict", "recipe_verdict", "p_adjusted", "score_corrected",
                "score_corrected_low", "score_corrected_high"]  # fmt: skip
"""Columns that say something of all variants together, so that a dropped one may change the others'."""

TIMED = ["build_seconds", "members_train_seconds"]


def run(folder: Path, text: str, name: str = "suite.yaml", **options) -> Run:
    (folder / name).write_text(text)
    suite = read_suite(folder / name)
    plan = make_plan(suite, Options(out=folder / "results", workers=2, **options))
    return read_run(runner.run(plan, Tracker()))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runner")
    return folder, run(folder, SUITE)


def numbers(run: Run) -> pd.DataFrame:
    return run.variants.drop(columns=TIMED).set_index(["variant", "seed"]).sort_index()


def test_a_run_leaves_the_whole_contract(first):
    _, found = first
    assert list(found.variants.columns) == list(variant_columns())
    assert set(found.record) == set(RUN_FIELDS)
    assert list(found.examples.columns) == [name for name in EXAMPLE_COLUMNS if name != "cluster"]
    assert list(found.subsets.columns) == list(CORRELATION_COLUMNS)
    ok = found.variants[found.variants["status"] == "ok"]
    assert set(ok["seed"]) == {"0", "1", "all"}
    assert ok.groupby("variant")["pareto"].count().eq(3).all()
    tidy = pd.read_parquet(found.folder / "scores.parquet")
    row = tidy[(tidy["variant"] == "linear") & (tidy["seed"] == "all") & (tidy["metric"] == "accuracy")].iloc[0]
    wide = ok[(ok["variant"] == "linear") & (ok["seed"] == "all")].iloc[0]
    assert (row["value"], row["low"], row["high"]) == (wide["accuracy"], wide["accuracy_low"], wide["accuracy_high"])


def test_scores_are_those_of_the_examples(first):
    _, found = first
    scores = found.variants.set_index(["variant", "seed"])
    for (variant, seed), examples in found.examples.groupby(["variant", "seed"], observed=True):
        row = scores.loc[(variant, str(seed))]
        assert row["accuracy"] == pytest.approx((examples["prediction"] == examples["label"]).mean(), abs=1e-12)
        assert row["nll"] == pytest.approx(examples["nll"].astype(float).mean(), rel=1e-5)


def test_members_of_different_architectures_make_a_soup_not_applicable_and_an_ensemble_all_the_same(first):
    _, found = first
    rows = found.variants.set_index(["variant", "seed"])
    soup = rows.loc[("mixed:uniform_soup", "all")]
    assert soup["status"] == "not_applicable"
    assert "different architectures" in soup["reason"]
    assert pd.isna(soup["accuracy"])
    assert rows.loc[("mixed:linear", "all"), "status"] == "ok"
    assert any("study of pool 'mixed'" in w and "different architectures" in w for w in found.record["warnings"])


def test_running_again_reuses_everything_and_gives_the_same_table(first):
    folder, found = first
    again = run(folder, SUITE)
    assert again.record["summary"]["jobs_run"] == 0
    pd.testing.assert_frame_equal(again.variants, found.variants)  # times too: they were measured once
    assert (folder / "results/tiny/latest").resolve() == again.folder


def test_the_same_seed_elsewhere_gives_the_same_numbers_in_one_process_or_in_many(first, tmp_path):
    _, found = first
    with in_this_process():
        again = run(tmp_path, SUITE)
    pd.testing.assert_frame_equal(numbers(again), numbers(found))


def test_another_variant_costs_that_variant_and_a_dropped_one_changes_nothing_else(first):
    folder, found = first
    more = run(folder, SUITE.replace("  - best_single\n", "  - best_single\n  - log_linear\n"))
    log = [json.loads(line) for line in (more.folder / "log.jsonl").read_text().splitlines()]
    started = {event["job"] for event in log if event["event"] == "start"}
    built = {f"seed {s}: {what} log_linear" for s in (0, 1) for what in ("build", "score")}
    assert started == {*built, "summary of log_linear"}
    less = run(folder, SUITE.replace("  - linear: {weights: [uniform, learned]}\n", ""))
    assert less.record["summary"]["jobs_run"] == 0
    shared = numbers(less).index
    same = [c for c in numbers(found) if c not in OF_THE_TABLE]
    pd.testing.assert_frame_equal(numbers(less)[same], numbers(found).loc[shared, same])


def test_a_method_that_breaks_is_a_failed_row_and_the_rest_goes_on(first):
    folder, _ = first
    broken = SUITE.replace("  - uniform_soup\n", "  - uniform_soup\n  - task_arithmetic: {scale: 1e38}\n")
    found = run(folder, broken)
    rows = found.variants.set_index(["variant", "seed"])
    failed = rows.loc[("task_arithmetic/scale=1e+38", "all")]
    assert failed["status"] == "failed"
    assert "NaN" in failed["reason"]
    assert pd.isna(failed["accuracy"])
    assert rows.loc[("linear", "all"), "status"] == "ok"
    assert found.record["status"] == "incomplete"


def test_a_limited_run_says_so_and_keeps_the_training(first):
    folder, _ = first
    found = run(folder, SUITE, limit=50)
    assert found.variants["n"].dropna().eq(50).all()
    assert any("--limit" in warning for warning in found.record["warnings"])
    log = (found.folder / "log.jsonl").read_text()
    assert ": train mixed/m0" in log  # its predictions of the shorter split, from the weights that are there
    assert found.record["pools"]["main"] == first[1].record["pools"]["main"]


def test_only_keeps_the_chosen_variants_and_their_references(first):
    folder, _ = first
    assert set(run(folder, SUITE, only="uniform_soup").variants["variant"]) == {
        "best_single",
        "uniform_soup",
        "mixed:best_single",
        "mixed:uniform_soup",
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("{hiden: 8}", ["hiden"]),
        ("{hidden: -1}", ["cannot be built", "-1"]),
        ("{hidden: 8, dropout: 2.0}", ["between 0 and 1"]),
    ],
)
def test_options_that_no_network_has_are_found_before_anything_is_trained(tmp_path, options, words):
    with pytest.raises(BadInput) as error:
        run(tmp_path, SUITE.replace("options: {hidden: 8}", f"options: {options}"))
    assert all(word in str(error.value) for word in [*words, "suite.yaml", "pool 'main'"])
    assert not (tmp_path / "results" / "tiny").exists()


def test_the_examples_give_all_that_the_tables_say(first):
    assert unproven(first[1].folder) == []
