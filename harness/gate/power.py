"""Whether a suite has enough examples to decide the margins of a policy, said before it is run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness import stats
from harness.display.formats import percent
from harness.gate.policy import BASELINE, VARIANT, Policy, Rule
from harness.results.columns import ALL_SEEDS
from harness.results.evidence import Evidence, Missing, NonFinite, matches
from harness.results.metric import DOCUMENTS
from harness.results.run import Run
from harness.stats.decisions import FEWEST_ITEMS

POWER = 0.8
DISCORDANCE = 0.10
"""The share of examples that exactly one of two models gets right, where no earlier run says otherwise."""

State = Literal["enough", "too few", "unknown", "no test", "matches nothing"]


@dataclass(frozen=True)
class RulePower:
    """What one rule asks of the number of examples; of several variants, the test that needs most."""

    rule: str
    state: State
    """unknown: nothing says how much examples differ. no test: a value is judged, however many examples it is of."""
    note: str
    """The variant it is about and what was assumed, or why that is not known."""
    tests: int = 0
    """Variants that the rule is a paired test of."""
    metric: str = ""
    margin: float | None = None
    has: int | None = None
    """Examples that the metric is a mean of; of one task or view only an earlier run says how many."""
    needed: int | None = None
    """Examples with which two equal models pass with probability .8, at the level that correction leaves one test."""
    power: float | None = None
    """Of the same with the examples that there are."""
    lacking: int = 0


@dataclass(frozen=True)
class _Test:
    variant: str
    note: str
    margin: float | None = None
    has: int | None = None
    needed: int | None = None
    power: float | None = None


def rule_powers(
    policy: Policy, variants: Sequence[str], examples: int, earlier: Run | None = None, seeds: Sequence[int] = (0,)
) -> list[RulePower]:
    """For each rule of a policy, whether this many examples can decide it.

    One seed is assumed: more of them decide sooner, where the seeds agree.

    Args:
        policy: as read.
        variants: the names that the suite will run.
        examples: how many it scores.
        earlier: a run that says how much the models differ from example to example, and what relative margins are
            relative to; without it 10 % of the answers are taken to differ.
        seeds: that the suite runs.
    """
    rules = policy.file.rules
    tested = {rule.id: [v for v in variants if _is_tested(rule, v)] for rule in rules}
    defaults = policy.file.defaults
    tests = sum(map(len, tested.values())) if defaults.correction == "holm" else 1
    evidence = Evidence(earlier, "earlier run") if earlier else None
    alpha = defaults.alpha / max(1, tests)  # Holm's first step, the strictest
    return [
        RulePower(rule.id, "matches nothing", nothing)
        if (nothing := _no_match(rule, variants, seeds))
        else _of_rule(rule, tested[rule.id], examples, evidence, alpha)
        for rule in rules
    ]


def _no_match(rule: Rule, variants: Sequence[str], seeds: Sequence[int]) -> str | None:
    """What a rule is about that the suite does not have."""
    if not any(matches(rule.match.variant, variant) for variant in variants):
        return f"the suite has no variant '{rule.match.variant}'"
    other = str(rule.vs or BASELINE).removeprefix(VARIANT)
    if other != BASELINE and other not in variants:
        return f"the suite has no variant '{other}' to compare with"
    return None if rule.match.seed in (ALL_SEEDS, *seeds) else f"the suite has no seed {rule.match.seed}"


def _is_tested(rule: Rule, variant: str) -> bool:
    return rule.test is not None and matches(rule.match.variant, variant) and rule.vs != f"{VARIANT}{variant}"


def _of_rule(
    rule: Rule, tested: Sequence[str], examples: int, evidence: Evidence | None, alpha: float
) -> RulePower:
    if not tested:
        return RulePower(rule.id, "no test", "the value is judged as it is")
    hardest = max((_test(rule, variant, examples, evidence, alpha) for variant in tested), key=_difficulty)
    found = RulePower(rule.id, "unknown", f"{hardest.variant}: {hardest.note}", len(tested), rule.match.metric,
                      hardest.margin, hardest.has, hardest.needed, hardest.power)  # fmt: skip
    if hardest.needed is None or hardest.has is None:
        return found
    lacking = max(0, hardest.needed - hardest.has)
    return RulePower(**{**vars(found), "state": "too few" if lacking else "enough", "lacking": lacking})


def _difficulty(test: _Test) -> float:
    return math.inf if test.needed is None else test.needed


def _test(rule: Rule, variant: str, examples: int, evidence: Evidence | None, alpha: float) -> _Test:
    metric = rule.match.metric
    other = variant if rule.vs == BASELINE else str(rule.vs).removeprefix(VARIANT)
    differences, of_answers = _differences(evidence, variant, other, metric)
    has: int | None = examples
    if rule.column.outcome in (None, DOCUMENTS):
        has = None if differences is None else differences.shape[1]
    margin = _margin(rule, other, evidence)
    if margin is None:
        return _Test(variant, "the margin is relative to a score that no earlier run gives (--from RUN)", None, has)
    if margin == 0:
        return _Test(variant, "a margin of 0 cannot be shown, however many examples there are", margin, has)
    source = "between the seeds of" if other == variant else "in"
    if differences is None and rule.column.outcome != "correct":
        return _Test(variant, f"how much {metric} differs by example is not known (--from RUN)", margin, has)
    if differences is not None and has is not None and not of_answers:
        gaps = np.isnan(differences).any()
        spread = float(np.sqrt((np.nanvar if gaps else np.var)(differences, axis=1).mean()))
        note = f"standard deviation {spread:.3g} {source} the earlier run"
        return _Test(variant, note, margin, has, *_of_losses(spread, margin, has, alpha))
    share, words = DISCORDANCE, "assumed"
    if differences is not None:
        differ = differences[~np.isnan(differences)] != 0
        share = max(float(differ.mean()), 3 / differences.shape[1])  # none seen: the rule of three
        words = f"{source} the earlier run"
    assert has is not None
    needed = stats.examples_needed(margin, share, alpha=alpha, power=POWER)
    power = stats.paired_power(has, margin, share, alpha=alpha)
    return _Test(variant, f"{percent(share, 1)} discordant, {words}", margin, has, needed, power)


def _of_losses(spread: float, margin: float, examples: int, alpha: float) -> tuple[int, float]:
    """Examples needed, and the power of those there are: the one-sided t test of differences with this deviation.

    The gate tests the losses of one seed so, and decides nothing from fewer than ``FEWEST_ITEMS``.
    """
    from statsmodels.stats.power import TTestPower

    test = TTestPower()
    effect = margin / spread if spread else math.inf

    def power(items: int) -> float:
        if items < FEWEST_ITEMS:
            return 0.0
        return float(test.power(effect, items, alpha, alternative="larger")) if spread else 1.0

    if power(FEWEST_ITEMS) >= POWER:
        return FEWEST_ITEMS, power(examples)
    needed = test.solve_power(effect_size=effect, alpha=alpha, power=POWER, alternative="larger")
    return math.ceil(needed), power(examples)


def _margin(rule: Rule, other: str, evidence: Evidence | None) -> float | None:
    assert rule.bound is not None
    if rule.bound.abs is not None:
        return rule.bound.abs
    assert rule.bound.rel is not None
    if evidence is None:
        return None
    try:
        return rule.bound.rel * abs(evidence.score(other, str(rule.match.seed), rule.match.metric).value)
    except (Missing, NonFinite):
        return None


def _differences(
    evidence: Evidence | None, variant: str, other: str, metric: str
) -> tuple[np.ndarray | None, bool]:
    """How two variants differ, and whether the metric is a share of right answers: every value is 0 or 1.

    Differences by example [pairs, N], one pair for each seed; of a variant with itself, all pairs of its seeds, since
    retraining is the change that a new release is likely to be at least: NaN where a pair does not share an example.
    None where no earlier run gives them.
    """
    if evidence is None:
        return None, False
    try:
        ours = evidence.outcomes(variant, ALL_SEEDS, metric)
        theirs = evidence.outcomes(other, ALL_SEEDS, metric)
    except (Missing, NonFinite):
        return None, False
    values, others = ours.to_numpy(np.float64), theirs.to_numpy(np.float64)
    of_answers = bool(all(np.isin(each[~np.isnan(each)], (0, 1)).all() for each in (values, others)))
    if variant != other:
        return values - others if list(ours.columns) == list(theirs.columns) else None, of_answers
    pairs = [one - another for one, another in itertools.combinations(values, 2)]
    pairs = [pair for pair in pairs if not np.isnan(pair).all()]  # seeds may have no example in common
    return np.stack(pairs) if pairs else None, of_answers
