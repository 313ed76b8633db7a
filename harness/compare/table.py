"""A comparison as a table for people at a terminal."""

from __future__ import annotations

from harness.compare.runs import COUNTED, MEASURED, Comparison, RunComparison
from harness.display.formats import DASH, number, points, points_interval, printable, ratio
from harness.stats import Interval

COLUMNS = ("variant", "verdict", "accuracy, points", "p", "p corrected", "NLL", "bits per byte", "FLOPs", "latency",
           "memory", "reason")  # fmt: skip


def as_rows(found: RunComparison) -> tuple[list[str], list[list[str]]]:
    """The table for a terminal: columns (those that are empty in every row left out) and rows of text."""
    rows = [_row(item, found.other_machine) for item in found.variants]
    kept = [i for i, _ in enumerate(COLUMNS) if i < 2 or any(row[i] not in ("", DASH) for row in rows)]
    return [COLUMNS[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _row(item: Comparison, other_machine: str | None) -> list[str]:
    if item.accuracy is None:
        return [item.variant, item.verdict, *[DASH] * (len(COLUMNS) - 3), item.reason]
    costs = item.costs or {}
    words = [ratio(costs.get(column)) for column in COUNTED]
    words += ["other machine" if other_machine else ratio(costs.get(column)) for column in MEASURED]
    change = f"{points(item.accuracy.value)} [{points_interval(item.accuracy.low, item.accuracy.high)}]"
    tests = [DASH if p is None else f"{p:.2g}" for p in (item.p, item.p_corrected)]
    return [item.variant, item.verdict, change, *tests, _loss(item.nll), _loss(item.bits_per_byte), *words, ""]


def _loss(interval: Interval | None) -> str:
    if interval is None:
        return DASH
    sign = "+" if interval.value > 0 else ""
    return f"{sign}{number(interval.value)} [{number(interval.low)} .. {number(interval.high)}]"


def notes(found: RunComparison) -> list[str]:
    """What a reader of the table has to know, one line each."""
    lines = ["differences are the second run's minus the first's, with 95 % intervals; costs are ratios"]
    if found.suite_changed:
        lines.append("the suite was changed between the runs: variants that this touches are not comparable")
    if found.other_machine:
        lines.append(f"latency and memory are not compared: {found.other_machine}")
    lines += [
        f"only in the {which} run: {', '.join(names)}"
        for which, names in (("first", found.only_first), ("second", found.only_second))
        if names
    ]
    return [printable(line) for line in lines]
