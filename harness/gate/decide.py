"""The decision: a policy, a run and its baseline in, a gate out. Whatever is in doubt never passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import Any

from harness import stats
from harness.gate.judge import Judge, Tested, moved
from harness.gate.policy import Policy, Rule, Waiver
from harness.gate.record import SCHEMA_VERSION, Check, Gate, State, outcome_of
from harness.results.comparable import run_faults
from harness.results.evidence import matches
from harness.results.recorded import field_faults
from harness.results.run import Run


def decide(
    policy: Policy,
    run: Run,
    baseline: Run | None,
    *,
    today: date,
    baseline_sha256: str | None = None,
    problems: Sequence[str] = (),
    remarks: Sequence[str] = (),
) -> Gate:
    """Judge a run.

    A paired test passes where the change is shown to be within its limit, fails where it is shown to be beyond it, and
    is inconclusive otherwise (``stats.non_inferiority``). Holm's correction is over the paired tests of the policy,
    once for the claims that pass and once for those that fail.

    Args:
        policy: as read.
        run: the candidate.
        baseline: what rules with ``vs: baseline`` compare with; None where there is none to be had.
        today: the day on which waivers expire.
        baseline_sha256: of the baseline's files, to be recorded.
        problems: what went wrong before, such as a baseline that is not the one that was reviewed.
        remarks: what is to be said of the outcome, whatever it is.
    """
    faults = [*problems, *run_faults(run)]
    found: list[Check | Tested] = []
    if not any(field_faults(run.record)):  # of a run that does not say what it is, nothing can be judged
        judge = Judge(policy, run, baseline)
        found = [judge.judge(rule, variant) for rule in policy.file.rules for variant in judge.variants(rule)]
        faults += judge.faults
    checks = _waive(policy.file.waivers, _corrected(policy, found), today)
    checks = [*checks, *_judged_nothing(policy.file.rules, checks)]
    faults += _bad_waivers(policy.file.waivers, checks, today)
    return Gate(
        schema_version=SCHEMA_VERSION,
        outcome=outcome_of(faults, checks),
        date=today.isoformat(),
        run=_described(run),
        policy={"path": policy.path, "sha256": policy.sha256},
        baseline=_described(baseline) | {"sha256": baseline_sha256} if baseline else None,
        problems=faults,
        checks=checks,
        remarks=list(remarks),
    )


def _corrected(policy: Policy, found: Sequence[Check | Tested]) -> list[Check]:
    """The checks, those of paired tests decided after the correction."""
    defaults = policy.file.defaults
    tests = [item for item in found if isinstance(item, Tested)]
    correct = stats.holm if defaults.correction == "holm" else list
    inferior = correct([item.test.p_inferior for item in tests])
    not_inferior = correct([item.test.p_not_inferior for item in tests])
    per_test = defaults.alpha / max(1, len(tests)) if defaults.correction == "holm" else defaults.alpha
    decided = iter(
        _decided(item, p, q, defaults.alpha, per_test, policy.outcome(item.rule, "on_inconclusive"))
        for item, p, q in zip(tests, inferior, not_inferior, strict=True)
    )
    return [next(decided) if isinstance(item, Tested) else item for item in found]


def _decided(item: Tested, p: float, q: float, alpha: float, per_test: float, on_inconclusive: str) -> Check:
    check = replace(item.check, p_inferior=p, p_not_inferior=q)
    verdict = stats.non_inferiority_verdict(p, q, alpha)
    bounds = f"{check.difference_low:+.4g} .. {check.difference_high:+.4g}" if check.difference_low is not None else "?"
    change = f"{moved(check)} ({bounds}, n = {check.n})"
    if verdict != "inconclusive":
        word = "within" if verdict == "pass" else "beyond"
        return replace(check, state=verdict, reason=f"{change}, {word} the accepted {check.limit:.4g}")
    needed = item.test.needed(per_test)
    if needed is not None and check.n is not None:
        needed = max(needed, check.n + 1)  # the score test and its forecast differ by a hair
    more = f"about {needed:,} examples would decide" if needed else "more examples would not decide"
    reason = f"{change}, not decided against the accepted {check.limit:.4g} (p = {min(p, q):.2g}): {more}"
    state: State = "warning" if on_inconclusive == "warn" else "inconclusive"
    return replace(check, state=state, reason=reason, needed=needed)


def _waive(waivers: Sequence[Waiver], checks: Sequence[Check], today: date) -> list[Check]:
    """The checks, those that failed or were inconclusive waived where a waiver holds; missing evidence cannot be."""
    result = []
    for check in checks:
        waiver = next((w for w in waivers if _covers(w, check) and w.expires >= today), None)
        if waiver and check.state in ("fail", "inconclusive") and not check.missing:
            reason = f"waived until {waiver.expires.isoformat()} ({waiver.reason}): {check.reason}"
            check = replace(check, state="waived", reason=reason)
        result.append(check)
    return result


def _covers(waiver: Waiver, check: Check) -> bool:
    return waiver.rule == check.rule and matches(waiver.variant, check.variant)


def _bad_waivers(waivers: Sequence[Waiver], checks: Sequence[Check], today: date) -> list[str]:
    """A line for each waiver that has expired or covers nothing."""
    lines = []
    for waiver in waivers:
        name = f"the waiver of '{waiver.rule}' for '{waiver.variant}'"
        if waiver.expires < today:
            lines.append(f"{name} expired on {waiver.expires.isoformat()}: remove or renew it")
        elif not any(_covers(waiver, check) for check in checks):
            lines.append(f"{name} matches nothing")
    return lines


def _judged_nothing(rules: Sequence[Rule], checks: Sequence[Check]) -> list[Check]:
    """An error for each rule that looked at variants and had nothing to judge in any of them."""
    return [
        Check(rule.id, rule.match.variant, rule.match.metric, str(rule.match.seed), "error", "nothing was judged")
        for rule in rules
        if all(check.state == "skipped" for check in checks if check.rule == rule.id)
    ]


def _described(run: Run) -> dict[str, Any]:
    record = run.record
    suite = record.get("suite", {})
    known = {key: record.get(key) for key in ("run_id", "git_commit", "started", "seeds")}
    return {"folder": str(run.folder), "suite": suite.get("name"), "suite_digest": suite.get("digest"), **known}
