"""Two planted runs against each other: differences by brute force, and everything that makes them not comparable."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, false_discovery_control, ttest_1samp

from harness.compare import as_json, as_rows, compare, notes
from harness.registry import METRICS
from harness.results.metric import Column, metric
from tests.gate.planted import changed, coins, planted, worse

SUITE = "suite: planted\ntask: t\nseeds: [0]\npool: {{members: {main}}}\npools: {{other: {{members: {other}}}}}\n"


def flipped(correct, gained, lost):
    """The same answers with this many wrong ones made right and right ones made wrong, in every seed."""
    result = worse(correct, lost)
    for before, row in zip(correct, result, strict=True):
        row[np.flatnonzero(before == 0)[:gained]] = 1
    return result


def by_name(found):
    return {item.variant: item for item in found.variants}


def suite(main=3, other=2):
    text = SUITE.format(main=main, other=other)
    return {"name": "planted", "digest": str(hash(text)), "yaml": text}


def test_one_seed_against_scipy():
    before = coins(0.8)
    first = planted({"up": before, "same": before, "down": before, "little": before})
    second = planted({"up": flipped(before, 40, 10), "same": before, "down": flipped(before, 5, 40),
                      "little": flipped(before, 4, 0)})  # fmt: skip
    found = by_name(compare(first, second))
    assert {name: item.verdict for name, item in found.items()} == {
        "up": "better", "same": "unclear", "down": "worse", "little": "unclear",
    }  # fmt: skip
    expected = [binomtest(40, 50).pvalue, 1.0, binomtest(5, 45).pvalue, binomtest(4, 4).pvalue]
    assert [item.p for item in found.values()] == pytest.approx(expected, rel=1e-12)
    assert [item.p_corrected for item in found.values()] == pytest.approx(false_discovery_control(expected))
    assert [item.accuracy.value for item in found.values()] == pytest.approx([30 / 600, 0, -35 / 600, 4 / 600])
    assert all(item.accuracy.low <= item.accuracy.value <= item.accuracy.high for item in found.values())
    assert found["same"].accuracy.low < 0 < found["same"].accuracy.high  # nothing seen is not nothing known


def test_losses_against_a_paired_t_test():
    before = coins(0.8)
    after = flipped(before, 40, 10)
    item = by_name(compare(planted({"v": before}), planted({"v": after})))["v"]
    expected = ttest_1samp((before - after)[0], 0).confidence_interval(0.95)  # the planted NLL is 1.5 - correct
    found = item.differences["nll"]
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert "bits_per_byte" not in item.differences  # which the runs do not have


def test_several_seeds_are_wider_than_their_sum_would_be():
    before = coins(0.8, n=300, seeds=3)
    after = before.copy()
    after[0] = flipped(before[:1], 30, 0)[0]  # all of the gain is in one seed
    item = by_name(compare(planted({"v": before}), planted({"v": after})))["v"]
    assert item.seeds == (0, 1, 2)
    assert item.accuracy.value == pytest.approx((after - before).mean())
    pooled = ttest_1samp((after - before).ravel(), 0).confidence_interval(0.95)
    assert item.accuracy.low < pooled.low
    assert item.accuracy.low < 0 < item.accuracy.high
    assert item.verdict == "unclear"
    steady = by_name(compare(planted({"v": before}), planted({"v": flipped(before, 30, 0)})))["v"]
    assert steady.verdict == "better"
    totals = (flipped(before, 30, 0) - before).sum(axis=0)
    assert steady.p == pytest.approx(binomtest(int((totals > 0).sum()), int((totals != 0).sum())).pvalue)


def test_seeds_with_splits_of_their_own_are_paired_on_what_each_was_tested_on():
    before = coins(0.8, n=900, seeds=3)
    after = flipped(before, 60, 10)
    for seed in range(3):
        gone = np.arange(900) // 300 != seed
        before[seed, gone] = after[seed, gone] = np.nan
    runs = planted({"v": before}), planted({"v": after})
    item = by_name(compare(*runs))["v"]
    assert (item.seeds, item.n) == ((0, 1, 2), 900)
    assert item.accuracy.value == pytest.approx(np.nanmean(after - before))
    gained, lost = int((after > before).sum()), int((after < before).sum())
    assert item.p == pytest.approx(binomtest(gained, gained + lost).pvalue)
    assert item.accuracy.low < item.accuracy.value < item.accuracy.high
    alone = changed(runs[1], seeds=[1], examples=runs[1].examples[runs[1].examples["seed"] == 1],
                    scores=_one_seed(runs[1].scores, 1), variants=_one_seed(runs[1].variants, 1))  # fmt: skip
    alone.record["task"]["documents"] = {"t": 300}
    one = by_name(compare(runs[0], alone))["v"]
    assert (one.verdict != "not comparable", one.seeds, one.n) == (True, (1,), 300), one.reason
    moved = before[[1, 0, 2]]
    other = by_name(compare(runs[0], planted({"v": moved})))["v"]
    assert (other.verdict, other.reason) == ("not comparable", "a seed was tested on other examples")


def _one_seed(table, seed):
    """The rows of a run on one of the seeds, whose summary is that seed's."""
    rows = table[table["seed"] == str(seed)]
    return pd.concat([rows, rows.assign(seed="all")], ignore_index=True)


def test_the_order_of_examples_does_not_matter_and_the_runs_change_places():
    before = coins(0.7)
    first, second = planted({"v": before}), planted({"v": flipped(before, 50, 10)})
    shuffled = changed(second, examples=second.examples.sample(frac=1, random_state=0))
    assert compare(first, shuffled) == compare(first, second)
    there, back = (by_name(compare(*runs))["v"] for runs in ((first, second), (second, first)))
    assert back.accuracy.value == pytest.approx(-there.accuracy.value)
    assert (back.accuracy.low, back.accuracy.high) == pytest.approx((-there.accuracy.high, -there.accuracy.low))
    assert (there.verdict, back.verdict) == ("better", "worse")


def test_only_the_seeds_that_both_have_are_compared():
    before = coins(0.8, seeds=3)
    first, second = planted({"v": before}), planted({"v": flipped(before[:2], 40, 0)})
    item = by_name(compare(first, second))["v"]
    assert item.seeds == (0, 1)
    renamed = second.examples.assign(seed=second.examples["seed"] + 7)
    scores = second.scores.assign(seed=second.scores["seed"].replace({"0": "7", "1": "8"}))
    variants = second.variants.assign(seed=second.variants["seed"].replace({"0": "7", "1": "8"}))
    other = changed(second, examples=renamed, scores=scores, variants=variants, seeds=[7, 8])
    assert reason(first, other) == ("not comparable", "the runs have no seed in common")


def reason(first, second, variant="v"):
    item = by_name(compare(first, second))[variant]
    assert item.accuracy is None
    return item.verdict, item.reason


def test_a_missing_example():
    run = planted({"v": coins(0.8), "w": coins(0.8)})
    table = run.examples
    lost = (table["variant"] == "v") & (table["example_id"] == "x3")
    examples = pd.concat([table[~lost], table[lost].assign(example_id="y3")])
    verdict, why = reason(run, changed(run, examples=examples))
    assert verdict == "not comparable"
    assert "1 are only in the first run, 1 only in the second" in why
    assert by_name(compare(run, changed(run, examples=examples)))["w"].verdict == "unclear"


def test_fewer_seeds_than_the_run_says():
    run = planted({"v": coins(0.8, seeds=2)})
    verdict, why = reason(run, changed(run, examples=run.examples[run.examples["seed"] == 0]))
    assert verdict == "not comparable"
    assert "missing in the second run" in why


def test_another_label():
    run = planted({"v": coins(0.8)})
    examples = run.examples.copy()
    examples.loc[3, "label"] = 5
    assert reason(run, changed(run, examples=examples)) == ("not comparable", "1 examples have another label")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_no_number(bad):
    run = planted({"v": coins(0.8)})
    examples = run.examples.copy()
    examples.loc[3, "nll"] = bad
    verdict, why = reason(run, changed(run, examples=examples))
    assert verdict == "failed"
    assert "not a finite number" in why


def test_no_examples():
    run = planted({"v": coins(0.8)})
    verdict, why = reason(run, changed(run, examples=run.examples[:0]))
    assert verdict == "not comparable"
    assert "no examples" in why


@pytest.mark.parametrize(("status", "verdict"), [("failed", "failed"), ("not_applicable", "not comparable")])
def test_a_variant_without_scores(status, verdict):
    good = planted({"v": coins(0.8), "w": coins(0.8)})
    bad = planted({"w": coins(0.8)}, not_ok={"v": (status, "the reason")})
    for pair in ((good, bad), (bad, good)):
        assert reason(*pair)[0] == verdict
        assert "the reason" in reason(*pair)[1]


def test_a_changed_suite_matters_to_the_variants_that_it_touches():
    correct = {"v": coins(0.8), "other:v": coins(0.8)}

    def run(**changes):
        found = planted(correct, suite=suite(**changes))
        pools = found.variants["variant"].map({"v": "main", "other:v": "other"})
        return changed(found, variants=found.variants.assign(pool=pools, params="{}", members=2))

    found = compare(run(), run(other=4))
    assert found.suite_changed
    assert {item.variant: item.verdict for item in found.variants} == {"v": "unclear", "other:v": "not comparable"}
    assert by_name(found)["other:v"].reason == "the suite was changed: its pool 'other'"
    assert any("suite was changed" in line for line in notes(found))
    unreadable = changed(run(), suite={**suite(), "digest": "x", "yaml": "a: [1"})
    assert {item.verdict for item in compare(run(), unreadable).variants} == {"not comparable"}
    retasked = changed(run(), suite={**suite(), "digest": "y", "yaml": suite()["yaml"].replace("task: t", "task: u")})
    assert by_name(compare(run(), retasked))["v"].reason == "the suite was changed: its task"


def test_a_default_that_changed_between_versions():
    run = planted({"v": coins(0.8)})
    sides = [changed(run, variants=run.variants.assign(params=f'{{"density": {d}}}')) for d in (0.1, 0.2)]
    verdict, why = reason(*sides)
    assert verdict == "not comparable"
    assert "its params differ" in why


@pytest.mark.parametrize(
    ("key", "value"), [("name", "u"), ("source", "elsewhere"), ("splits", {"test": 7}), ("digest", "e" * 64)]
)
def test_other_data(key, value):
    task = {"name": "t", "title": "A task", "source": "here", "splits": {"test": 600}, "digest": "d" * 64}
    first = planted({"v": coins(0.8)}, task=task)
    verdict, why = reason(first, changed(first, task={**task, key: value}))
    assert verdict == "not comparable"
    assert why.startswith("other data: ")


def test_costs_are_compared_on_the_same_machine_only():
    def run(latency, **record):
        costs = {"v": {"latency_ms_p50": latency, "flops_per_example": 100.0, "peak_memory_bytes": 1e8}}
        return planted({"v": coins(0.8)}, extra=costs, **record)

    here = compare(run(2.0), run(3.0))
    assert by_name(here)["v"].costs == {"flops_per_example": 1.0, "latency_ms_p50": 1.5, "peak_memory_bytes": 1.0}
    machine = {"system": "Linux x86_64", "cpu": "another cpu", "cores": 2, "memory_bytes": 1}
    elsewhere = compare(run(2.0), run(3.0, machine=machine))
    assert by_name(elsewhere)["v"].costs == {
        "flops_per_example": 1.0, "latency_ms_p50": None, "peak_memory_bytes": None,
    }  # fmt: skip
    columns, rows = as_rows(elsewhere)
    assert rows[0][columns.index("latency")] == "other machine"
    assert rows[0][columns.index("FLOPs")] == "1.00×"


def test_variants_that_only_one_run_has_are_named():
    found = compare(planted({"v": coins(0.8), "a": coins(0.7)}), planted({"v": coins(0.8), "b": coins(0.7)}))
    assert (found.only_first, found.only_second) == (("a",), ("b",))
    assert [item.variant for item in found.variants] == ["v"]


def test_json_holds_everything_and_no_nan():
    first = planted({"v": coins(0.8), "w": coins(0.8)})
    second = planted({"v": coins(0.8)}, not_ok={"w": ("failed", "why")})
    found = json.loads(json.dumps(as_json(compare(first, second)), allow_nan=False))
    assert [item["verdict"] for item in found["variants"]] == ["unclear", "failed"]
    assert found["variants"][0]["accuracy"]["value"] == 0
    assert found["other_machine"] is None


@pytest.mark.parametrize("outcome", ["correct", "nll"])
@pytest.mark.parametrize("value", [None, np.nan, np.inf, 0.25])
def test_a_plugged_in_metric_that_runs_lack_or_have_wrongly_is_left_out_and_judges_no_variant(
    monkeypatch, outcome, value
):
    extra = {} if value is None else {"v": {"half": value}}
    before = coins(0.8)
    runs = planted({"v": before}, extra=extra), planted({"v": flipped(before, 40, 10)}, extra=extra)
    without = by_name(compare(*runs))["v"]
    monkeypatch.setattr(METRICS, "_known", METRICS.all())
    metric(Column("half", "half of another", outcome=outcome))(lambda outcomes: 0.0)
    found = by_name(compare(*runs))["v"]
    assert (found.verdict, found.accuracy, found.differences) == ("better", without.accuracy, without.differences)
