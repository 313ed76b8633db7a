"""Claims about members that were each trained on a part of the task, and about the sums of their task vectors.

All are changes against the base or between two variants, paired by document: passages of text, or examples, which
all views have in common. The i-th passages of the domains are drawn together: they are independent, so that any pairing
has the same variance.
"""

from __future__ import annotations

import numpy as np

from harness.display.formats import number
from harness.report.by_score import margin
from harness.report.claim import Claim, Test, decided, untested
from harness.report.evidence import Evidence
from harness.report.lookup import variants_of
from harness.report.parts import Parts
from harness.results.evidence import mean_over_seeds


def home_minus_abroad(parts: Parts, name: str, home: str) -> np.ndarray:
    """How a variant differs from the base at home, minus the mean of how it does elsewhere [seeds, documents]."""
    change = {part: parts.values(name, part) - parts.values(parts.base, part) for part in parts.names}
    return change[home] - np.mean([value for part, value in change.items() if part != home], axis=0)


def needs(parts: Parts, claim: str, *names: str | None) -> Claim | None:
    """The claim as not tested where a variant that it needs is missing or has no scores by part."""
    missing = [name or "a fitting variant" for name in names if name is None or not parts.measured(name)]
    return untested(claim, f"needs results of {', '.join(missing)}") if missing else None


def gains_at_home(evidence: Evidence, parts: Parts) -> Claim:
    """Whether specialists are specialists."""
    what, unit = parts.kind.part, parts.kind.unit
    claim = f"A {what}'s expert gains at home and loses abroad"
    count = evidence.run.record["pools"][parts.pool]["members"]
    homes = {parts.variant(f"member/index={i}"): parts.home_of(i) for i in range(count)}
    experts = {name: place for name, place in homes.items() if place and parts.measured(name)}
    if missing := needs(parts, claim, parts.base, *(experts or [None])):
        return missing
    difference = np.mean([home_minus_abroad(parts, n, p) for n, p in experts.items()], axis=0)
    statistic = f"change against the base at home minus abroad, mean of {len(experts)} experts, {unit}"
    own = np.mean([mean_over_seeds(parts.values(name, place)) for name, place in experts.items()])
    every = np.mean([mean_over_seeds(parts.mean(name)) for name in experts])
    note = f"the experts' mean score is {number(own)} at home and {number(every)} over all {what}s"
    return decided(claim, statistic, difference, Test(parts.kind.better), unit, note=note)


def composes(evidence: Evidence, parts: Parts) -> Claim:
    """Whether a sum of task vectors is better than the base in every part."""
    what, unit, better = parts.kind.part, parts.kind.unit, parts.kind.better
    claim = f"Added task vectors compose: one model for all {what}s"
    name = _sum(evidence, parts, "task_arithmetic", subsets=True)
    if missing := needs(parts, claim, parts.base, name):
        return missing
    assert name is not None
    change = {part: parts.values(name, part) - parts.values(parts.base, part) for part in parts.names}
    worst = min(parts.names, key=lambda part: better * mean_over_seeds(change[part]))
    statistic = f"{name} minus the base in the {what} where it gains least ({worst}), {unit}"
    note = "the scale was chosen on held-out"
    return decided(claim, statistic, change[worst], Test(better), unit, note=note)


def negates(evidence: Evidence, parts: Parts) -> Claim:
    """Whether a negation loses what it is meant to lose, and the other parts, its controls, less."""
    what, unit = parts.kind.part, parts.kind.unit
    claim = f"A negated task vector loses its {what} more than the others"
    negated = {
        name: place
        for name, given, positions in variants_of(evidence, parts.pool, "task_arithmetic")
        if given["coefficients"] == "negate" and positions and len(positions) == 1
        and (place := parts.home_of(positions[0]))
    }  # fmt: skip
    if missing := needs(parts, claim, parts.base, *(negated or [None])):
        return missing
    difference = np.mean([home_minus_abroad(parts, n, p) for n, p in negated.items()], axis=0)
    homes, loss = ", ".join(sorted(negated.values())), "rise" if parts.kind.better < 0 else "change"
    statistic = f"{loss} against the base in the negated {what} minus the others' (controls): {homes}; {unit}"
    return decided(claim, statistic, difference, Test(-parts.kind.better), unit)


def ties(evidence: Evidence, parts: Parts) -> Claim:
    """Whether TIES beats a plain sum, each at its best scale."""
    return _against_addition(evidence, parts, "TIES beats plain addition under conflict", "ties")


def dare(evidence: Evidence, parts: Parts) -> Claim:
    """Whether DARE beats a plain sum, each at its best scale."""
    return _against_addition(evidence, parts, "DARE beats plain addition under conflict", "dare")


def ties_unscaled(evidence: Evidence, parts: Parts) -> Claim:
    """Whether TIES as in its paper, without a search, beats a plain sum at its best scale."""
    claim = "TIES at its paper's scale of 1 beats plain addition under conflict"
    return _against_addition(evidence, parts, claim, "ties", scale=1.0)


def _against_addition(
    evidence: Evidence, parts: Parts, claim: str, method: str, scale: str | float = "heldout"
) -> Claim:
    plain, other = _sum(evidence, parts, "task_arithmetic"), _sum(evidence, parts, method, scale)
    if missing := needs(parts, claim, plain, other):
        return missing
    assert plain is not None
    assert other is not None
    what, unit = parts.kind.part, parts.kind.unit
    difference = parts.mean(other) - parts.mean(plain)
    statistic = f"{other} minus {plain}, mean over the {what}s, {unit}"
    note = f"{'both scales were' if scale == 'heldout' else 'the scale of the sum was'} chosen on held-out"
    densities = [of_seed["density"] for of_seed in evidence.run.details.get(other, {}).values() if "density" in of_seed]
    if densities:
        note += f", as was the share of each task vector that is kept: {min(densities):g} to {max(densities):g}"
    alike = margin(unit, mean_over_seeds(parts.mean(plain)))
    return decided(claim, statistic, difference, Test(parts.kind.better, alike=alike), unit, note=note)


def _sum(
    evidence: Evidence, parts: Parts, method: str, scale: str | float = "heldout", *, subsets: bool = False
) -> str | None:
    """The first of the pool's variants of a method that adds all members (or some of them) at this scale.

    One whose density was chosen on held-out comes before those of given densities.
    """
    found = [
        (given.get("density") != "heldout", name)
        for name, given, positions in variants_of(evidence, parts.pool, method)
        if given["scale"] == scale and given.get("coefficients", "add") == "add" and (subsets or positions is None)
    ]
    return min(found, key=lambda pair: pair[0])[1] if found else None
