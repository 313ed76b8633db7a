"""Claims about ensembles: what they gain, why, and how the two rules for combining probabilities differ."""

from __future__ import annotations

import numpy as np

from harness.evaluate.decisions import SHARE_MARGIN
from harness.report.by_score import compared, level, mean_of, minus, scores
from harness.report.claim import Claim, Test, decided, untested
from harness.report.evidence import Evidence
from harness.report.lookup import in_pool, members_of, missing, pools_of
from harness.results.evidence import mean_over_seeds

NO_MEMBERS = "needs the variant 'member' for every member of the main pool"
VETO, BELIEF, ALMOST_NONE, SOME = 0.01, 0.5, 1e-4, 0.1
"""Probabilities of the label by which a member vetoes it, believes in it, rules it out, or leaves it a chance."""


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
    if lacking := missing(evidence, claim, ensemble, single):
        return lacking
    score = scores(evidence, ensemble, single)[0]
    note = f"the best, chosen on held-out, has {level(evidence, score, single)}"
    if members := members_of(evidence, pool):
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


def or_and(evidence: Evidence) -> Claim:
    """One member believes in the label and another vetoes it."""
    claim = "Linear acts as OR, log-linear as AND"
    pool, conflict = _conflict(evidence, VETO, BELIEF)
    if pool is None or not conflict.any():
        return untested(claim, _no_conflict(pool, "one member believes in the label and another vetoes it"))
    linear, log_linear = _given(evidence, pool, "linear"), _given(evidence, pool, "log_linear")
    statistic = (
        f"probability of the label under linear minus log-linear where one member gives > {BELIEF} and another < {VETO}"
    )
    note = f"{int(conflict.sum())} such outcomes of the pool {pool}"
    return decided(claim, statistic, _on(conflict, linear - log_linear), unit="probability", note=note)


def zeros(evidence: Evidence) -> Claim:
    """One member gives the label nearly no probability: under linear the others' is what it keeps."""
    claim = "A label that one member rules out keeps probability under linear and loses it under log-linear"
    pool, ruled_out = _conflict(evidence, ALMOST_NONE, SOME)
    if pool is None or not ruled_out.any():
        return untested(claim, _no_conflict(pool, "one member rules the label out and another leaves it a chance"))
    linear, log_linear = _given(evidence, pool, "linear"), _given(evidence, pool, "log_linear")
    lost = _on(ruled_out, (log_linear < linear / 2).astype(np.float64))
    kept, left = (mean_over_seeds(_on(ruled_out, each)) for each in (linear, log_linear))
    statistic = (
        f"share of the labels that one member gives < {ALMOST_NONE:g} and another > {SOME:g} to which log-linear gives "
        "less than half of what linear does; held above one half"
    )
    note = f"the pool {pool}; linear gives them {kept:.3f} on average, log-linear {left:.3f}"
    return decided(claim, statistic, lost, Test(bar=0.5), "share", note)


def _conflict(evidence: Evidence, low: float, high: float) -> tuple[str | None, np.ndarray]:
    """The pool with the most examples whose label one member gives less and another more; which, [seeds, examples]."""
    found: tuple[str | None, np.ndarray] = None, np.zeros((1, 1), bool)
    for pool in evidence.run.record["pools"]:
        if members_of(evidence, pool) and evidence.has(*(in_pool(pool, rule) for rule in ("linear", "log_linear"))):
            given = _members(evidence, pool)
            conflict = (given.min(axis=0) < low) & (given.max(axis=0) > high)
            if found[0] is None or conflict.sum() > found[1].sum():
                found = pool, conflict
    return found


def _no_conflict(pool: str | None, words: str) -> str:
    if pool is None:
        return "needs results of linear, log_linear and every member of a pool"
    return f"there is no example on which {words}"


def _given(evidence: Evidence, pool: str, name: str) -> np.ndarray:
    """The probability of the label, [seeds, examples]."""
    return np.exp(-evidence.values(in_pool(pool, name), "nll").astype(np.float64))


def _members(evidence: Evidence, pool: str) -> np.ndarray:
    return np.exp(-np.stack([evidence.values(name, "nll") for name in members_of(evidence, pool)]).astype(np.float64))


def _on(chosen: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values of some outcomes [seeds, examples], NaN of the others; without the seeds that have none of them."""
    return np.where(chosen, values, np.nan)[chosen.any(axis=1)]
