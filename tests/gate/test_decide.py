"""What rules say of runs: limits, changes, paired tests, corrections, waivers."""

import dataclasses

import numpy as np
import pytest

from harness import stats
from harness.gate.decide import decide
from tests.gate.planted import TODAY, changed, coins, planted, policy, worse

GOOD = coins(0.9)
RUN = planted(
    {"linear": GOOD, "ties": worse(GOOD, 30), "ties/density=0.1": worse(GOOD, 3), "moe": worse(GOOD, 120)},
    extra={name: {"latency_ratio_p50": 1.0, "peak_memory_bytes": 1e9} for name in ("linear", "ties", "moe")},
    not_ok={"arch:soup": ("not_applicable", "no shared shapes")},
)


def gate(tmp_path, rules, run=RUN, baseline=None, more="", today=TODAY):
    return decide(policy(tmp_path, rules, more), run, baseline, today=today)


def states(found):
    return {check.variant: check.state for check in found.checks}


# splits


def test_a_paired_test_of_seeds_with_splits_of_their_own_is_of_what_each_was_tested_on(tmp_path):
    good = coins(0.9, n=900, seeds=3)
    good[np.arange(900) // 300 != np.arange(3)[:, None]] = np.nan
    bad = good.copy()
    for row in bad:
        row[np.flatnonzero(row == 1)[:30]] = 0
    run = planted({"good": good, "same": good, "bad": bad})
    rule = "{{id: a, match: {{variant: {}, metric: accuracy}}, {}, max_drop: {{abs: 0.02}}, test: paired}}"
    for variant, state in (("same", "pass"), ("bad", "fail")):
        (check,) = gate(tmp_path, rule.format(variant, "vs: 'variant:good'"), run).checks
        assert (check.state, check.n) == (state, 900)
        assert check.difference == pytest.approx(-0.1 if variant == "bad" else 0)
    (check,) = gate(tmp_path, rule.format("same", "vs: baseline"), run, run).checks
    assert check.state == "pass"
    other = planted({"same": good[[1, 0, 2]]})
    (check,) = gate(tmp_path, rule.format("same", "vs: baseline"), run, other).checks
    assert (check.state, "not scored on the same examples and seeds" in check.reason) == ("error", True)


# limits


@pytest.mark.parametrize(
    ("limit", "state"),
    [("min: 0.9", "pass"), ("min: 0.901", "fail"), ("max: 0.9", "pass"), ("max: 0.899", "fail"),
     ("min: 0.8, max: 0.95", "pass"), ("min: 0.88, apply_to: ci_low", "fail"), ("min: 0.87, apply_to: ci_low", "pass"),
     ("max: 0.92, apply_to: ci_high", "fail"), ("max: 0.93, apply_to: ci_high", "pass")],
)  # fmt: skip
def test_a_limit_is_on_the_value_or_an_end_of_its_interval(tmp_path, limit, state):
    found = gate(tmp_path, f"{{id: a, match: {{variant: linear, metric: accuracy}}, {limit}}}")
    assert states(found) == {"linear": state}
    assert found.outcome == state


def test_a_limit_on_the_interval_of_what_has_none_is_an_error(tmp_path):
    rule = "{id: a, match: {variant: linear, metric: peak_memory_bytes}, max: 2e9, apply_to: ci_high}"
    found = gate(tmp_path, rule)
    assert (found.outcome, found.exit_code) == ("error", 5)
    assert "no interval" in found.checks[0].reason


def test_a_pattern_matches_whole_names_and_what_does_not_apply_is_left_out_with_its_reason(tmp_path):
    found = gate(tmp_path, ['{id: a, match: {variant: "ties*", metric: accuracy}, min: 0.5}',
                            "{id: b, match: {metric: accuracy}, min: 0.5}"])  # fmt: skip
    assert [c.variant for c in found.checks if c.rule == "a"] == ["ties", "ties/density=0.1"]
    assert {c.variant for c in found.checks if c.rule == "b"} == {*RUN.variants["variant"]}
    assert next(c for c in found.checks if c.state == "skipped").reason == "does not apply: no shared shapes"
    assert found.outcome == "pass"


def test_a_rule_on_one_seed_reads_that_seeds_row(tmp_path):
    run = planted({"a": np.stack([np.ones(100), np.zeros(100)])})
    rules = [f"{{id: s{s}, match: {{metric: accuracy, seed: {s}}}, min: 0.5}}" for s in (0, 1, 2)]
    found = gate(tmp_path, [*rules, "{id: all, match: {metric: accuracy}, min: 0.5}"], run)
    assert [check.state for check in found.checks] == ["pass", "fail", "error", "pass"]


# changes


@pytest.mark.parametrize(
    ("metric", "limit", "before", "now", "state"),
    [
        ("latency_ratio_p50", "max_increase: {rel: 0.10}", 1.0, 1.1, "pass"),
        ("latency_ratio_p50", "max_increase: {rel: 0.10}", 1.0, 1.11, "fail"),
        ("latency_ratio_p50", "max_increase: {rel: 0.10}", 1.0, 0.2, "pass"),
        ("throughput_per_s", "max_drop: {rel: 0.10}", 100.0, 90.0, "pass"),
        ("throughput_per_s", "max_drop: {rel: 0.10}", 100.0, 89.0, "fail"),
        ("log/odds", "max_drop: {abs: 0.02}", 0.9, 0.88, "pass"),
        # divided by |baseline|: from -10 to -12 is a drop of 20 %, and from -10 to -8 none
        ("log/odds", "max_drop: {rel: 0.10}", -0.5, -0.6, "fail"),
        ("log/odds", "max_drop: {rel: 0.10}", -0.5, -0.4, "pass"),
        ("log/likelihood", "max_drop: {rel: 0.10}", -10.0, -12.0, "fail"),
        ("log/likelihood", "max_drop: {rel: 0.10}", -10.0, -10.5, "pass"),
        ("log/likelihood", "max_increase: {rel: 0.10}", -10.0, -12.0, "pass"),
    ],
)
def test_a_change_is_limited_in_one_direction(tmp_path, metric, limit, before, now, state):
    run, baseline = (planted({"a": GOOD}, extra={"a": {metric: value}}) for value in (now, before))
    rule = f'{{id: a, match: {{metric: "{metric}", variant: a}}, vs: baseline, {limit}}}'
    found = gate(tmp_path, rule, run, baseline)
    assert states(found) == {"a": state}
    assert found.checks[0].difference == pytest.approx(now - before)


def test_variants_are_compared_within_the_run_and_not_with_themselves(tmp_path):
    rule = '{id: a, match: {variant: "*", metric: accuracy}, vs: "variant:linear", max_drop: {abs: 0.1}, test: paired}'
    found = gate(tmp_path, rule)
    assert states(found) == {
        "linear": "skipped", "ties": "pass", "ties/density=0.1": "pass", "moe": "fail", "arch:soup": "skipped"
    }  # fmt: skip
    assert found.exit_code == 3


def test_a_paired_test_passes_fails_or_is_not_decided_and_then_says_how_many_examples_would(tmp_path):
    run = planted({"same": GOOD, "near": worse(GOOD, 9), "far": worse(GOOD, 60)})
    baseline = planted({"same": GOOD, "near": GOOD, "far": GOOD})
    rule = "{id: a, match: {metric: accuracy}, vs: baseline, max_drop: {abs: 0.02}, test: paired}"
    found = gate(tmp_path, rule, run, baseline)
    assert states(found) == {"same": "pass", "near": "inconclusive", "far": "fail"}
    near = found.checks[1]
    assert near.n == 600
    assert near.needed > 600
    assert f"{near.needed:,} examples would decide" in near.reason
    only_near = gate(tmp_path, rule.replace("{metric", "{variant: near, metric"), run, baseline)
    assert (only_near.outcome, only_near.exit_code) == ("inconclusive", 4)
    assert near.difference == pytest.approx(-9 / 600)


def test_losses_are_tested_the_other_way_round(tmp_path):
    seeds = coins(0.9, seeds=2)
    run, baseline = planted({"a": worse(seeds, 60), "b": seeds}), planted({"a": seeds, "b": worse(seeds, 60)})
    rule = "{id: a, match: {metric: nll}, vs: baseline, max_increase: {abs: 0.02}, test: paired}"
    found = gate(tmp_path, rule, run, baseline)
    assert states(found) == {"a": "fail", "b": "pass"}
    check = found.checks[0]
    assert check.difference_low <= check.difference <= check.difference_high
    assert check.difference == pytest.approx(0.1)


def test_a_task_or_view_is_tested_on_its_own_documents(tmp_path):
    """One of them may fall far while the whole is as good as ever."""
    small = coins(0.8, n=200, seeds=3)
    before = {"accuracy/inverted": small, "bits_per_byte/x": 2 - small, "bleu/x": 5 * small}
    after = {"accuracy/inverted": worse(small, 40), "bits_per_byte/x": 2 - worse(small, 40), "bleu/x": 5 * small}
    seeds = coins(0.9, seeds=3)
    run, baseline = (planted({"a": seeds}, measures={"a": of}) for of in (after, before))
    rule = '{id: %s, match: {metric: "%s"}, vs: baseline, %s: {abs: 0.05}, test: paired}'
    rules = [rule % ("whole", "accuracy", "max_drop"), rule % ("view", "accuracy/inverted", "max_drop"),
             rule % ("bits", "bits_per_byte/x", "max_increase"), rule % ("bleu", "bleu/x", "max_drop")]  # fmt: skip
    found = {check.rule: check for check in gate(tmp_path, rules, run, baseline).checks}
    assert {name: check.state for name, check in found.items()} == {
        "whole": "pass", "view": "fail", "bits": "fail", "bleu": "pass"
    }  # fmt: skip
    assert (found["view"].n, found["whole"].n) == (200, 600)
    expected = stats.non_inferiority(worse(small, 40), small, 0.05)
    assert found["view"].p_not_inferior == pytest.approx(4 * expected.p_not_inferior)
    assert found["view"].difference == pytest.approx(-0.2)
    assert found["bits"].difference_low <= found["bits"].difference == pytest.approx(0.2)


def test_one_seed_of_answers_of_a_task_is_tested_as_answers_are(tmp_path):
    before = coins(0.8, n=100)
    run, baseline = (planted({"a": before}, measures={"a": {"acc/x": of}}) for of in (worse(before, 4), before))
    rule = "{id: %s, match: {metric: %s}, vs: baseline, max_drop: {abs: 0.05}, test: paired}"
    on_task = gate(tmp_path, rule % ("t", "acc/x"), run, baseline).checks[0]
    whole = planted({"a": worse(before, 4)}), planted({"a": before})
    on_all = gate(tmp_path, rule % ("t", "accuracy"), *whole).checks[0]
    assert dataclasses.replace(on_task, metric="", reason="") == dataclasses.replace(on_all, metric="", reason="")
    assert on_task.low == stats.wilson(76, 100).low


def test_pairing_is_by_example_and_not_by_row(tmp_path):
    shuffled = changed(RUN, examples=RUN.examples.sample(frac=1, random_state=0))
    rule = "{id: a, match: {metric: accuracy}, vs: baseline, max_drop: {abs: 0.02}, test: paired}"
    found = gate(tmp_path, rule, shuffled, RUN)
    low = stats.paired_proportions(0, 0, 600, confidence=0.9).high
    assert found.outcome == "pass"
    assert {(c.difference, c.difference_low) for c in found.checks if c.state == "pass"} == {(0.0, -low)}


def test_the_correction_is_over_all_paired_tests_of_the_policy(tmp_path):
    run = planted({f"v{i}": worse(GOOD, 4) for i in range(8)})
    baseline = planted({f"v{i}": GOOD for i in range(8)})
    rule = '{id: %s, match: {variant: "%s", metric: accuracy}, vs: baseline, max_drop: {abs: 0.02}, test: paired}'
    rules = [rule % ("one", "v0"), rule % ("others", "v[1-7]")]
    alone, plain, holm = (
        gate(tmp_path, rules[:1], run, baseline),
        gate(tmp_path, rules, run, baseline, "defaults: {correction: none}"),
        gate(tmp_path, rules, run, baseline),
    )
    assert alone.checks[0].p_inferior == plain.checks[0].p_inferior
    assert holm.checks[0].p_inferior == pytest.approx(8 * plain.checks[0].p_inferior)
    assert (alone.outcome, plain.outcome, holm.outcome) == ("pass", "pass", "inconclusive")


def test_doubt_can_be_let_through_by_the_policy_or_one_rule_and_is_then_a_warning(tmp_path):
    run, baseline = planted({"a": worse(GOOD, 9)}), planted({"a": GOOD})
    rule = "{id: a, match: {metric: accuracy}, vs: baseline, max_drop: {abs: 0.02}, test: paired%s}"
    by_default = gate(tmp_path, rule % "", run, baseline, "defaults: {on_inconclusive: warn}")
    by_rule = gate(tmp_path, rule % ", on_inconclusive: warn", run, baseline)
    against = gate(tmp_path, rule % ", on_inconclusive: fail", run, baseline, "defaults: {on_inconclusive: warn}")
    assert [found.outcome for found in (by_default, by_rule, against)] == ["pass", "pass", "inconclusive"]
    assert by_default.checks[0].state == "warning"


# waivers

FAILING = "{id: floor, match: {variant: moe, metric: accuracy}, min: 0.8}"


@pytest.mark.parametrize("pattern", ["moe", "m*"])
def test_a_waiver_lets_a_failure_through_until_its_day(tmp_path, pattern):
    waiver = f'waivers: [{{rule: floor, variant: "{pattern}", reason: known, expires: 2026-11-25}}]'
    found = gate(tmp_path, FAILING, more=waiver)
    assert (found.checks[0].state, found.outcome) == ("waived", "pass")
    assert "waived until 2026-11-25 (known): accuracy 0.7" in found.checks[0].reason


def test_a_waiver_does_not_cover_missing_evidence(tmp_path):
    waiver = 'waivers: [{rule: floor, variant: "*", reason: known, expires: 2027-01-01}]'
    found = gate(tmp_path, FAILING.replace("moe", "gone"), more=waiver)
    assert (found.checks[0].state, found.outcome) == ("error", "error")


def test_the_worst_of_the_checks_is_the_outcome(tmp_path):
    run, baseline = planted({"near": worse(GOOD, 9), "far": worse(GOOD, 60)}), planted({"near": GOOD, "far": GOOD})
    missing = "{id: m, match: {variant: gone, metric: accuracy}, min: 0.1}"
    failing = "{id: f, match: {variant: far, metric: accuracy}, min: 0.85}"
    doubtful = "{id: d, match: {variant: near, metric: accuracy}, vs: baseline, max_drop: {abs: 0.02}, test: paired}"
    passing = "{id: p, match: {variant: near, metric: accuracy}, min: 0.1}"
    expected = {"error": [passing, doubtful, failing, missing], "fail": [passing, doubtful, failing],
                "inconclusive": [passing, doubtful], "pass": [passing]}  # fmt: skip
    for outcome, rules in expected.items():
        assert gate(tmp_path, rules, run, baseline).outcome == outcome


def test_the_record_is_the_same_on_every_day_but_for_the_day(tmp_path):
    rule = "{id: a, match: {metric: accuracy}, min: 0.5}"
    once, later = gate(tmp_path, rule), gate(tmp_path, rule, today=TODAY.replace(year=2027))
    assert dataclasses.replace(later, date=once.date) == once
