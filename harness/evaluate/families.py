"""The families of operating points of a finished run, from its tables: per-example scores and costs of variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from harness.evaluate.operating import Point
from harness.evaluate.ways import ENSEMBLES, WAYS, on_curve
from harness.results.columns import ALL_SEEDS
from harness.results.outcomes import Outcomes
from harness.results.run import Run
from harness.results.scoring import known, score_of
from harness.results.serving import cost_ratios


@dataclass(frozen=True)
class Family:
    """Operating points that belong together: one way to spend compute, or one system with a dial.

    To add the dial of a system: a ``Point`` for each setting, with the score of every test example there (as
    ``Points.scores_of`` has it: turned so that higher is better; [S, N], the seeds in the run's order, the examples in
    that of examples.parquet, or sorted by id where every seed has a split of its own) and what it cost, in units of the
    reference's mean cost (the calls [N, parts] of ``Combination.run`` times what each part takes). Of a system of two
    models also whether the strong one was called, and both models alone: then it has an APGR and CPT. Systems of other
    pairs of models are families of their own.
    """

    name: str
    """Of ``ways.WAYS``, whose points these join, that of a variant, whose settings these are, or any other."""
    points: tuple[Point, ...]
    weak: Point | None = None
    strong: Point | None = None
    way: str = ""
    """Of ``ways.WAYS``, where that is not the name: pictures show it as that."""
    variants: tuple[str, ...] = ()
    """Those that are this system at one of its settings, besides the one that gives the name."""


class Points:
    """The variants of a run's main pool as operating points."""

    def __init__(self, run: Run, clusters: Sequence[str] | None = None) -> None:
        """``clusters``: of each example of a score, where examples.parquet does not have them."""
        self.run, self.score = run, score_of(run)
        self._outcomes = Outcomes(run)
        self.clusters = self._outcomes.clusters(self.score) if clusters is None else clusters
        """Of each example, the cluster that counts as one; empty where every example does."""

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Summary rows of the main pool's variants of which a cost and per-example scores are known."""
        table = self.run.variants
        table = table[(table["seed"] == ALL_SEEDS) & (table["status"] == "ok")]
        reference = table.loc[table["variant"] == self.reference, "pool"]
        main = table[table["pool"].isin(reference)].to_dict("records")
        return [{str(key): value for key, value in row.items()} for row in main
                if row["variant"] in self.costs and self.scores_of(row["variant"]) is not None]  # fmt: skip

    @property
    def reference(self) -> str:
        return str(self.run.record["reference"]["variant"])

    @cached_property
    def costs(self) -> dict[str, float]:
        """By variant, in units of the reference's."""
        return cost_ratios(self.run)

    def scores_of(self, variant: str) -> np.ndarray | None:
        """The values [S, N] behind the run's score, turned so that higher is better; None where they are not known."""
        values = known(self._outcomes.scored(variant, self.score))
        return None if values is None else self.score.sign * values

    def right(self, variant: str) -> np.ndarray | None:
        """[S, N]: 1 where it is right and 0 where not; None where that is not known."""
        if "correct" not in self._outcomes.columns or variant not in self._outcomes:
            return None
        return known(self._outcomes.values(variant, "correct").astype(np.float64))

    def point(self, variant: str) -> Point:
        """A variant as it is; where it calls more models for some examples than for others, so do its costs.

        Models are then taken to cost the same each: the mean is exact in any case.
        """
        scores, cost = self.scores_of(variant), self.costs[variant]
        assert scores is not None
        each: float | np.ndarray = cost
        if "calls" in self._outcomes.columns and variant in self._outcomes:
            calls = self._outcomes.values(variant, "calls").astype(np.float64)
            if calls.shape == scores.shape and np.nanmin(calls) < np.nanmax(calls):
                each = cost * calls / float(np.nanmean(calls))
        return Point.of(variant, scores, each)

    def families(self, added: Sequence[Family] = ()) -> list[Family]:
        """All families in the order of ``WAYS``, with what is added to them, and then the other ones added."""
        found: dict[str, Family] = {name: Family(name, ()) for name in WAYS}
        methods = {row["method"] for row in self.rows}
        for row in self.rows:
            if way := on_curve(row, methods):
                found[way] = _joined(found[way], Family(way, (self.point(row["variant"]),)))
        for family in added:
            if of_way := found.get(family.way):  # the variant as it is belongs to its settings
                names = (family.name, *family.variants)
                chosen = tuple(point for point in of_way.points if point.name in names)
                found[family.way] = replace(of_way, points=tuple(p for p in of_way.points if p not in chosen))
                family = replace(family, points=(*chosen, *family.points))
            found[family.name] = _joined(found.get(family.name, Family(family.name, ())), family)
        return [family for family in found.values() if family.points]

    def models(self) -> list[str]:
        """The single models, the cheapest first."""
        names = [row["variant"] for row in self.rows if row["method"] == "member"]
        return sorted(names, key=lambda name: (self.costs[name], name))


def dearest(families: Sequence[Family]) -> Point | None:
    """The dearest ensemble: all members, once each; None without one."""
    points = [point for family in families if family.name == ENSEMBLES for point in family.points]
    return max(points, key=lambda point: (float(np.nanmean(point.costs)), point.name), default=None)


def _joined(one: Family, other: Family) -> Family:
    names = {point.name for point in other.points}
    points = (*(point for point in one.points if point.name not in names), *other.points)
    return Family(one.name, points, other.weak or one.weak, other.strong or one.strong, other.way or one.way)
