"""A claim about systems that call a stronger model for some examples: that they know for which."""

from __future__ import annotations

import math

from harness import stats
from harness.evaluate.decisions import THESE
from harness.report.claim import Claim, Test, judged, untested
from harness.report.evidence import Evidence


def knows_when(evidence: Evidence) -> Claim:
    """Of the suite's first such system, since the best of several would be picked on test; the others are in the note.

    A random router recovers half of the gap (RouteLLM).
    """
    claim = "Calling the strong model where it is needed beats calling it at random"
    families = [family for family in (evidence.run.curves or {}).get("families", []) if family["apgr"]]
    told = {family["name"]: family["apgr"] for family in families if family["apgr"]["value"] is not None}
    if not told:
        why = families[0]["apgr"]["why"] if families else "the suite has no cascade or router between two models"
        return untested(claim, why)
    assert evidence.run.curves is not None
    name, found = next(iter(told.items()))
    low, high = (math.nan if found[end] is None else found[end] for end in ("low", "high"))
    interval = stats.Interval(found["value"], low, high, evidence.run.curves["examples"])
    others = [f"{other} {each['value']:.2f}" for other, each in told.items() if other != name]
    note = "; ".join(filter(None, [found["why"], *others]))
    statistic = f"{name}: mean share of the gap between the two models that is recovered (APGR), at random 0.5"
    return judged(claim, statistic, interval, Test(bar=0.5), "share", note, THESE)
