"""The section "Equal compute": for each budget the best of each way to spend it, and which way is best, if any is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from harness.display.formats import counted, difference, difference_interval, ratio
from harness.report.evidence import Evidence, Gain
from harness.report.words import amount, cost_in_words, gain_in_words, interval, reference_in_words, unit
from harness.results.columns import column_of
from harness.results.metric import Column


@dataclass(frozen=True)
class Cell:
    """The best of a way within a budget, as the templates show it."""

    gain: str
    interval: str
    variant: str
    cost: str
    verdict: str
    again: bool
    """Whether it is what a smaller budget has."""


@dataclass(frozen=True)
class EqualCompute:
    """What the templates show."""

    budgets: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    words: str
    answer: str
    """Which way of spending compute is best; empty where that is not clear."""


def equal_compute(evidence: Evidence) -> EqualCompute | None:
    """The section; None where the run has no curves, or nothing to compare."""
    found = evidence.run.curves
    score = column_of(found["score"]) if found else None
    if found is None or score is None or evidence.reference is None or not found["equal_compute"]:
        return None
    record = found["equal_compute"]
    rows = tuple((way["words"], tuple(_cells(way["cells"], score))) for way in record["ways"])
    budgets = tuple(f"{budget}×" for budget in record["budgets"])
    better = f"lower {score.title}" if score.sign < 0 else f"higher {score.title}"
    points = ", in percentage points" if score.is_share else ""
    words = (
        f"What the best variant of each way gains over {reference_in_words(evidence)} within a budget of "
        f"{evidence.serving.title}{points}; above 0 is {better}. Each is picked on the test examples: its gain is "
        "corrected for the pick, and its 95 % interval, of these models, holds for all variants of the run at once."
    )
    return EqualCompute(budgets, rows, words, _answer(evidence, record, score))


def _cells(cells: list[dict[str, Any] | None], score: Column) -> list[Cell | None]:
    found: list[Cell | None] = []
    before = None
    for cell in cells:
        if cell is None:
            found.append(None)
            continue
        ends = difference_interval(cell["low"], cell["high"], score.is_share)
        told = difference(cell["corrected"], score.is_share)
        found.append(Cell(told, ends, cell["variant"], ratio(cell["cost"]), cell["verdict"], cell["variant"] == before))
        before = cell["variant"]
    return found


def _answer(evidence: Evidence, record: dict[str, Any], score: Column) -> str:
    """One sentence: where a budget's best is better than the reference, and what is shown of it against the rest."""
    leaders = [_leader(record, at) for at in range(len(record["budgets"]))]
    first = next((leader for leader in leaders if leader), None)
    last = leaders[-1]
    if first is None or last is None:
        return ""
    most = record["budgets"][-1]
    if last[1]["variant"] == first[1]["variant"] or not _shown(record, last[1], first[1]):
        others = [way["cells"][-1] for way in record["ways"] if way is not first[0]]
        at = cost_in_words(first[1]["cost"])
        told = f"{_way(first)} at {at}: {_gain(score, first[1], reference_in_words(evidence))}"
        if not any(others):
            return ""
        is_best = all(_shown(record, first[1], other) for other in others if other)
        end = (
            f"more than any other way does with up to {counted(most)} times the {evidence.serving.title}"
            if is_best
            else f"and no other way is shown to gain more with up to {counted(most)} times the {evidence.serving.title}"
        )
        return f"{told}, {end}."
    others = [way["cells"][-1] for way in record["ways"] if way is not last[0]]
    if not all(_shown(record, last[1], other) for other in others if other):
        return ""
    more = _pair(record, last[1], first[1])
    assert more is not None
    half = (more["high"] - more["low"]) / 2
    over = f"{amount(score, more['gain'], half)}{unit(score)}"
    return (
        f"With up to {counted(most)} times the {evidence.serving.title}, {_way(last, start=False)} is best: "
        f"{_gain(score, last[1], reference_in_words(evidence))}, which is {over} more than "
        f"{_way(first, start=False)} at {cost_in_words(first[1]['cost'])} "
        f"({interval(score, more['low'], more['high'])})."
    )


Leader = tuple[dict[str, Any], dict[str, Any]]
"""A way and its cell."""


def _leader(record: dict[str, Any], at: int) -> Leader | None:
    """The way whose best gains most within a budget, if it is better than the reference; of equals the cheaper one."""
    cells = [(way, way["cells"][at]) for way in record["ways"] if way["cells"][at]]
    best = max(cells, key=lambda pair: (pair[1]["corrected"], -pair[1]["cost"]), default=None)
    return best if best and best[1]["verdict"] == "better" else None


def _pair(record: dict[str, Any], one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any] | None:
    """What one gains over the other, turned as asked."""
    for pair in record["pairs"]:
        if (pair["one"], pair["other"]) == (one["variant"], other["variant"]):
            return dict(pair)
        if (pair["other"], pair["one"]) == (one["variant"], other["variant"]):
            return {"gain": -pair["gain"], "low": -pair["high"], "high": -pair["low"]}
    return None


def _shown(record: dict[str, Any], one: dict[str, Any], other: dict[str, Any]) -> bool:
    pair = _pair(record, one, other)
    return pair is not None and pair["low"] > 0


def _way(leader: Leader, *, start: bool = True) -> str:
    words = f"{leader[0]['words']} ({leader[1]['variant']})"
    return words[0].upper() + words[1:] if start else words


def _gain(score: Column, cell: dict[str, Any], than: str | None = None) -> str:
    low, high = cell["low"], cell["high"]
    gain = Gain(cell["corrected"], low, high, low, high, math.nan, math.nan, math.nan, cell["verdict"], "", 0)
    return gain_in_words(score, gain, than, interval(score, low, high))
