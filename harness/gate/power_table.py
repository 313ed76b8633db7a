"""The power of a policy's rules as a table for people at a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from harness.display.formats import DASH, number, points
from harness.gate.power import RulePower

COLUMNS = ("rule", "tests", "margin", "needs", "has", "lacks", "power", "verdict", "assuming")


def as_rows(powers: Sequence[RulePower]) -> list[list[str]]:
    """A row of text for each rule, under ``COLUMNS``."""
    return [
        [
            power.rule,
            str(power.tests) if power.tests else DASH,
            _margin_words(power),
            DASH if power.needed is None else f"{power.needed:,}",
            DASH if power.has is None else f"{power.has:,}",
            f"{power.lacking:,}" if power.lacking else DASH,
            number(power.power, 2),
            power.state,
            power.note,
        ]
        for power in powers
    ]


def _margin_words(power: RulePower) -> str:
    if power.margin is None:
        return DASH
    if power.metric == "accuracy":
        return f"{points(power.margin).removeprefix('+')} points"
    return f"{number(power.margin)} {power.metric}"
