"""Runs of schema version 2 whose examples are planted: their tables are made of these as a run makes them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from harness import stats
from harness.evaluate.decisions import LIKE_THESE, OWN, POOLS, THESE, Scored, best, comparisons
from harness.report.evidence import Evidence
from harness.results.columns import COMPARISON_COLUMNS, difference_of, paired
from harness.results.run import Run

EXAMPLES = 3000
FAMILIES = {"best_single": "single", "member": "single", "linear": "output", "log_linear": "output",
            "uniform_soup": "weights", "greedy_soup": "weights", "distill": "trained", "moe": "trained",
            "mc_dropout": "output", "cascade": "staged", "temperature": "output"}  # fmt: skip
KINDS = {"main": "fine_tunes", "run": "checkpoints", "independent": "independent"}


def right(share, seed, seeds=1, examples=EXAMPLES):
    """Random outcomes [seeds, examples], of which this share is right."""
    return np.random.default_rng(seed).random((seeds, examples)) < share


def gained(outcome, share, seed=0):
    """The same, but this share of all examples comes right that was wrong; below 0 goes wrong that was right."""
    draw, result = np.random.default_rng(seed), outcome.copy()
    for row in result:
        places = np.flatnonzero(row == (share < 0))
        row[draw.choice(places, int(abs(share) * len(row)), replace=False)] ^= True
    return result


def planted(outcomes, *, costs=None, score="accuracy", losses=None, members=8, picks=True, version=2):
    """Evidence of variants with these outcomes [seeds, examples], right or wrong.

    Args:
        outcomes: by variant; "pool:best_single" is the reference of its pool.
        costs: by variant, in units of the reference's; 1 where not given.
        score: the suite's.
        losses: by variant, the NLL of each example; by default what is wrong costs 2 nats and what is right .1.
        members: in every pool.
        picks: whether the best is told.
        version: of the schema: of version 1 there are no comparisons, and pools have the main one's reference.
    """
    outcomes = {name: np.asarray(each, float) for name, each in outcomes.items()}
    losses = {name: (losses or {}).get(name, np.where(each > 0, 0.1, 2.0)) for name, each in outcomes.items()}
    seeds = len(next(iter(outcomes.values())))
    metrics = {"accuracy": outcomes, "nll": losses}
    references = {pool: "best_single" if pool == "main" else f"{pool}:best_single"
                  for pool in dict.fromkeys(map(_pool, outcomes))}  # fmt: skip
    own = {name: references[_pool(name)] if version == 2 else "best_single" for name in outcomes}
    own = {name: other for name, other in own.items() if name != other and other in outcomes}
    pools = {name: "best_single" for pool, name in references.items() if pool != "main" and name in outcomes}
    rows, picked = [], {}
    for name, tables in metrics.items():
        scored = Scored(paired()[name], tables)
        rows += comparisons(scored, own, pools, "all")
        if picks:
            picked[name] = best(scored)
    compared = pd.DataFrame(rows, columns=list(COMPARISON_COLUMNS))
    variants = pd.DataFrame([_row(name, metrics, rows, score, (costs or {}).get(name, 1.0)) for name in outcomes])
    variants["pareto"] = False
    record = {"reference": {"variant": "best_single"}, "references": references, "seeds": list(range(seeds)),
              "scores": [score], "best": picked, "task": {"name": "planted"},
              "pools": {pool: {"kind": KINDS[pool], "members": members} for pool in references}}  # fmt: skip
    if version == 1:
        record = {key: record[key] for key in ("reference", "seeds", "task", "pools")}
        compared = compared.iloc[:0]
    examples = [pd.DataFrame({"variant": name, "seed": seed, "correct": outcomes[name][seed].astype(bool),
                              "nll": losses[name][seed]}) for name in outcomes for seed in range(seeds)]  # fmt: skip
    run = Run(Path("nowhere"), record)
    vars(run).update(variants=variants, comparisons=compared, examples=pd.concat(examples), correlations=[], details={})
    return Evidence(run)


def _pool(name):
    return name.rpartition(":")[0] or "main"


def _row(name, metrics, compared, score, cost):
    """What ``variants.csv`` says of a variant; ``compared`` are the rows of all comparisons."""
    method, _, parameters = name.rpartition(":")[2].partition("/")
    given = dict(pair.split("=") for pair in parameters.split(",") if pair)
    row = {"variant": name, "method": method, "family": FAMILIES[method], "pool": _pool(name), "members": 8}
    row |= {"params": json.dumps(given), "seed": "all", "status": "ok", "flops_per_example": 1000.0 * cost}
    row |= {"n": EXAMPLES, "verdict": "reference", "recipe_verdict": None}
    for metric, tables in metrics.items():
        column, interval = paired()[metric], stats.over_seeds(tables[name])
        row |= {metric: interval.value, **dict(zip(column.bounds, (interval.low, interval.high), strict=True))}
        difference = difference_of(column)
        for told in compared:
            if (told["variant"], told["metric"], told["kind"]) != (name, metric, OWN):
                continue
            if told["scope"] == THESE:
                row |= dict(zip((difference.name, *difference.bounds), (told[k] for k in ("difference", "low", "high")),
                                strict=True))  # fmt: skip
            if metric == score:
                row["verdict" if told["scope"] == THESE else "recipe_verdict"] = told["verdict"]
    return row


__all__ = ["LIKE_THESE", "POOLS", "THESE", "gained", "planted", "right"]
