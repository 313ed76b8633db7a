"""Claims about experts for domains of text, in bits per byte: fewer bits are better."""

from __future__ import annotations

from harness.report.claim import Claim, judged, untested
from harness.report.evidence import Evidence, over_seeds
from harness.report.part_claims import composes, dare, gains_at_home, needs, negates, ties, variants_of
from harness.report.parts import DOMAINS, Parts


def domain_claims(evidence: Evidence, parts: Parts) -> list[Claim]:
    """The claims that a run on domains of text can test."""
    return [claim(evidence, parts) for claim in (gains_at_home, composes, negates, _anti_expert, ties, dare, _gate)]


def _anti_expert(evidence: Evidence, parts: Parts) -> Claim:
    claim = "base + a (expert - anti-expert) gains the one's domain and loses the other's"
    chosen = next(
        (
            given
            for given, _ in variants_of(evidence, parts, "expert_anti_expert")
            if given["on"] == "base" and isinstance(given["expert"], int) and isinstance(given["anti"], int)
        ),
        None,
    )
    name = chosen["variant"] if chosen else None
    if missing := needs(parts, claim, parts.base, name):
        return missing
    assert chosen is not None
    near, away = parts.home_of(chosen["expert"]), parts.home_of(chosen["anti"])
    if near is None or away is None or near == away:
        return untested(claim, "expert and anti-expert have no domains of their own")
    gain, loss = (parts.values(chosen["variant"], d) - parts.values(parts.base, d) for d in (near, away))
    statistic = f"a = {chosen['a']}: change against the base in {near} minus that in {away}, {DOMAINS.unit}"
    note = f"{near} {over_seeds(gain).value:+.3f}, {away} {over_seeds(loss).value:+.3f}"
    return judged(claim, statistic, over_seeds(gain - loss), wanted=-1, unit=DOMAINS.unit, note=note)


def _gate(evidence: Evidence, parts: Parts) -> Claim:
    claim = "A token-wise gate beats constant weights"
    gated, constant = "linear/weights=contextual", "linear/weights=learned"
    if missing := needs(parts, claim, gated, constant):
        return missing
    difference = over_seeds(parts.mean(gated) - parts.mean(constant))
    statistic = f"{gated} minus {constant}, mean over the domains, {DOMAINS.unit}"
    return judged(claim, statistic, difference, wanted=-1, unit=DOMAINS.unit)
