"""One rule on one variant: what the results say about it, or why they say nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from harness import stats
from harness.evaluate.decisions import THESE, verdict
from harness.gate.policy import BASELINE, VARIANT, Policy, Rule
from harness.gate.proven import Proven
from harness.gate.record import STATES, Check, State
from harness.results.columns import paired
from harness.results.comparable import differences, hardware_difference
from harness.results.evidence import Missing, NonFinite, Score
from harness.results.run import Run

NEAR_ZERO = 1e-9
"""A relative change is refused from a smaller value, and from one whose interval includes 0."""


class Incomparable(Exception):
    """The two sides of a comparison cannot be compared; the message says why."""


@dataclass(frozen=True)
class Tested:
    """A check whose state waits for the correction over all paired tests."""

    check: Check
    test: stats.NonInferiority
    rule: Rule


class Judge:
    """Applies rules to variants, one at a time."""

    def __init__(self, policy: Policy, run: Run, baseline: Run | None) -> None:
        self.policy, self.run = policy, Proven(run, "run")
        self.baseline = Proven(baseline, "baseline") if baseline else None
        self.faults = differences(run, baseline, policy.file.comparable) if baseline else []
        self.hardware = hardware_difference(run, baseline) if baseline else None

    def variants(self, rule: Rule) -> list[str]:
        """What a rule is about: also what only the baseline has, and the pattern itself where nothing fits it."""
        pattern, seed = rule.match.variant, str(rule.match.seed)
        found = self.run.matching(pattern, seed)
        if rule.vs == BASELINE and self.baseline:
            found += [variant for variant in self.baseline.matching(pattern, seed) if variant not in found]
        return found or [pattern]

    def judge(self, rule: Rule, variant: str) -> Check | Tested:
        seed, metric = str(rule.match.seed), rule.match.metric
        check = Check(rule.id, variant, metric, seed, "error", "")
        try:
            if reason := self._why_skipped(rule, variant, seed):
                return replace(check, state="skipped", reason=reason)
            score = self.run.score(variant, seed, metric)
            check = replace(check, value=score.value, low=_known(score.low), high=_known(score.high),
                            computed=self.run.is_computed(variant, metric))  # fmt: skip
            if rule.verdict or rule.best:
                return self._verdict(rule, check)
            if rule.bound is None:
                return self._limits(rule, check, score)
            return self._change(rule, check, score)
        except Missing as problem:
            return replace(check, state=self._state(rule, "on_missing"), reason=str(problem), missing=True)
        except NonFinite as problem:
            return replace(check, state=self._state(rule, "on_nonfinite"), reason=str(problem), missing=True)
        except Incomparable as problem:
            return replace(check, reason=str(problem))

    def _state(self, rule: Rule, event: Literal["on_missing", "on_nonfinite"]) -> State:
        return "fail" if self.policy.outcome(rule, event) == "fail" else "error"

    def _why_skipped(self, rule: Rule, variant: str, seed: str) -> str | None:
        """Why there is nothing to judge and need not be: the same system, or a method that does not apply."""
        if rule.vs == f"{VARIANT}{variant}":
            return "it is the variant that others are compared with"
        if not self.run.matching(rule.match.variant, seed):
            raise Missing(f"the rule matches no variant of seed {seed}")
        status, reason = self.run.status(variant, seed)
        if status == "ok" and rule.verdict and not rule.best and self.run.is_reference(variant, seed):
            return "it is the reference of its pool"
        if status != "not_applicable":
            return None
        if rule.vs == BASELINE and self.baseline and self.baseline.status(variant, seed)[0] != "not_applicable":
            raise Missing(f"'{variant}' no longer applies: {reason}")
        return f"does not apply: {reason}"

    def _verdict(self, rule: Rule, check: Check) -> Check:
        """verdict and best: what the run's own table says of the variant."""
        said: list[tuple[State, str]] = []
        if rule.verdict:
            said.append(self._word(rule, check, rule.scope or THESE))
        if rule.best:
            among = self.run.may_be_best(check.variant, check.metric)
            words = f"{'may be' if among else 'is shown not to be'} the best by {check.metric}"
            said.append(("pass" if among else "fail", words))
        state: State = min((each for each, _ in said), key=STATES.index)
        return replace(check, state=state, reason="; ".join(words for _, words in said))

    def _word(self, rule: Rule, check: Check, scope: str) -> tuple[State, str]:
        row = self.run.comparison(check.variant, check.seed, check.metric, scope)
        low, high, p, margin = (float(row[name]) for name in ("low_together", "high_together", "p_adjusted", "margin"))
        word = verdict(paired()[check.metric].sign, low, high, p, margin)
        if word != row["verdict"]:
            raise Missing(f"'{check.variant}' is called {row['verdict']}, and its interval says {word}")
        against = f"{row['difference']:+.4g} against {row['against']}"
        reason = f"{word} by {check.metric} ({against}, for the whole table {low:+.4g} .. {high:+.4g}; {scope})"
        accepted = ", ".join(rule.verdict or ())
        if word in (rule.verdict or ()):
            return "pass", reason
        if word == "unclear":
            state: State = "warning" if self.policy.outcome(rule, "on_inconclusive") == "warn" else "inconclusive"
            return state, f"{reason}, not shown to be {accepted}"
        return "fail", f"{reason}, accepted is {accepted}"

    def _limits(self, rule: Rule, check: Check, score: Score) -> Check:
        """min and max, on the value or on an end of its interval."""
        apply_to = rule.apply_to or "value"
        given = {"value": score.value, "ci_low": score.low, "ci_high": score.high}[apply_to]
        if not math.isfinite(given):
            raise Missing(f"{check.metric} of '{check.variant}' has no interval")
        what = f"{check.metric} {given:.6g}" + ("" if apply_to == "value" else f" ({apply_to})")
        if rule.min is not None and given < rule.min:
            return replace(check, state="fail", reason=f"{what} is below {rule.min:g}")
        if rule.max is not None and given > rule.max:
            return replace(check, state="fail", reason=f"{what} is above {rule.max:g}")
        limits = [f"{word} {limit:g}" for word, limit in (("min", rule.min), ("max", rule.max)) if limit is not None]
        return replace(check, state="pass", reason=f"{what} is within {' and '.join(limits)}")

    def _change(self, rule: Rule, check: Check, score: Score) -> Check | Tested:
        """max_drop and max_increase."""
        side, name = self._other_side(rule, check)
        other = side.score(name, check.seed, check.metric)
        limit = self._accepted(rule, other)
        difference = score.value - other.value
        if not math.isfinite(difference):
            raise NonFinite(f"the change of {check.metric} of '{check.variant}' is not a finite number")
        check = replace(check, limit=limit, other=other.value, difference=difference)
        if rule.test:
            return self._paired(rule, check, limit, side, name)
        change = -rule.sign * difference
        within = change <= limit or math.isclose(change, limit, rel_tol=1e-9)
        word = "within" if within else "beyond"
        reason = f"{moved(check)}, {word} the accepted {limit:.4g}"
        return replace(check, state="pass" if within else "fail", reason=reason)

    def _other_side(self, rule: Rule, check: Check) -> tuple[Proven, str]:
        if rule.vs != BASELINE:
            assert rule.vs is not None
            return self.run, rule.vs.removeprefix(VARIANT)
        if self.baseline is None:
            raise Incomparable("there is no baseline to compare with")
        if self.faults:
            raise Incomparable("the baseline is not comparable")
        needs_same = rule.same_hardware or ("require" if rule.column.elsewhere else "ignore")
        if needs_same == "require" and self.hardware:
            raise Incomparable(f"measured on other hardware: {self.hardware}")
        return self.baseline, check.variant

    def _accepted(self, rule: Rule, other: Score) -> float:
        assert rule.bound is not None
        if rule.bound.rel is None:
            assert rule.bound.abs is not None
            return rule.bound.abs
        if abs(other.value) < NEAR_ZERO or other.low <= 0 <= other.high:
            raise Incomparable(f"a relative change from {other.value:.4g}, which is near zero, says nothing: use abs")
        return rule.bound.rel * abs(other.value)

    def _paired(self, rule: Rule, check: Check, limit: float, side: Proven, name: str) -> Tested:
        ours = self.run.outcomes(check.variant, check.seed, check.metric)
        theirs = side.outcomes(name, check.seed, check.metric)
        if not ours.isna().equals(theirs.isna()):  # the same rows and columns, and seeds with the same examples each
            raise Incomparable(f"'{check.variant}' and '{name}' were not scored on the same examples and seeds")
        sign, alpha = rule.sign, self.policy.file.defaults.alpha
        test = stats.non_inferiority(sign * ours.to_numpy(), sign * theirs.to_numpy(), limit, alpha)
        low, high = sorted((sign * test.difference.low, sign * test.difference.high))
        check = replace(check, difference_low=_known(low), difference_high=_known(high), n=test.difference.n)
        return Tested(check, test, rule)


def moved(check: Check) -> str:
    """The change in words."""
    assert check.value is not None
    return f"{check.metric} {check.value:.6g} from {check.other:.6g}: {check.difference:+.4g}"


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
