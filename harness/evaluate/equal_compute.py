"""Equal compute: the best of each way to spend a budget, picked on test and corrected for that, and all compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from harness.evaluate.curves import Undefined
from harness.evaluate.decisions import OWN, THESE
from harness.evaluate.families import Points
from harness.evaluate.operating import means_of
from harness.evaluate.ways import SINGLE, WAYS, way_of
from harness.results.columns import ALL_SEEDS
from harness.stats.simultaneous import FEWEST_UNITS, UnitMeans, pairwise, picked

BUDGETS = (1, 2, 4, 8)
"""In units of the reference's cost."""
ABOUT = 1.05
"""What costs up to this much more than a budget is still within it: gates and routers cost a little."""


def equal_compute(points: Points) -> dict[str, Any] | None:
    """The field of curves.json; None where the run compares nothing."""
    compared = _compared(points)
    rows = sorted((row for row in points.rows if row["variant"] in compared), key=lambda row: str(row["variant"]))
    by_way = {way: [row["variant"] for row in rows if way_of(row) == way] for way in WAYS if way != SINGLE}
    names = [name for of_way in by_way.values() for name in of_way if points.costs[name] <= BUDGETS[-1] * ABOUT]
    tables = [points.scores_of(name) for name in (points.reference, *names)]
    try:
        means = means_of([table for table in tables if table is not None], points.clusters) if names else None
    except Undefined:
        means = None
    if means is None or means.units < FEWEST_UNITS:
        return None
    apart = means.minus(0).of(range(1, len(names) + 1))
    ways: list[dict[str, Any]] = []
    for way, candidates in by_way.items():
        cells = [_cell(points, apart, names, compared, [n for n in candidates if points.costs[n] <= budget * ABOUT])
                 for budget in BUDGETS]  # fmt: skip
        if any(cells):
            ways.append({"name": way, "words": WAYS[way], "cells": cells})
    chosen = list(dict.fromkeys(cell["variant"] for each in ways for cell in each["cells"] if cell))
    return {"budgets": list(BUDGETS), "ways": ways, "pairs": list(_pairs(points, apart, names, chosen))}


def _compared(points: Points) -> dict[str, dict[str, Any]]:
    """By variant, its comparison with the reference, of these models, by the score that decides."""
    table = points.run.comparisons
    wanted = {"kind": OWN, "scope": THESE, "seed": ALL_SEEDS, "metric": points.score.name}
    for name, value in wanted.items():
        table = table[table[name].astype(str) == value]
    rows = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    return {row["variant"]: row for row in rows if row["against"] == points.reference}


def _cell(
    points: Points, apart: UnitMeans, names: Sequence[str], compared: dict[str, dict[str, Any]], within: Sequence[str]
) -> dict[str, Any] | None:
    if not within:
        return None
    winner, corrected = picked(apart.of([names.index(name) for name in within]))
    row = compared[within[winner]]
    ends = [float(row[end]) for end in ("low_together", "high_together")]
    low, high = ends if points.score.sign > 0 else (-ends[1], -ends[0])
    return {
        "variant": within[winner],
        "cost": points.costs[within[winner]],
        "candidates": len(within),
        "gain": points.score.sign * float(row["difference"]),
        "corrected": corrected,
        "low": _known(low),
        "high": _known(high),
        "verdict": row["verdict"],
    }


def _pairs(points: Points, apart: UnitMeans, names: Sequence[str], chosen: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What each of the chosen gains over each other one, with intervals that hold whichever two were picked."""
    reach = pairwise(apart)
    right = points.score.outcome == "correct" and not points.clusters
    grain = 1 / (len(points.run.record["seeds"]) * apart.units) if right else 0.0  # as in ``decisions``
    for one, other in combinations(chosen, 2):
        first, second = names.index(one), names.index(other)
        value = float(apart.values[first] - apart.values[second])
        error = float(np.sqrt(((apart.shares[first] - apart.shares[second]) ** 2).sum()))
        half = reach * error + grain if error else 0.0
        yield {"one": one, "other": other, "gain": value, "low": value - half, "high": value + half}


def _known(bound: float) -> float | None:
    return bound if np.isfinite(bound) else None
