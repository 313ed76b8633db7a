"""Claims about what is trained in order to combine: bootstrap resamples, dropout, students and sparse experts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.display.formats import number, points
from harness.report.by_score import Values, compared, mean_of, minus, scores, values_of
from harness.report.claim import NOT_TESTED, Claim, in_size, of_these, untested
from harness.report.ensemble_claims import NO_MEMBERS
from harness.report.evidence import Evidence
from harness.report.lookup import in_pool, members_of, missing, of_all, pools_of, variants_of
from harness.report.students import gains_of
from harness.results.evidence import mean_over_seeds


def _bagging(evidence: Evidence) -> tuple[str | None, str | None]:
    """The pool of bootstrap resamples, and its bagged ensemble of all members."""
    pool = next(iter(pools_of(evidence, "bootstrap")), None)
    return pool, of_all(evidence, pool, "bagging", combine="mean") if pool else None


def bagging_beats_mean(evidence: Evidence) -> Claim:
    """What Breiman 1996 says of unstable learners."""
    claim = "Bagging beats its mean member"
    pool, name = _bagging(evidence)
    if lacking := missing(evidence, claim, name, what="bagging"):
        return lacking
    assert pool is not None
    assert name is not None
    if not (members := members_of(evidence, pool)):
        return untested(claim, f"needs the variant 'member' for every member of the pool {pool}")
    what = f"{name} minus its members' mean"
    return compared(evidence, claim, what, [name, *members], lambda v: minus(v(name), mean_of(v, members)))


def bagging_is_no_better(evidence: Evidence) -> Claim:
    """Random starts differ enough, and a resample lacks a third of the data (Lakshminarayanan et al. 2017)."""
    claim = "Bagging is no better than as many independent starts"
    pool, name = _bagging(evidence)
    if lacking := missing(evidence, claim, name, what="bagging"):
        return lacking
    assert pool is not None
    assert name is not None
    pools = evidence.run.record["pools"]
    count, architectures = pools[pool]["members"], pools[pool].get("architectures")
    others = (
        plain
        for start in pools_of(evidence, "independent")
        if pools[start].get("architectures") == architectures
        for plain, given, positions in variants_of(evidence, start, "linear")
        if given.get("weights") == "uniform" and len(positions or range(pools[start]["members"])) == count
    )
    if (other := next(others, None)) is None:
        return untested(claim, f"needs linear of {count} independent starts of the same architecture")
    what, names = f"{name} minus {other}", [name, other]
    return compared(evidence, claim, what, names, lambda v: minus(v(name), v(other)), wanted=-1, allowed=1)


def dropout(evidence: Evidence) -> list[Claim]:
    """By a proper score, which calibration is a part of; in each pool that has it."""
    claim = "MC dropout is better calibrated than its model without dropout"
    passes: dict[str, tuple[int, str, str]] = {}
    for pool in evidence.run.record["pools"]:
        for name, given, _ in variants_of(evidence, pool, "mc_dropout"):
            of = given["member"]
            single = in_pool(pool, "best_single" if of == "best" else f"member/index={of}")
            if evidence.has(name, single):
                passes[pool] = max((given["passes"], name, single), passes.get(pool, (0, "", "")))
    if not passes:
        return [untested(claim, "needs results of mc_dropout and of the same model without dropout")]
    first = "main" if "main" in passes else next(iter(passes))
    order = [first, *(pool for pool in passes if pool != first)]
    return [
        _dropout(evidence, claim if pool == first else f"{claim}: pool {pool}", *passes[pool][1:]) for pool in order
    ]


def _dropout(evidence: Evidence, claim: str, name: str, single: str) -> Claim:
    errors = [number(evidence.by_name[each].get("ece")) for each in (name, single)]
    sure = [
        points(mean_over_seeds(evidence.values(each, "confidence") - evidence.correct(each))) for each in (name, single)
    ]
    note = (
        f"calibration error {errors[0]} with dropout, {errors[1]} without; "
        f"mean confidence minus accuracy {sure[0]} and {sure[1]} points"
    )
    what, names = f"{name} minus {single}", [name, single]
    return compared(evidence, claim, what, names, lambda v: minus(v(name), v(single)), note=note, by="nll")


def student(evidence: Evidence) -> Claim:
    """One model of the members' size."""
    return _student(evidence, "A student keeps most of the ensemble's gain", "same")


def small_student(evidence: Evidence) -> list[Claim]:
    """A smaller one, where the suite has it."""
    claim = "A student of half the size keeps most of the ensemble's gain"
    return [_student(evidence, claim, "half")] if _taught(evidence, "half") else []


def _taught(evidence: Evidence, size: str) -> str | None:
    """The first student of a size that learns from all members, and not from labels alone."""
    students = variants_of(evidence, "main", "distill")
    taught = (name for name, given, positions in students
              if positions is None and given.get("size") == size and given.get("alpha") != 0)  # fmt: skip
    return next(taught, None)


def _student(evidence: Evidence, claim: str, size: str) -> Claim:
    name = _taught(evidence, size)
    if lacking := missing(evidence, claim, "linear", name, what="distill"):
        return lacking
    assert name is not None
    if not (members := members_of(evidence, "main")):
        return untested(claim, NO_MEMBERS)

    def middle(v: Values) -> np.ndarray:
        return minus(v(name), (mean_of(v, members) + v("linear")) / 2)

    what = f"{name} minus the middle between mean member and ensemble"
    found = compared(evidence, claim, what, [name, "linear", *members], middle, contrast=False)
    if found.verdict == NOT_TESTED:
        return found
    score = scores(evidence, name, "linear", *members)[0]
    gains = gains_of(values_of(evidence, score), score, name, "linear", members)
    gained = of_these(gains.ensemble)
    note = f"the ensemble gains {in_size(gained.value, score.unit)} on its mean member"
    if not gained.low > 0:
        return replace(found, verdict="undecided", note=f"{note}, which is not certain; {found.note}")
    return replace(found, note=f"{note}, of which it keeps {100 * max(gains.kept, 0):.0f} %; {found.note}")


def sparse(evidence: Evidence) -> Claim:
    """Of the same experts, trained with either routing."""
    claim = "Sparse experts cost less than dense ones, at no loss"
    one, other = (of_all(evidence, "main", "moe", routing=routing) for routing in ("sparse", "dense"))
    if lacking := missing(evidence, claim, one, other, what="moe"):
        return lacking
    assert one is not None
    assert other is not None
    share = evidence.by_name[one]["flops_per_example"] / evidence.by_name[other]["flops_per_example"]
    note = f"sparse runs {share:.2f} times the FLOPs of dense"
    what, names = f"{one} minus {other}", [one, other]
    found = compared(evidence, claim, what, names, lambda v: minus(v(one), v(other)), allowed=2, note=note)
    return found if share < 1 or found.verdict == NOT_TESTED else replace(found, verdict="not held")
