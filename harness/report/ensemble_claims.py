"""Claims about ensembles: what they gain, and why."""

from __future__ import annotations

import numpy as np

from harness.evaluate.decisions import SHARE_MARGIN
from harness.report.by_score import compared, infinite, level, mean_of, minus, scores
from harness.report.claim import Claim, Test, decided, untested
from harness.report.evidence import Evidence
from harness.report.lookup import in_pool, members_of, missing, pools_of
from harness.results.evidence import mean_over_seeds

NO_MEMBERS = "needs the variant 'member' for every member of the main pool"


def beats_best(evidence: Evidence) -> Claim:
    """Of the main pool."""
    return _beats_best(evidence, "An ensemble beats the best single model", "main")


def beats_best_start(evidence: Evidence) -> Claim:
    """Of a pool of independent starts (deep ensembles: Lakshminarayanan et al. 2017)."""
    claim = "An ensemble of independent starts beats the best of them"
    pool = next((p for p in pools_of(evidence, "independent") if evidence.has(in_pool(p, "linear"))), None)
    return _beats_best(evidence, claim, pool) if pool else untested(claim, "the suite has no such pool with linear")


def _beats_best(evidence: Evidence, claim: str, pool: str) -> Claim:
    ensemble, single = in_pool(pool, "linear"), in_pool(pool, "best_single")
    if lacking := missing(evidence, claim, ensemble, single) or infinite(evidence, claim, ensemble, single):
        return lacking
    score = scores(evidence, ensemble, single)[0]
    note = f"the best, chosen on held-out, has {level(evidence, score, single)}"
    if members := [name for name in members_of(evidence, pool) if evidence.scored(name, score.name) is not None]:
        ranked = sorted((level(evidence, score, name) for name in members), key=lambda text: float(text.split()[0]))
        note += f", the members {ranked[0]} to {ranked[-1]}"
    what = f"{ensemble} minus {single}"
    return compared(evidence, claim, what, [ensemble, single], lambda v: minus(v(ensemble), v(single)), note=note)


def beats_mean(evidence: Evidence) -> Claim:
    """Of NLL this is a theorem (Jensen's inequality), of accuracy it is not."""
    claim = "An ensemble beats its mean member"
    if lacking := missing(evidence, claim, "linear"):
        return lacking
    if not (members := members_of(evidence, "main")):
        return untested(claim, NO_MEMBERS)
    what, names = "linear minus the members' mean", ["linear", *members]
    return compared(evidence, claim, what, names, lambda v: minus(v("linear"), mean_of(v, members)))


def errors_differ(evidence: Evidence) -> Claim:
    """Members that err on the same examples leave an ensemble nothing to gain."""
    claim = "The members' errors are not fully correlated"
    if not (members := members_of(evidence, "main")):
        return untested(claim, NO_MEMBERS)
    share = np.mean([evidence.correct(name) for name in members], axis=0)
    count = len(members)
    discordant = 2 * share * (1 - share) * count / (count - 1) if count > 1 else 0 * share
    apart, error = mean_over_seeds(discordant), mean_over_seeds(1 - share)
    note = f"a member errs on {100 * error:.2f} % of examples on average"
    if 0 < error < 1:
        note += f"; the correlation of two members' errors is {1 - apart / (2 * error * (1 - error)):.2f}"
    statistic = "share of examples on which just one of two members is right, mean over pairs, points"
    return decided(claim, statistic, discordant, Test(alike=SHARE_MARGIN), note=note)
