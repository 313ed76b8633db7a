"""Before a run: whether the suite has enough examples to decide the margins of a policy's paired tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness import stats
from harness.gate.policy import VARIANT, Policy, Rule, matches

DISCORDANCE = 0.10
"""Share of examples on which exactly one of two models is right, as it is assumed before there is a run: on the high
side, so that the examples suffice if two models differ less."""


@dataclass(frozen=True)
class Margin:
    """What a rule asks of the number of examples, at 80 % power for equal models and corrected for all tests."""

    rule: str
    tests: int
    margin: float
    power: float
    """Probability that equal models pass one test with the examples there are."""
    needed: int


def margins(policy: Policy, variants: Sequence[str], examples: int) -> Iterator[Margin]:
    """One ``Margin`` for each paired rule on accuracy; a relative margin is taken of an accuracy of 1.

    Of losses nothing can be said before they were seen. Holm's correction is taken at its most severe.
    """
    paired = [rule for rule in policy.file.rules if rule.test]
    counts = {rule.id: sum(_tests(rule, variant) for variant in variants) for rule in paired}
    defaults = policy.file.defaults
    alpha = defaults.alpha / max(1, sum(counts.values())) if defaults.correction == "holm" else defaults.alpha
    for rule in paired:
        assert rule.bound is not None
        margin = rule.bound.abs if rule.bound.abs is not None else rule.bound.rel
        if rule.match.metric == "accuracy" and margin and counts[rule.id]:
            power = stats.paired_power(examples, margin, DISCORDANCE, alpha=alpha)
            needed = stats.examples_needed(margin, DISCORDANCE, alpha=alpha)
            yield Margin(rule.id, counts[rule.id], margin, power, needed)


def _tests(rule: Rule, variant: str) -> bool:
    return matches(rule.match.variant, variant) and rule.vs != f"{VARIANT}{variant}"
