"""Claims about experts for views of the examples, and how task vectors in conflict merge, in points."""

from __future__ import annotations

from harness.report.claim import Claim
from harness.report.evidence import Evidence
from harness.report.part_claims import composes, dare, gains_at_home, negates, ties, ties_unscaled
from harness.report.parts import Parts


def view_claims(evidence: Evidence, parts: Parts) -> list[Claim]:
    """The claims that a pool of members in conflict can test."""
    return [claim(evidence, parts) for claim in (gains_at_home, composes, negates, ties, ties_unscaled, dare)]
