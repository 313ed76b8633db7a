"""Quality against cost of a finished run: the record of curves.json (``results.curves`` has its fields)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness.evaluate.curves import hull
from harness.evaluate.equal_compute import equal_compute
from harness.evaluate.families import Family, Points, dearest
from harness.evaluate.operating import Curve, Measured, Point, measured_difference, measured_mean
from harness.evaluate.oracle import luck_corrected, oracle
from harness.results.curves import VERSION
from harness.results.run import Run
from harness.results.serving import serving_of

WANTED = (0.5, 0.8, 0.95)
"""The PGRs of which CPT is told."""
ORACLE = ("score", "gain", "luck_corrected", "luck_corrected_gain")
"""What is told of the oracle."""


def quality_cost(
    run: Run, added: Sequence[Family] = (), clusters: Sequence[str] | None = None
) -> dict[str, Any] | None:
    """What curves.json says of a run; None where no cost of serving, or no example's score, is known.

    Args:
        run: finished, with its tables.
        added: families of operating points that are no variants: the settings of a cascade or a router.
        clusters: as of ``Points``.
    """
    points = Points(run, clusters)
    names = [row["variant"] for row in points.rows]
    if points.reference not in names:
        return None
    reference = points.point(points.reference)
    families = points.families(added)
    ensemble = dearest(families)
    everything = [reference, *(point for family in families for point in family.points)]
    high = max(_cost(point) for point in (everything if ensemble is None else [reference, ensemble]))
    budgets, serving, sign = (1.0, high), serving_of(run), points.score.sign
    return {
        "version": VERSION,
        "score": points.score.name,
        "cost": {"name": serving.cost.name if serving.cost else None, "title": serving.title},
        "reference": {"variant": points.reference, "score": sign * _score(reference)},
        "examples": _units(reference, points.clusters),
        "budgets": list(budgets),
        "families": [_family(family, reference, budgets, points) for family in families],
        "hull": _hull(everything, sign),
        "random": _random(reference, ensemble, sign),
        "oracle": _oracle(points),
        "equal_compute": equal_compute(points),
    }


def _family(family: Family, reference: Point, budgets: tuple[float, float], points: Points) -> dict[str, Any]:
    own = sorted(family.points, key=lambda point: (_cost(point), point.name))
    others = [reference] if all(point.name != reference.name for point in own) else []
    curve = Curve([*others, *own], points.clusters)
    above = Curve([replace(p, scores=p.scores - reference.scores) for p in curve.points], points.clusters)
    sign = points.score.sign
    ranges = budgets if budgets[0] < budgets[1] else (None, None)
    found = {
        "name": family.name,
        "way": family.way or family.name,
        "points": [_point(point, reference, sign, points.clusters) for point in own],
        "aiq": _turned(curve.aiq(*ranges), sign).as_json(),
        "gain": above.aiq(*ranges).as_json(),
        "apgr": None,
        "cpt": None,
    }
    of_two = [point for point in own if point.strong is not None]
    if family.weak and family.strong and of_two:
        two = Curve(of_two, points.clusters, family.weak, family.strong)
        found |= {"apgr": two.apgr().as_json(), "cpt": {f"{pgr:g}": two.cpt(pgr).as_json() for pgr in WANTED}}
    return found


def _point(point: Point, reference: Point, sign: int, clusters: Sequence[str]) -> dict[str, Any]:
    score = _turned(measured_mean(point.scores, clusters), sign)
    gain = measured_difference(point.scores, reference.scores, clusters).as_json()
    told = {"cost": _cost(point), "score": sign * _score(point), "low": score.low, "high": score.high, "gain": gain}
    return {"name": point.name, **told}


def _turned(found: Measured, sign: int) -> Measured:
    """A score in its own direction."""
    if sign > 0:
        return found
    value, low, high = (None if end is None else -end for end in (found.value, found.low, found.high))
    return Measured(value, high, low, found.why)


def _hull(points: Sequence[Point], sign: int) -> list[list[float]]:
    costs, scores = hull(np.array([_cost(p) for p in points]), np.array([_score(p) for p in points]))
    return [[float(cost), sign * float(score)] for cost, score in zip(costs, scores, strict=True)]


def _random(reference: Point, ensemble: Point | None, sign: int) -> dict[str, Any] | None:
    if ensemble is None or _cost(ensemble) == _cost(reference):
        return None
    ends = (reference, ensemble)
    return {"from": reference.name, "to": ensemble.name, "points": [[_cost(p), sign * _score(p)] for p in ends]}


def _oracle(points: Points) -> dict[str, Any]:
    """Of right and wrong answers, whatever score the run goes by."""
    names = [name for name in points.models() if points.right(name) is not None]
    ours = points.right(points.reference)
    if ours is None or len(names) < 2:
        why = "no example is known to be right or wrong" if ours is None else "there are fewer than two single models"
        lacking = Measured(None, why=why).as_json()
        return {"models": len(names), "cost": None, "why": why} | dict.fromkeys(ORACLE, lacking)
    right = np.stack([of for name in names if (of := points.right(name)) is not None])  # [M, S, N]
    clusters = points.clusters if len(points.clusters) == ours.shape[1] else ()
    costs = np.array([points.costs[name] for name in names])
    best, luck, cost = (np.full(ours.shape, np.nan) for _ in range(3))
    for seed, here in enumerate(~np.isnan(ours)):
        best[seed, here], cost[seed, here] = oracle(right[:, seed, here], costs)
        luck[seed, here] = luck_corrected(right[:, seed, here], costs)
    measured = (measured_mean(best, clusters), measured_difference(best, ours, clusters),
                measured_mean(luck, clusters), measured_difference(luck, ours, clusters))  # fmt: skip
    told = dict(zip(ORACLE, (each.as_json() for each in measured), strict=True))
    return {"models": len(names), "cost": _mean(cost), "why": None} | told


def _score(point: Point) -> float:
    return _mean(point.scores)


def _cost(point: Point) -> float:
    return _mean(point.costs)


def _mean(table: np.ndarray) -> float:
    """The mean over the seeds of each one's mean."""
    return float(np.nanmean(table, axis=1).mean())


def _units(point: Point, clusters: Sequence[str]) -> int:
    known = ~np.isnan(point.scores).all(axis=0)
    return len(set(np.asarray(clusters)[known])) if len(clusters) else int(known.sum())
