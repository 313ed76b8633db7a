"""The comparisons of a whole run: which rows there are, that they are those of its examples, and what follows."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from harness.engines import local
from harness.evaluate.decisions import LIKE_THESE, OWN, POOLS, THESE
from harness.registry import METRICS
from harness.results.columns import COMPARISON_COLUMNS, difference_of, paired
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.run.stages.build import Build
from harness.stats.proportions import FEWEST
from harness.suite.suite import read_suite
from tests.evaluate.added_metrics import declare
from tests.gate.law import unproven
from tests.inline import Inline

SUITE = """
suite: decided
task: digits
pool:
  train: {architecture: mlp, start: shared_base, base_epochs: 1, members: 2, epochs: 1, options: {hidden: 8},
          vary: {lr: [1e-3, 1e-2]}}
pools:
  other:
    train: {architecture: mlp, start: independent, members: 2, epochs: 2, options: {hidden: 8}, vary: {lr: [1e-2]}}
seeds: [3, 0]
score: [nll, accuracy]
equivalence: {accuracy: 0.02, brier: 2 %}
methods:
  - best_single
  - member: {index: [0, 1]}
  - linear: {pool: [main, other]}
cost: {latency: false, memory: false, energy: false}
"""
SEEDS = ["3", "0", "all"]
OUTCOMES = {"accuracy": "correct", "nll": "nll", "brier": "brier"}
COMPARED = {"member/index=0": "best_single", "member/index=1": "best_single", "linear": "best_single",
            "other:linear": "other:best_single"}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _inline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "_Pools", Inline)
        yield


def run_in(folder, text=SUITE, **options):
    (folder / "suite.yaml").write_text(text)
    return read_run(runner.run(make_plan(read_suite(folder / "suite.yaml"), Options(out=folder, **options)), Tracker()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("deciding")


@pytest.fixture(scope="module")
def run(folder):
    return run_in(folder)


@pytest.fixture(scope="module")
def rows(run):
    """Of variants.csv."""
    return run.variants.set_index(["variant", "seed"])


def scopes(seed):
    return (THESE, LIKE_THESE) if seed == "all" else (THESE,)


def values(run, variant, seed, metric):
    """[seeds, examples], of one seed or of all."""
    chosen = run.examples[run.examples["variant"] == variant]
    seeds = [seed] if seed != "all" else ["3", "0"]
    outcome = OUTCOMES[metric]
    return np.stack([chosen[chosen["seed"] == int(s)].sort_values("example_id")[outcome] for s in seeds]).astype(float)


def test_there_is_a_row_for_each_variant_score_seed_and_scope(run):
    names = ["variant", "against", "kind", "metric", "seed", "scope"]
    assert list(run.comparisons.columns) == list(COMPARISON_COLUMNS)
    found = [tuple(row) for row in run.comparisons[names].itertuples(index=False)]
    pairs = [(OWN, pair) for pair in COMPARED.items()] + [(POOLS, ("other:best_single", "best_single"))]
    expected = {(*pair, kind, metric, seed, scope)
                for kind, pair in pairs for metric in OUTCOMES for seed in SEEDS for scope in scopes(seed)}  # fmt: skip
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert (run.comparisons["n"] == run.variants["n"].iloc[0]).all()


def test_differences_of_these_models_are_those_of_the_examples(run):
    for row in run.comparisons[run.comparisons["scope"] == THESE].to_dict("records"):
        ours, theirs = (values(run, row[side], row["seed"], row["metric"]) for side in ("variant", "against"))
        apart = ours - theirs
        of_items, items = apart.mean(axis=0), apart.shape[1]
        error = of_items.std(ddof=1) / np.sqrt(items)
        assert row["difference"] == pytest.approx(of_items.mean(), abs=1e-6)
        right = row["metric"] == "accuracy"
        if (apart != 0).any(axis=0).sum() < (FEWEST if right else 1):
            continue  # by the score test; or nothing varies
        grain = 1 / apart.size if right else 0.0
        half = t.isf(0.025, items - 1) * error + grain
        assert (row["low"], row["high"]) == pytest.approx((of_items.mean() - half, of_items.mean() + half), abs=1e-5)
        distance = max(0.0, abs(of_items.mean()) - grain) / error
        assert row["p"] == pytest.approx(2 * t.sf(distance, items - 1), rel=1e-3, abs=1e-9)


def test_one_table_reaches_equally_many_standard_errors_for_all_its_variants(run):
    own = run.comparisons[(run.comparisons["kind"] == OWN) & (run.comparisons["scope"] == THESE)]
    for metric in ("nll", "brier"):
        for seed in SEEDS:
            table = own[(own["metric"] == metric) & (own["seed"] == seed) & (own["low"] < own["high"])]
            reach = (table["high_together"] - table["difference"]) / (table["high"] - table["difference"])
            assert np.ptp(reach) < 1e-6
            assert 1 < reach.iloc[0] < t.isf(0.025 / len(COMPARED), 1000) / t.isf(0.025, 1000)
    assert (own["p_adjusted"] >= own["p"]).all()


def test_margins_are_those_of_the_suite_or_usual(run):
    for row in run.comparisons.to_dict("records"):
        loss = values(run, row["against"], row["seed"], row["metric"]).mean()
        expected = {"accuracy": 0.02, "brier": 0.02 * loss, "nll": 0.01 * loss}[row["metric"]]
        assert row["margin"] == pytest.approx(expected, rel=1e-5)


def test_the_table_of_variants_has_the_comparisons_cell_by_cell(run, rows):
    found = run.comparisons[run.comparisons["kind"] == OWN].set_index(["variant", "seed", "metric", "scope"])
    for name in COMPARED:
        for seed in SEEDS:
            row = rows.loc[(name, seed)]
            for metric in OUTCOMES:
                difference, compared = difference_of(paired()[metric]), found.loc[(name, seed, metric, THESE)]
                cells = row[[difference.name, *difference.bounds]].tolist()
                assert cells == compared[["difference", "low", "high"]].tolist(), (name, seed, metric)
            decisive = found.loc[(name, seed, "nll", THESE)]  # the suite's first score
            assert (row["verdict"], row["p_adjusted"]) == (decisive["verdict"], decisive["p_adjusted"])
            assert pd.isna(row["mcnemar_p"]) == (seed == "all")
            if seed == "all":
                assert row["recipe_verdict"] == found.loc[(name, seed, "nll", LIKE_THESE), "verdict"]
            else:
                assert pd.isna(row["recipe_verdict"])
    assert len(set(rows["verdict"]) & {"better", "worse", "equivalent", "unclear"}) > 1
    assert set(run.comparisons.loc[run.comparisons["kind"] == POOLS, "verdict"]) == {""}


def test_references_of_pools_are_compared_with_themselves(run, rows):
    assert run.record["references"] == {"main": "best_single", "other": "other:best_single"}
    assert dict(rows.xs("all", level="seed")["reference"]) == {
        **COMPARED, "best_single": "best_single", "other:best_single": "other:best_single",
    }  # fmt: skip
    for name in run.record["references"].values():
        own = rows.loc[name]
        assert set(own["verdict"]) == {"reference"}
        assert (own[["diff_vs_reference", "diff_low", "nll_diff", "nll_diff_high", "brier_diff"]] == 0).all(axis=None)
    assert rows["bits_per_byte_diff"].isna().all()  # no variant has that score


def test_the_best_member_under_its_index_is_equivalent_to_the_reference(run, rows):
    for seed, member in run.record["reference"]["members"].items():
        same = rows.loc[(f"member/index={member[1:] if isinstance(member, str) else member}", seed)]
        assert same["verdict"] == "equivalent"
        assert same[["diff_vs_reference", "diff_low", "diff_high", "nll_diff", "nll_diff_low"]].tolist() == [0] * 5


def test_the_record_says_what_decides_and_what_is_best(run, rows):
    assert run.record["scores"] == run.scores_of_suite == ["nll", "accuracy"]
    assert run.record["best"].keys() == OUTCOMES.keys()
    table = rows.xs("all", level="seed")
    for metric, best in run.record["best"].items():
        signed = table[metric] * (1 if metric == "accuracy" else -1)
        assert signed[best["variant"]] == signed.max()
        assert best["value"] == pytest.approx(table.loc[best["variant"], metric], rel=1e-6)
        assert best["variant"] in best["set"]
        assert best["low"] <= best["corrected"] <= best["high"]
    assert set(table.index[table["best_set"].astype(bool)]) == set(run.record["best"]["nll"]["set"])
    assert rows["best_set"].notna().sum() == len(table)


def test_again_the_same_decisions_are_read(folder, run):
    [decided] = (folder / ".store/decisions").glob("*/*/decisions.json")
    before = decided.stat().st_mtime_ns
    again = run_in(folder)
    assert again.folder != run.folder
    assert decided.stat().st_mtime_ns == before
    for name in ("comparisons.parquet", "variants.csv"):
        assert (again.folder / name).read_bytes() == (run.folder / name).read_bytes()


def test_another_score_of_the_suite_gives_other_words_for_the_same_comparisons(folder, run, rows):
    # one by which held-out choices are the same
    other = run_in(folder, SUITE.replace("score: [nll, accuracy]", "score: brier"))
    pd.testing.assert_frame_equal(other.comparisons, run.comparisons)
    assert other.scores_of_suite == ["brier"]
    found = run.comparisons.set_index(["variant", "seed", "metric", "scope"])["verdict"]
    table = other.variants.set_index(["variant", "seed"])["verdict"]
    for name in COMPARED:
        assert [table[name, seed] for seed in SEEDS] == [found[name, seed, "brier", THESE] for seed in SEEDS]


def test_an_added_metric_has_comparisons_and_turns_its_words_with_its_better_end(folder, monkeypatch):
    declare(monkeypatch, "top2")
    words = []
    for end in ("higher", "lower"):
        added = METRICS.get("top2")
        monkeypatch.setitem(METRICS._known, "top2", replace(added, column=replace(added.column, better=end)))
        table = run_in(folder).comparisons
        words.append(table.loc[(table["metric"] == "top2") & (table["kind"] == OWN), "verdict"].tolist())
    turned = {"better": "worse", "worse": "better"}
    assert words[1] == [turned.get(word, word) for word in words[0]] != words[0]


def test_one_seed_alone_has_one_scope(folder):
    alone = run_in(folder, seed=0)
    assert set(alone.comparisons["scope"]) == {THESE}
    table = alone.comparisons.set_index(["metric", "kind", "variant"]).sort_index()
    pd.testing.assert_frame_equal(*(table[table["seed"] == seed].drop(columns="seed") for seed in ("all", "0")))
    assert alone.variants["recipe_verdict"].isna().all()


def test_a_single_test_example_gives_no_comparison_and_no_best(folder):
    found = run_in(folder, limit=1)
    assert len(found.comparisons) == 0
    assert found.record["best"] == {}
    rest = found.variants[found.variants["variant"].isin(COMPARED)]
    assert set(rest["verdict"]) == {"no_reference"}
    assert set(rest["reason"]) == {"not compared: one example says nothing of others"}


def test_a_variant_that_fails_on_one_seed_is_compared_on_the_other_only(tmp_path, monkeypatch):
    def breaks(stage, build=Build.run):
        if (stage.variant.name, stage.variant.seed) == ("linear", 0):
            raise ValueError("it broke")
        build(stage)

    monkeypatch.setattr(Build, "run", breaks)
    found = run_in(tmp_path)
    seeds = found.comparisons.groupby("variant")["seed"].agg(set)
    assert seeds["linear"] == {"3"}
    assert seeds["other:linear"] == set(SEEDS)
    verdicts = found.variants.set_index(["variant", "seed"])["verdict"]
    assert (verdicts["linear", "0"], verdicts["linear", "all"]) == ("failed", "failed")
    assert verdicts["linear", "3"] in ("better", "worse", "unclear", "equivalent")
    assert all("linear" not in best["set"] for best in found.record["best"].values())


def test_a_pool_whose_reference_fails_is_not_compared_and_the_others_are(tmp_path, monkeypatch):
    def breaks(stage, build=Build.run):
        if stage.variant.name == "other:best_single":
            raise ValueError("it broke")
        build(stage)

    monkeypatch.setattr(Build, "run", breaks)
    found = run_in(tmp_path)
    assert set(found.comparisons["variant"]) == {"member/index=0", "member/index=1", "linear"}
    assert set(found.comparisons["kind"]) == {OWN}
    rest = found.variants.set_index(["variant", "seed"]).loc["other:linear"]
    assert set(rest["verdict"]) == {"no_reference"}
    assert rest.loc["all", "reason"].startswith("not compared: the reference other:best_single failed")
    assert rest["accuracy"].notna().all()


def test_the_examples_give_all_that_the_tables_say(run):
    assert unproven(run.folder) == []
