"""The table of all variants: by pool and family, the best first, each score with its bar on one scale."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.display.formats import difference, difference_interval
from harness.report.evidence import Evidence
from harness.report.scale import Scale, scale_of
from harness.report.words import members_in_words, own_name
from harness.results.columns import numbers, paired
from harness.results.metric import Column

ALSO = ("accuracy", "nll", "ece", "bits_per_byte")
"""Scores that are shown whatever the suite goes by."""
FAMILIES = {
    "single": "single models",
    "output": "ensembles: all members run",
    "weights": "merged weights: one model runs",
    "trained": "trained from the members",
    "staged": "staged systems",
}
"""In the order of the table."""


SHOWN = 2_000
"""Variants in the table, the best of a run that has more."""
IN_FULL = 500
"""Variants with every number, the best of those in the table: a page of more would be slow to open."""


@dataclass(frozen=True)
class Table:
    """What the templates show."""

    score: Column
    others: list[Column]
    """Scores shown beside it."""
    groups: list[Group]
    recipes: bool
    """Whether there are verdicts of models like these."""
    compared: list[Column]
    """The scores that have verdicts of their own."""
    left_out: int
    """Variants that are not shown."""
    in_full: frozenset[str]
    """The variants that are shown with every number."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for group in self.groups for row in group.rows]

    @property
    def full_rows(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["variant"] in self.in_full]


@dataclass(frozen=True)
class Group:
    """The variants of one pool and family."""

    title: str
    rows: list[dict[str, Any]]


def table_of(evidence: Evidence) -> Table:
    """The table of a run."""
    score = evidence.score
    known = numbers()
    names = dict.fromkeys((*(column.name for column in evidence.scores[1:]), *ALSO))
    others = [known[name] for name in names if name != score.name and name in known and _any(evidence, name)]
    compared = [column for column in (score, *(c for c in paired().values() if c.name != score.name))
                if any(evidence.gain(name, column) for name in evidence.by_name)]  # fmt: skip
    recipes = any(evidence.recipe_gain(name) for name in evidence.by_name)
    order = _order(evidence)
    shown = frozenset(order[:SHOWN])
    groups = list(_groups(evidence, compared, shown))
    return Table(score, others, groups, recipes, compared, len(order) - len(shown), frozenset(order[:IN_FULL]))


def _order(evidence: Evidence) -> list[str]:
    """The references, which all others are compared with, then the best first."""
    rows = evidence.ordered(evidence.ok)
    return [*rows[rows["verdict"] == "reference"]["variant"], *rows[rows["verdict"] != "reference"]["variant"]]


def _any(evidence: Evidence, name: str) -> bool:
    return bool(evidence.ok[name].notna().any())


def _groups(evidence: Evidence, compared: list[Column], shown: Collection[str]) -> Iterator[Group]:
    scale = _scale(evidence)
    for pool in evidence.pools:
        of_pool = evidence.ok[(evidence.ok["pool"] == pool) & evidence.ok["variant"].isin(shown)]
        for family in sorted(of_pool["family"].unique(), key=lambda name: [*FAMILIES, name].index(name)):
            rows = evidence.ordered(of_pool[of_pool["family"] == family]).to_dict("records")
            title = f"{pool}: {members_in_words(evidence, pool)} · {FAMILIES.get(family, family)}"
            yield Group(title, [_row(evidence, row, scale, compared) for row in rows])


def _scale(evidence: Evidence) -> Scale | None:
    """The scale of all bars; None where no variant has a score."""
    score = evidence.score
    rows = evidence.ok[evidence.ok[score.name].notna()]
    if rows.empty:
        return None
    values = rows[score.name].to_numpy(float)
    lows, highs = (rows[end].to_numpy(float) for end in score.bounds) if score.bounds else (values, values)
    return scale_of(values, lows, highs, score.sign)


def _row(evidence: Evidence, row: dict[str, Any], scale: Scale | None, compared: list[Column]) -> dict[str, Any]:
    name = row["variant"]
    by_score = {column.name: _comparison(evidence, name, column) for column in compared}
    return {
        **row,
        "own_name": own_name(evidence, row),
        "cost_ratio": evidence.cost_ratio(row),
        "pareto": str(row["pareto"]) == "True",  # of an object column, where some variants have none
        "bar": _bar(evidence, row, scale),
        "low": row.get(evidence.score.bounds[0]) if evidence.score.bounds else None,
        "high": row.get(evidence.score.bounds[1]) if evidence.score.bounds else None,
        "difference": by_score.get(evidence.score.name),
        "by_score": by_score,
        "words": "; ".join(_words(column, told) for column in compared if (told := by_score[column.name])),
    }


def _comparison(evidence: Evidence, name: str, column: Column) -> dict[str, Any] | None:
    """A difference as the table has it, in the score's own direction; None for a reference."""
    gain = evidence.gain(name, column)
    if gain is None:
        return None
    low, high = _unturned(column, gain.low, gain.high)
    together = difference_interval(*_unturned(column, gain.low_together, gain.high_together), column.is_share)
    like = evidence.recipe_gain(name, column)
    return {"value": column.sign * gain.value, "low": low, "high": high, "verdict": gain.verdict, "together": together,
            "p": f"{gain.p_adjusted:.2g}", "recipe": like.verdict if like else ""}  # fmt: skip


def _unturned(column: Column, low: float, high: float) -> tuple[float, float]:
    return (low, high) if column.sign > 0 else (-high, -low)


def _words(column: Column, told: dict[str, Any]) -> str:
    """One score's comparison in a line: "NLL −0.075 [−0.098 .. −0.051], better"."""
    value = difference(told["value"], column.is_share)
    bounds = difference_interval(told["low"], told["high"], column.is_share)
    verdict = f", {told['verdict']}" if told["verdict"] else ""
    recipe = f"; of models like these {told['recipe']}" if told["recipe"] else ""
    return f"{column.title} {value} [{bounds}]{verdict}{recipe}"


def _bar(evidence: Evidence, row: dict[str, Any], scale: Scale | None) -> dict[str, Any] | None:
    """Where a score and its interval lie on the scale, in per cent of it, and whether the score is off it."""
    score = evidence.score
    value = row[score.name]
    if scale is None or pd.isna(value):
        return None
    ends = [row[end] for end in score.bounds] if score.bounds else [value, value]
    places = [scale.at(value if pd.isna(end) else end) for end in (ends[0], value, ends[1])]
    low, middle, high = (round(100 * min(max(place, 0.0), 1.0), 2) for place in places)
    off = "below" if places[1] < 0 else "above" if places[1] > 1 else ""
    reference = evidence.reference
    at = scale.at(reference[score.name]) if reference else math.nan
    line = round(100 * at, 2) if 0 <= at <= 1 else None
    return {"low": low, "value": middle, "high": high, "off": off, "reference": line}
