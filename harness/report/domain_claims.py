"""Claims about experts for domains of text, in bits per byte: fewer bits are better."""

from __future__ import annotations

from harness.report.by_score import margin
from harness.report.claim import Claim, Test, decided, untested
from harness.report.evidence import Evidence
from harness.report.lookup import variants_of
from harness.report.part_claims import composes, dare, gains_at_home, needs, negates, ties
from harness.report.parts import DOMAINS, Parts
from harness.results.evidence import mean_over_seeds


def domain_claims(evidence: Evidence, parts: Parts) -> list[Claim]:
    """The claims that a run on domains of text can test."""
    return [claim(evidence, parts) for claim in (gains_at_home, composes, negates, _anti_expert, ties, dare, _gate)]


def _anti_expert(evidence: Evidence, parts: Parts) -> Claim:
    claim = "base + a (expert - anti-expert) gains the one's domain and loses the other's"
    named = (
        (name, given)
        for name, given, _ in variants_of(evidence, parts.pool, "expert_anti_expert")
        if given["on"] == "base" and isinstance(given["expert"], int) and isinstance(given["anti"], int)
    )
    name, given = next(named, (None, {}))
    if missing := needs(parts, claim, parts.base, name):
        return missing
    assert name is not None
    near, away = parts.home_of(given["expert"]), parts.home_of(given["anti"])
    if near is None or away is None or near == away:
        return untested(claim, "expert and anti-expert have no domains of their own")
    gain, loss = (parts.values(name, d) - parts.values(parts.base, d) for d in (near, away))
    statistic = f"a = {given['a']}: change against the base in {near} minus that in {away}, {DOMAINS.unit}"
    note = f"{near} {mean_over_seeds(gain):+.3f}, {away} {mean_over_seeds(loss):+.3f}"
    return decided(claim, statistic, gain - loss, Test(-1), DOMAINS.unit, note)


def _gate(evidence: Evidence, parts: Parts) -> Claim:
    claim = "A token-wise gate beats constant weights"
    gated, constant = "linear/weights=contextual", "linear/weights=learned"
    if missing := needs(parts, claim, gated, constant):
        return missing
    alike = margin(DOMAINS.unit, mean_over_seeds(parts.mean(constant)))
    statistic = f"{gated} minus {constant}, mean over the domains, {DOMAINS.unit}"
    difference = parts.mean(gated) - parts.mean(constant)
    return decided(claim, statistic, difference, Test(-1, alike=alike), DOMAINS.unit)
