"""Claims about averages of weights: when they do what ensembles do, and which of them to take."""

from __future__ import annotations

import numpy as np

from harness import stats
from harness.display.formats import number
from harness.report.by_score import compared, minus
from harness.report.claim import Claim, judged, untested
from harness.report.evidence import Evidence
from harness.report.lookup import in_pool, missing, of_all, pools_of


def tracks(evidence: Evidence) -> Claim:
    """Over subsets of the members."""
    claim = "Averaging tracks ensembling where members share a start"
    studied = {
        found["pool"]: found
        for found in evidence.run.correlations
        if found["metric"] == "nll" and found["seed"] == "all" and found["pearson"]["value"] is not None
    }
    found = studied.get("main")
    if found is None or found["pearson"]["low"] is None:
        none = any(each["pool"] == "main" for each in evidence.run.correlations)
        undefined = "its correlation is undefined" if none else "the suite has no study of the main pool"
        why = "too few members for an interval" if found else undefined
        return untested(claim, why)
    r = found["pearson"]
    note = f"{found['n']} subsets of {found['members']} members, left out in turn for the interval"
    for pool in pools_of(evidence, "independent"):
        if pool in studied:
            note += f"; of the pool {pool} r is {number(studied[pool]['pearson']['value'], 2)}"
    interval = stats.Interval(r["value"], r["low"], r["high"], found["n"])
    return judged(claim, "Pearson r of ensemble and average NLL over subsets", interval, unit="r", note=note)


def needs_start(evidence: Evidence) -> Claim:
    """What averaging loses against ensembling, by where the members began."""
    claim = "Averaging needs a shared start"
    pool = next((p for p in pools_of(evidence, "independent") if p != "main"), "independent")
    apart, together = ([in_pool(p, rule) for rule in ("uniform_soup", "linear")] for p in (pool, "main"))
    names = [*apart, *together]
    if lacking := missing(evidence, claim, *names):
        return lacking
    what = "(soup minus ensemble) of independent starts minus the same of the shared start"
    return compared(
        evidence, claim, what, names,
        lambda v: minus(minus(v(apart[0]), v(apart[1])), minus(v(together[0]), v(together[1]))), wanted=-1,
    )  # fmt: skip


def aligns(evidence: Evidence) -> Claim:
    """Of independent starts where the suite has them aligned."""
    claim = "Alignment lowers the loss barrier"
    seeds = [str(seed) for seed in evidence.run.record["seeds"]]
    barriers = {
        name: [details[seed]["barrier"] for seed in seeds]
        for name, details in sorted(evidence.run.details.items())
        if name in evidence.by_name and all("barrier" in details.get(seed, {}) for seed in seeds)
    }
    if not barriers:
        return untested(claim, "needs results of align_average with two members")
    apart = [name for name in barriers if evidence.by_name[name]["pool"] in pools_of(evidence, "independent")]
    name = (apart or list(barriers))[0]
    falls = np.array([barrier["before"] - barrier["after"] for barrier in barriers[name]])
    before = np.mean([barrier["before"] for barrier in barriers[name]])
    note = f"{name}: the barrier is {number(before)} before and {number(before - falls.mean())} after, mean over seeds"
    alone = len(falls) == 1  # seeds are all that varies here, and one of them shows no variance
    interval = stats.Interval(falls[0], np.nan, np.nan, 1) if alone else stats.crossed_mean(falls[None]).interval()
    statistic = "held-out NLL barrier between the two best members, before minus after, nats, over seeds"
    return judged(claim, statistic, interval, unit="nats", note=note)


def greedy(evidence: Evidence) -> Claim:
    """In the pool of which the greedy soup leaves out the most on held-out, unless one is there for it."""
    claim = "The greedy soup is no worse than the uniform one where members are unequal"
    taken = _taken(evidence)
    if not taken:
        return untested(claim, "needs results of greedy_soup and uniform_soup of one pool with a shared start")
    pool = "unequal" if "unequal" in taken else min(taken, key=lambda name: taken[name][0] / taken[name][1])
    one, other = (in_pool(pool, name) for name in ("greedy_soup", "uniform_soup"))
    note = f"of {taken[pool][1]} members it takes {taken[pool][0]:.1f}, mean over seeds"
    what, names = f"{one} minus {other}", [one, other]
    return compared(evidence, claim, what, names, lambda v: minus(v(one), v(other)), allowed=1, note=note)


def _taken(evidence: Evidence) -> dict[str, tuple[float, int]]:
    """By pool with a shared start and both soups: how many members the greedy one takes, and of how many."""
    found = {}
    for pool, record in evidence.run.record["pools"].items():
        one, other = (in_pool(pool, name) for name in ("greedy_soup", "uniform_soup"))
        if record.get("kind") != "independent" and evidence.has(one, other):
            counts = [len(of_seed["members"]) for of_seed in evidence.run.details.get(one, {}).values()]
            found[pool] = (float(np.mean(counts)) if counts else np.nan, record["members"])
    return found


def checkpoint_average(evidence: Evidence) -> Claim:
    """One model of several checkpoints."""
    return _against_last(evidence, "An average of checkpoints beats the last one", "checkpoint_average")


def checkpoint_ensemble(evidence: Evidence) -> Claim:
    """All of them, at their cost."""
    return _against_last(evidence, "An ensemble of checkpoints beats the last one", "checkpoint_ensemble")


def _against_last(evidence: Evidence, claim: str, method: str) -> Claim:
    pools = pools_of(evidence, "checkpoints")
    if not pools:
        return untested(claim, "the suite has no pool of one run's checkpoints")
    pool = pools[0]
    last = in_pool(pool, f"member/index={evidence.run.record['pools'][pool]['members'] - 1}")
    single = last if evidence.has(last) else in_pool(pool, "best_single")
    name = of_all(evidence, pool, method)
    if lacking := missing(evidence, claim, name, single, what=method):
        return lacking
    assert name is not None
    note = "" if single == last else f"{last} is not in the suite: instead the best checkpoint on held-out"
    what, names = f"{name} minus {single}", [name, single]
    return compared(evidence, claim, what, names, lambda v: minus(v(name), v(single)), note=note)
