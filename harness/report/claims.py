"""The claims table: what the theory says, tested on this run alone; each claim is held, not held, or undecided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from harness import stats
from harness.display.formats import number, points
from harness.report.claim import Claim, judged, untested
from harness.report.domain_claims import domain_claims
from harness.report.evidence import DRAWS, Evidence, over_seeds
from harness.report.parts import DOMAINS, parts_of
from harness.report.view_claims import view_claims
from harness.results.evidence import mean_over_seeds


def claims(evidence: Evidence) -> list[Claim]:
    """Every claim that the design names: those about task vectors as the suite's pool lets them be tested."""
    of_task_vectors = [
        claim
        for parts in parts_of(evidence.run)
        for claim in (domain_claims if parts.kind is DOMAINS else view_claims)(evidence, parts)
    ]
    return [*(claim(evidence) for claim in CLAIMS), *(of_task_vectors or [claim(evidence) for claim in ONE_TASK])]


def as_json(found: list[Claim]) -> list[dict[str, Any]]:
    """The claims as JSON values."""
    return [asdict(claim) for claim in found]


def _lacks(evidence: Evidence, *names: str) -> str | None:
    missing = [name for name in names if not evidence.has(name)]
    return f"needs results of {', '.join(missing)}" if missing else None


NO_MEMBERS = "needs the variant 'member' for every member of the main pool"


def _beats_mean_member(evidence: Evidence) -> Claim:
    claim = "An ensemble beats its mean member"
    if why := _lacks(evidence, "linear") or (None if evidence.members else NO_MEMBERS):
        return untested(claim, why)
    gain = over_seeds(evidence.correct("linear") - evidence.mean_member())
    return judged(claim, "accuracy of linear minus the members' mean, points", gain)


def _errors_differ(evidence: Evidence) -> Claim:
    claim = "The members' errors are not fully correlated"
    if not evidence.members:
        return untested(claim, NO_MEMBERS)
    right = np.stack([evidence.correct(name) for name in evidence.members])  # [M, seeds, examples]
    share = right.mean(axis=0)
    count = len(right)
    discordant = 2 * share * (1 - share) * count / (count - 1) if count > 1 else 0 * share
    error = 100 * mean_over_seeds(1 - share)
    note = f"a member errs on {error:.2f} % of examples on average; independent errors would give near twice that"
    statistic = "share of examples on which just one of two members is right, mean over pairs, points"
    return judged(claim, statistic, over_seeds(discordant), note=note)


def _or_and(evidence: Evidence) -> Claim:
    claim = "Linear acts as OR, log-linear as AND"
    if why := _lacks(evidence, "linear", "log_linear") or (None if evidence.members else NO_MEMBERS):
        return untested(claim, why)
    label_probs = np.exp(-np.stack([evidence.values(name, "nll") for name in evidence.members]).astype(np.float64))
    conflict = (label_probs.min(axis=0) < 0.01) & (label_probs.max(axis=0) > 0.5)
    if conflict.sum() < 10:
        return untested(claim, f"only {int(conflict.sum())} examples on which one member believes and another vetoes")
    kept = np.exp(-evidence.values("linear", "nll")) - np.exp(-evidence.values("log_linear", "nll"))
    chosen = kept[conflict].astype(np.float64)
    interval = stats.bootstrap_mean(chosen, stats.resample_counts(len(chosen), DRAWS))
    statistic = "probability of the label under linear minus log-linear where one member gives > 0.5 and another < 0.01"
    return judged(claim, statistic, interval, unit="probability")


def _tracks(evidence: Evidence) -> Claim:
    claim = "Averaging tracks ensembling where members share a start"
    for found in evidence.run.correlations:
        if found["pool"] == "main" and found["metric"] == "nll" and found["seed"] == "all":
            r = found["pearson"]
            if r["value"] is None or r["low"] is None:
                return untested(claim, "too few members for an interval")
            interval = stats.Interval(r["value"], r["low"], r["high"], found["n"])
            note = f"{found['n']} subsets of {found['members']} members, left out in turn for the interval"
            return judged(claim, "Pearson r of ensemble and average NLL over subsets", interval, unit="r", note=note)
    return untested(claim, "the suite has no study of the main pool")


def _needs_start(evidence: Evidence) -> Claim:
    claim = "Averaging needs a shared start"
    names = ("linear", "uniform_soup", "independent:linear", "independent:uniform_soup")
    if why := _lacks(evidence, *names):
        return untested(claim, why)
    together, apart = (
        evidence.correct(f"{pool}uniform_soup") - evidence.correct(f"{pool}linear") for pool in ("", "independent:")
    )
    difference = over_seeds(apart - together)
    statistic = "(soup minus ensemble) of independent starts minus the same of the shared start, points"
    return judged(claim, statistic, difference, wanted=-1)


def _aligns(evidence: Evidence) -> Claim:
    claim = "Alignment lowers the loss barrier"
    seeds = [str(seed) for seed in evidence.run.record["seeds"]]
    barriers = {
        name: [details[seed]["barrier"] for seed in seeds]
        for name, details in sorted(evidence.run.details.items())
        if name in evidence.by_name and all("barrier" in details.get(seed, {}) for seed in seeds)
    }
    if not barriers:
        return untested(claim, "needs results of align_average with two members")
    apart = [name for name in barriers if evidence.by_name[name]["pool"] == "independent"]
    name = (apart or list(barriers))[0]
    falls = np.array([barrier["before"] - barrier["after"] for barrier in barriers[name]])
    before = np.mean([barrier["before"] for barrier in barriers[name]])
    note = f"{name}: the barrier is {number(before)} before and {number(before - falls.mean())} after, mean over seeds"
    alone = len(falls) == 1  # seeds are all that varies here, and one of them shows no variance
    interval = stats.Interval(falls[0], np.nan, np.nan, 1) if alone else stats.crossed_mean(falls[None]).interval()
    statistic = "held-out NLL barrier between the two best members, before minus after, nats, over seeds"
    return judged(claim, statistic, interval, unit="nats", note=note)


def _negates(evidence: Evidence) -> Claim:
    claim = "Negated task vectors lose the skill"
    names = [n for n in evidence.by_name if n.startswith("task_arithmetic/") and "coefficients=negate" in n]
    reference = evidence.run.record["reference"]["variant"]
    if not names or not evidence.has(names[0], reference):
        return untested(claim, "the suite has no task_arithmetic with coefficients: negate")
    difference = evidence.difference(names[0], reference)
    note = "what else is lost with it needs a control task, which this suite does not have"
    return judged(claim, f"accuracy of {names[0]} minus {reference}, points", difference, wanted=-1, note=note)


def _composes(evidence: Evidence) -> Claim:
    claim = "Added task vectors compose"
    if why := _lacks(evidence, "task_arithmetic") or (None if evidence.members else NO_MEMBERS):
        return untested(claim, why)
    difference = over_seeds(evidence.correct("task_arithmetic") - evidence.mean_member())
    note = "all members were tuned on the same task, so this says that their sum does no harm, and no more"
    return judged(claim, "accuracy of task_arithmetic minus the members' mean, points", difference, note=note)


def _ties(evidence: Evidence) -> Claim:
    return untested(
        "TIES beats plain addition under conflict", "the members of this suite do not conflict: they share one task"
    )


def _student(evidence: Evidence) -> Claim:
    claim = "A student keeps most of the ensemble's gain"
    if why := _lacks(evidence, "linear", "distill") or (None if evidence.members else NO_MEMBERS):
        return untested(claim, why)
    single, ensemble, student = evidence.mean_member(), evidence.correct("linear"), evidence.correct("distill")
    gain = over_seeds(ensemble - single)
    half = over_seeds(student - (single + ensemble) / 2)
    statistic = "student minus the middle between mean member and ensemble, points"
    if gain.low <= 0:
        note = "the ensemble's own gain is not certain"
        return Claim(claim, statistic, half.value, half.low, half.high, half.n, "undecided", note=note)
    note = f"the ensemble gains {points(gain.value)} points on its mean member"
    return judged(claim, statistic, half, note=note)


def _sparse(evidence: Evidence) -> Claim:
    claim = "Sparse experts cost less than dense ones, at no loss"
    if why := _lacks(evidence, "moe", "moe/routing=dense"):
        return untested(claim, why)
    sparse, dense = (evidence.by_name[name] for name in ("moe", "moe/routing=dense"))
    difference = evidence.difference("moe", "moe/routing=dense")
    share = sparse["flops_per_example"] / dense["flops_per_example"]
    cheaper = share < 1
    verdict = "not held" if not cheaper or difference.high < 0 else "held" if difference.low > -0.01 else "undecided"
    note = f"sparse runs {share:.2f} times the FLOPs of dense; held if it is cheaper and loses less than 1 point"
    statistic = "accuracy of sparse minus dense, points"
    return Claim(claim, statistic, difference.value, difference.low, difference.high, difference.n, verdict, note=note)


CLAIMS: tuple[Callable[[Evidence], Claim], ...] = (
    _beats_mean_member,
    _errors_differ,
    _or_and,
    _tracks,
    _needs_start,
    _aligns,
    _student,
    _sparse,
)

ONE_TASK: tuple[Callable[[Evidence], Claim], ...] = (_composes, _negates, _ties)
"""Where all members were tuned on the same task."""
