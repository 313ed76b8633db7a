"""What a policy asks of the number of examples, before a run."""

import pytest

from harness import stats
from harness.gate.margins import margins
from tests.gate.planted import policy

RULE = "{id: %s, match: {variant: '%s', metric: %s}, vs: %s, %s, test: paired}"
VARIANTS = ["linear", "ties", "ties/density=0.1", "moe"]


def test_a_rule_on_one_variant_needs_what_one_test_needs(tmp_path):
    found = list(margins(policy(tmp_path, RULE % ("a", "moe", "accuracy", "baseline", "max_drop: {abs: 0.02}")),
                         VARIANTS, 1000))  # fmt: skip
    assert [(m.rule, m.tests, m.margin, m.needed) for m in found] == [("a", 1, 0.02, 1542)]
    assert found[0].power == pytest.approx(stats.paired_power(1000, 0.02, 0.1))


def test_more_tests_need_more_examples_unless_they_are_not_corrected(tmp_path):
    rules = [RULE % ("a", "moe", "accuracy", "baseline", "max_drop: {abs: 0.02}"),
             RULE % ("b", "*", "accuracy", "variant:linear", "max_drop: {rel: 0.01}"),
             RULE % ("c", "*", "nll", "baseline", "max_increase: {abs: 0.1}"),
             RULE % ("d", "moe", "accuracy", "baseline", "max_drop: {abs: 0}"),
             RULE % ("e", "gone", "accuracy", "baseline", "max_drop: {abs: 0.02}")]  # fmt: skip
    corrected = list(margins(policy(tmp_path, rules), VARIANTS, 1000))
    assert [(m.rule, m.tests, m.margin) for m in corrected] == [("a", 1, 0.02), ("b", 3, 0.01)]
    assert corrected[0].needed == stats.examples_needed(0.02, 0.1, alpha=0.05 / 9)  # 1 + 3 + 4 + 1 tests
    plain = list(margins(policy(tmp_path, rules, "defaults: {correction: none}"), VARIANTS, 1000))
    assert plain[0].needed == 1542
    assert plain[0].power > corrected[0].power
