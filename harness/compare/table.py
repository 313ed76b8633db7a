"""A comparison as a table for people at a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from harness.compare.runs import Comparison, RunComparison, compared_costs
from harness.display.formats import DASH, number, points, points_interval, ratio
from harness.display.lines import plain_line
from harness.results.columns import numbers
from harness.results.metric import Column
from harness.stats import Interval

WORDS = {"flops_per_example": "FLOPs", "latency_ms_p50": "latency", "peak_memory_bytes": "memory"}
"""Costs in fewer words."""


def as_rows(found: RunComparison) -> tuple[list[str], list[list[str]]]:
    """The table for a terminal: columns (those that are empty in every row left out) and rows of text."""
    others = [name for name, column in numbers().items() if column.outcome and name != "accuracy"]
    costs = compared_costs()
    columns = ["variant", "verdict", "accuracy, points", "p", "p corrected"]
    columns += [numbers()[name].title for name in others] + [WORDS.get(cost.name, cost.name) for cost in costs]
    columns.append("reason")
    rows = [_row(item, others, costs, found.other_machine) for item in found.variants]
    kept = [i for i, _ in enumerate(columns) if i < 2 or any(row[i] not in ("", DASH) for row in rows)]
    return [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _row(item: Comparison, others: Sequence[str], costs: Sequence[Column], other_machine: str | None) -> list[str]:
    if item.accuracy is None:
        return [item.variant, item.verdict, *[DASH] * (3 + len(others) + len(costs)), item.reason]
    change = f"{points(item.accuracy.value)} [{points_interval(item.accuracy.low, item.accuracy.high)}]"
    tests = [DASH if p is None else f"{p:.2g}" for p in (item.p, item.p_corrected)]
    losses = [_difference(item.differences.get(name)) for name in others]
    ratios = [
        "other machine" if cost.elsewhere and other_machine else ratio((item.costs or {}).get(cost.name))
        for cost in costs
    ]
    return [item.variant, item.verdict, change, *tests, *losses, *ratios, ""]


def _difference(interval: Interval | None) -> str:
    if interval is None:
        return DASH
    sign = "+" if interval.value > 0 else ""
    return f"{sign}{number(interval.value)} [{number(interval.low)} .. {number(interval.high)}]"


def notes(found: RunComparison) -> list[str]:
    """What a reader of the table has to know, one line each."""
    lines = ["differences are the second run's minus the first's, with 95 % intervals; costs are ratios"]
    if found.score != "accuracy":
        lines.append(f"verdicts and p go by the suite's score, {numbers()[found.score].title}")
    if found.suite_changed:
        lines.append("the suite was changed between the runs: variants that this touches are not comparable")
    if found.other_machine:
        lines.append(f"measured costs are not compared: {found.other_machine}")
    lines += [
        f"only in the {which} run: {', '.join(names)}"
        for which, names in (("first", found.only_first), ("second", found.only_second))
        if names
    ]
    return [plain_line(line) for line in lines]
