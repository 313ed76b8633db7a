"""Claims about experts for domains of text, in bits per byte: paired by passage, fewer bits are better."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from harness.report.claim import Claim, judged, untested
from harness.report.evidence import Evidence, over_seeds

BASE = "task_arithmetic/members=0,scale=0"
"""The base itself, as a suite names it: no task vector added."""
UNIT = "bits per byte"


def domain_claims(evidence: Evidence) -> list[Claim]:
    """The claims that a run on domains of text can test; none for other runs."""
    if not evidence.domains:
        return []
    return [claim(evidence) for claim in (_home, _composes, _negates, _anti_expert, _ties, _gate)]


def _home_minus_abroad(evidence: Evidence, name: str, base: str, home: str) -> np.ndarray:
    """What a variant adds to the base's bits at home, minus the mean of what it adds elsewhere [seeds, documents].

    The i-th passages of the domains are drawn together: they are independent, so any pairing has the same variance.
    """
    added = {domain: evidence.bits(name, domain) - evidence.bits(base, domain) for domain in evidence.domains}
    return added[home] - np.mean([value for domain, value in added.items() if domain != home], axis=0)


def _needs(evidence: Evidence, claim: str, *names: str | None) -> Claim | None:
    missing = [name or "a fitting variant" for name in names if name is None or not evidence.measured(name)]
    return untested(claim, f"needs results of {', '.join(missing)}") if missing else None


def _variants(evidence: Evidence, method: str) -> list[tuple[dict[str, Any], list[int] | None]]:
    """The main pool's variants of a method: their parameters and name, and the positions of their members."""
    found = []
    for row in evidence.ok.to_dict("records"):
        if row["method"] == method and row["pool"] == "main":
            named = [part for part in row["variant"].partition("/")[2].split(",") if part.startswith("members=")]
            positions = [int(i) for i in named[0].removeprefix("members=").split("+")] if named else None
            found.append((json.loads(row["params"]) | {"variant": row["variant"]}, positions))
    return found


def _home(evidence: Evidence) -> Claim:
    claim = "A domain's expert gains at home and loses abroad"
    homes = {f"member/index={i}": evidence.home_of(i) for i in range(len(evidence.members))}
    experts = {name: home for name, home in homes.items() if home and evidence.measured(name)}
    if missing := _needs(evidence, claim, BASE, *(experts or [None])):
        return missing
    found = over_seeds(np.mean([_home_minus_abroad(evidence, n, BASE, h) for n, h in experts.items()], axis=0))
    statistic = f"change against the base at home minus abroad, mean of {len(experts)} experts, {UNIT}"
    return judged(claim, statistic, found, wanted=-1, unit=UNIT)


def _composes(evidence: Evidence) -> Claim:
    claim = "Added task vectors compose: one model for all domains"
    sums = [
        (given["variant"], positions)
        for given, positions in _variants(evidence, "task_arithmetic")
        if given["coefficients"] == "add" and given["scale"] == "heldout"
    ]
    name = sums[0][0] if sums else None
    if missing := _needs(evidence, claim, BASE, name):
        return missing
    assert name is not None
    worst = max(evidence.domains, key=lambda d: float((evidence.bits(name, d) - evidence.bits(BASE, d)).mean()))
    found = over_seeds(evidence.bits(name, worst) - evidence.bits(BASE, worst))
    statistic = f"{name} minus the base in the domain where it gains least ({worst}), {UNIT}"
    return judged(claim, statistic, found, wanted=-1, unit=UNIT, note="the scale was chosen on held-out")


def _negates(evidence: Evidence) -> Claim:
    claim = "A negated task vector loses its domain more than the others"
    negated = {
        given["variant"]: home
        for given, positions in _variants(evidence, "task_arithmetic")
        if given["coefficients"] == "negate" and positions and len(positions) == 1
        and (home := evidence.home_of(positions[0]))
    }  # fmt: skip
    if missing := _needs(evidence, claim, BASE, *(negated or [None])):
        return missing
    found = over_seeds(np.mean([_home_minus_abroad(evidence, n, BASE, h) for n, h in negated.items()], axis=0))
    homes = ", ".join(sorted(negated.values()))
    statistic = f"rise against the base in the negated domain minus the others' (controls): {homes}; {UNIT}"
    return judged(claim, statistic, found, unit=UNIT)


def _anti_expert(evidence: Evidence) -> Claim:
    claim = "base + a (expert - anti-expert) gains the one's domain and loses the other's"
    chosen = next(
        (
            given
            for given, _ in _variants(evidence, "expert_anti_expert")
            if given["on"] == "base" and isinstance(given["expert"], int) and isinstance(given["anti"], int)
        ),
        None,
    )
    name = chosen["variant"] if chosen else None
    if missing := _needs(evidence, claim, BASE, name):
        return missing
    assert chosen is not None
    home, away = evidence.home_of(chosen["expert"]), evidence.home_of(chosen["anti"])
    if home is None or away is None or home == away:
        return untested(claim, "expert and anti-expert have no domains of their own")
    gain, loss = (evidence.bits(chosen["variant"], d) - evidence.bits(BASE, d) for d in (home, away))
    statistic = f"a = {chosen['a']}: change against the base in {home} minus that in {away}, {UNIT}"
    note = f"{home} {over_seeds(gain).value:+.3f}, {away} {over_seeds(loss).value:+.3f}"
    return judged(claim, statistic, over_seeds(gain - loss), wanted=-1, unit=UNIT, note=note)


def _ties(evidence: Evidence) -> Claim:
    claim = "TIES beats plain addition under conflict"
    plain, trimmed = (
        next((g["variant"] for g, p in _variants(evidence, m) if g["scale"] == "heldout" and p is None), None)
        for m in ("task_arithmetic", "ties")
    )
    if missing := _needs(evidence, claim, plain, trimmed):
        return missing
    assert plain is not None
    assert trimmed is not None
    found = over_seeds(evidence.mean_bits(trimmed) - evidence.mean_bits(plain))
    statistic = f"{trimmed} minus {plain}, mean over the domains, {UNIT}"
    return judged(claim, statistic, found, wanted=-1, unit=UNIT, note="both scales were chosen on held-out")


def _gate(evidence: Evidence) -> Claim:
    claim = "A token-wise gate beats constant weights"
    gated, constant = "linear/weights=contextual", "linear/weights=learned"
    if missing := _needs(evidence, claim, gated, constant):
        return missing
    found = over_seeds(evidence.mean_bits(gated) - evidence.mean_bits(constant))
    return judged(claim, f"{gated} minus {constant}, mean over the domains, {UNIT}", found, wanted=-1, unit=UNIT)
