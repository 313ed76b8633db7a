"""Claims about task vectors in runs whose members were all tuned on the same task."""

from __future__ import annotations

from harness.report.by_score import compared, mean_of, minus
from harness.report.claim import Claim, untested
from harness.report.ensemble_claims import NO_MEMBERS
from harness.report.evidence import Evidence
from harness.report.lookup import members_of, missing, of_all


def composes(evidence: Evidence) -> Claim:
    """Whether their sum does no harm."""
    claim = "Added task vectors compose"
    name = of_all(evidence, "main", "task_arithmetic", coefficients="add")
    if lacking := missing(evidence, claim, name, what="task_arithmetic"):
        return lacking
    assert name is not None
    if not (members := members_of(evidence, "main")):
        return untested(claim, NO_MEMBERS)
    note = "all members were tuned on the same task, so this says that their sum does no harm, and no more"
    what = f"{name} minus the members' mean"
    return compared(evidence, claim, what, [name, *members], lambda v: minus(v(name), mean_of(v, members)), note=note)


def negates(evidence: Evidence) -> Claim:
    """Whether taking the skill away takes it away."""
    claim = "Negated task vectors lose the skill"
    name = of_all(evidence, "main", "task_arithmetic", coefficients="negate")
    reference = evidence.run.record["reference"]["variant"]
    if name is None or not evidence.has(name, reference):
        return untested(claim, "the suite has no task_arithmetic with coefficients: negate")
    note = "what else is lost with it needs a control task, which this suite does not have"
    what, names = f"{name} minus {reference}", [name, reference]
    return compared(evidence, claim, what, names, lambda v: minus(v(name), v(reference)), wanted=-1, note=note)


def ties(evidence: Evidence) -> Claim:
    """There is no conflict here."""
    del evidence
    return untested(
        "TIES beats plain addition under conflict", "the members of this suite do not conflict: they share one task"
    )
