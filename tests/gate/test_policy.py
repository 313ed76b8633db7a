"""Policies are read strictly: every fault is one line with its place, the known words and the nearest of them."""

from datetime import date

import pytest

from harness.errors import BadInput
from harness.gate.policy import read_policy
from harness.results.columns import numbers
from harness.results.evidence import matches

CONTRACT = """version: 1
baseline: {path: results/baselines/main, sha256: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
comparable: [suite_digest, example_ids, dtype, batch_policy]
defaults: {alpha: 0.05, correction: holm, on_missing: error, on_nonfinite: error, on_inconclusive: fail}
rules:
- {id: floor,    match: {variant: "ties/*", metric: accuracy}, min: 0.62, apply_to: ci_low}
- {id: no-drop,  match: {metric: accuracy}, vs: baseline, max_drop: {abs: 0.02}, test: paired}
- {id: soup-vs-ensemble, match: {variant: "uniform_soup", metric: accuracy}, vs: "variant:linear",
   max_drop: {abs: 0.03}, test: paired}
- {id: latency,  match: {metric: latency_ratio_p50}, max_increase: {rel: 0.10}, vs: baseline, same_hardware: require}
- {id: memory,   match: {metric: peak_memory_bytes}, max: 24_000_000_000}
waivers: [{rule: latency, variant: moe/top2, reason: "…", expires: 2027-01-31}]
"""


def read(tmp_path, text):
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    return read_policy(path).file


def test_the_policy_of_the_contract_reads_as_it_is_meant(tmp_path):
    file = read(tmp_path, CONTRACT)
    floor, drop, soup, latency, memory = file.rules
    assert (floor.match.variant, floor.min, floor.apply_to) == ("ties/*", 0.62, "ci_low")
    assert (drop.match.variant, drop.match.seed, drop.bound.abs, drop.sign) == ("*", "all", 0.02, 1)
    assert soup.vs == "variant:linear"
    assert (latency.bound.rel, latency.sign) == (0.1, -1)
    assert memory.max == 24e9
    assert file.waivers[0].expires == date(2027, 1, 31)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("version: 1", "version: 2", 1, ["bad value 2 for 'version'"]),
        ("version: 1\n", "", 1, ["the key 'version' is missing"]),
        ("comparable", "comparible", 3, ["unknown key 'comparible'; did you mean 'comparable'?"]),
        ("dtype", "dtyp", 3, ["bad value 'dtyp' for 'comparable'"]),
        ("alpha: 0.05", "alpha: 0.5", 4, ["bad value 0.5 for 'alpha'"]),
        ("alpha: 0.05", "alpha: .nan", 4, ["not finite"]),
        ("correction: holm", "correction: bonferroni", 4, ["'holm' or 'none'"]),
        ("on_missing: error", "on_missing: pass", 4, ["bad value 'pass' for 'on_missing'"]),
        ("metric: accuracy}, min", "metric: acuracy}, min", 6, ["unknown metric 'acuracy'; did you mean 'accuracy'?"]),
        ("min: 0.62", "min: '0.62'", 6, ["bad value '0.62' for 'min'"]),
        ("min: 0.62", "mim: 0.62", 6, ["unknown key 'mim'; did you mean 'min'?"]),
        ("min: 0.62", "min: 0.62, max: 0.5", 6, ["min 0.62 is above max 0.5"]),
        (", min: 0.62", "", 6, ["min and max, or one of"]),
        ("min: 0.62", "min: 0.62, test: paired", 6, ["'test' belongs to max_drop and max_increase"]),
        ("apply_to: ci_low", "apply_to: low", 6, ["'ci_low'"]),
        ("id: no-drop", "id: floor", 7, ["two rules are called 'floor'"]),
        ("id: no-drop", "id: No drop", 7, ["bad value 'No drop' for 'id'"]),
        (", vs: baseline, max_drop", ", max_drop", 7, ["add vs: baseline"]),
        ("vs: baseline, max_drop", "vs: baselin, max_drop", 7, ["bad value 'baselin' for 'vs'"]),
        ("max_drop: {abs: 0.02}", "max_drop: {abs: 0.02, rel: 0.1}", 7, ["'max_drop' has one of: abs, rel"]),
        ("max_drop: {abs: 0.02}", "max_drop: {}", 7, ["'max_drop' has one of: abs, rel"]),
        ("max_drop: {abs: 0.02}", "max_drop: {abs: -0.02}", 7, ["bad value -0.02 for 'abs'"]),
        ("max_drop: {abs: 0.02}", "max_increase: {abs: 0.02}", 7, ["is better when higher", "max_drop"]),
        ("max_drop: {abs: 0.02}", "max_drop: {abs: 0.02}, apply_to: value", 7, ["'apply_to' belongs to min and max"]),
        ("{metric: accuracy}, vs: baseline", "{metric: ece}, vs: baseline", 7, ["no value for each example"]),
        ("{metric: accuracy}, vs: baseline", "{metric: bits_per_byte/x}, vs: baseline", 7, ["better when lower"]),
        ("max_drop: {abs: 0.03}", "max_increase: {abs: 0.03}", 9, ["better when higher"]),
        ("max_drop: {abs: 0.03}", "max_drop: {abs: 0.03}, same_hardware: require", 9, ["variants of one run"]),
        ("max_increase: {rel", "max_drop: {rel", 10, ["better when lower", "max_increase"]),
        ("max: 24_000_000_000", "max: 24_00", 11, ["bad value '24_00' for 'max'"]),
        ("rule: latency", "rule: latancy", 12, ["unknown rule 'latancy'; did you mean 'latency'?"]),
        ("max_drop: {abs: 0.02}", "max_drop: {abs: 2}", 7, ["'accuracy' lies in 0 .. 1", "limits nothing"]),
        ("max_drop: {abs: 0.02}", "max_drop: {rel: 1}", 7, ["cannot fall by more than all of it"]),
        ("min: 0.62", "max: 93", 6, ["'accuracy' lies in 0 .. 1", "max 93 decides nothing"]),
        ("apply_to: ci_low", "apply_to: ci_high", 6, ["min on ci_high would let doubt pass"]),
        ("2027-01-31", "2027-W05-7", 12, ["'expires'"]),
        ('reason: "…"', 'reason: " "', 12, ["'reason'"]),
        ("2027-01-31", "2027-02-30", 12, ["bad value '2027-02-30' for 'expires'"]),
        ('reason: "…"', 'reason: ""', 12, ["'reason'"]),
        ('"0123456789', '"x123456789', 2, ["'sha256'"]),
    ],
)
def test_a_fault_is_one_line_with_its_place(tmp_path, old, new, line, words):
    assert old in CONTRACT
    with pytest.raises(BadInput) as raised:
        read(tmp_path, CONTRACT.replace(old, new))
    message = str(raised.value)
    assert f"policy.yaml:{line}: " in message
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("text", ["version: 1\nrules: []\n", "version: 1\n", "- 1\n", "", "3"])
def test_a_policy_without_rules_is_none(tmp_path, text):
    with pytest.raises(BadInput, match=r"policy\.yaml:"):
        read(tmp_path, text)


@pytest.mark.parametrize("metric", numbers())
def test_what_another_machine_would_give_otherwise_is_known_by_its_name(metric):
    begins = metric.startswith(("energy", "money", "gpu", "latency", "throughput", "peak", "working"))
    assert numbers()[metric].elsewhere == (begins or metric.endswith("_seconds"))


@pytest.mark.parametrize("name", ["a[0]", "a*", "?"])
def test_a_name_matches_itself(name):
    assert matches(name, name)


def test_measures_of_lm_eval_are_taken_by_their_own_names(tmp_path):
    rule = 'rules: [{id: a, match: {metric: "%s"}, vs: baseline, %s: {abs: 0.1}, test: paired}]'
    for metric, limit in [("acc/sciq", "max_drop"), ("bits_per_byte/x", "max_increase"), ("bleu/x", "max_drop"),
                          ("ter/x", "max_increase"), ("bits_per_byte", "max_increase"), ("its_own/x", "max_drop"),
                          ("its_own/x", "max_increase"), ("exact_match,strict-match/x", "max_drop")]:  # fmt: skip
        assert read(tmp_path, f"version: 1\n{rule % (metric, limit)}\n").rules[0].match.metric == metric
    for metric in ("acc_norm/sciq", "bleu/x", "exact_match,strict-match/x", "accuracy/inverted"):
        with pytest.raises(BadInput, match=f"'{metric}' is better when higher: limit it with max_drop"):
            read(tmp_path, f"version: 1\n{rule % (metric, 'max_increase')}\n")
