"""Variants, costs and gains in the words of prose, from what methods, pools and metrics declare of themselves."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.display.formats import MINUS, counted
from harness.methods.method import POOLS
from harness.registry import METHODS
from harness.report.evidence import Evidence, Gain
from harness.results.metric import Column

SAME_COST = 0.05
"""Costs this close to a whole multiple are called that multiple."""


def in_words(evidence: Evidence, row: dict[str, Any]) -> str:
    """What a variant is, without an article: "uniform soup of eight fine-tunes", "single model 'restorer'"."""
    if name := own_name(evidence, row):
        return f"single model '{name}'"
    declared = METHODS.all().get(row["method"])
    parameters = json.loads(row["params"]) if isinstance(row.get("params"), str) else {}
    if declared is None:  # of a plug-in, or a version, that is not here
        return str(row["method"]).replace("_", " ")
    return declared.phrase(parameters, members_in_words(evidence, row["pool"], row.get("members")))


def members_in_words(evidence: Evidence, pool: str, given: Any = None) -> str:
    """Members of a pool: "eight fine-tunes", "two of the eight fine-tunes"."""
    record = evidence.run.record["pools"].get(pool, {})
    kind = str(record.get("kind", "models"))
    plural = POOLS.get(kind, kind.replace("_", " "))
    whole = record.get("members")
    count = whole if given is None or math.isnan(given) else int(given)
    if not count:
        return plural
    if whole and count < whole:
        return f"{counted(count)} of the {counted(whole)} {plural}"
    return "one model" if count == 1 else f"{counted(count)} {plural}"


def own_name(evidence: Evidence, row: dict[str, Any]) -> str:
    """What the user calls the one member that a variant is: its name, or its folder's; empty where that says nothing.

    Members that are trained here, or lie in folders, are numbered: m0, m1 and so on.
    """
    if row["method"] != "member":
        return ""
    members = _members(evidence, row["pool"])
    position = json.loads(row["params"]).get("index") if isinstance(row.get("params"), str) else None
    if not isinstance(position, int) or position >= len(members) or "members=" in row["variant"]:
        return ""
    return _own_name(members[position])


def stage_title(evidence: Evidence, pool: str, title: str) -> str:
    """A stage's number and model, as its user knows that: "1 restorer"."""
    number, _, name = title.partition(" ")
    named = next((_own_name(member) for member in _members(evidence, pool) if member["name"] == name), "")
    return f"{number} {named or name}"


def _members(evidence: Evidence, pool: str) -> list[dict[str, Any]]:
    """What is recorded of each member of a pool, in order."""
    record = evidence.run.record["pools"].get(pool, {})
    listed: list[dict[str, Any]] = next((seed["members"] for seed in record.get("seeds", {}).values()), [])
    before = len(listed) - record.get("members", 0)  # the base; fewer are one run's checkpoints
    return listed[before:] if before >= 0 else []


def _own_name(member: Mapping[str, Any]) -> str:
    if not re.fullmatch(r"m\d+", member["name"]):
        return str(member["name"])
    where = re.fullmatch(r"(?:folder|adapter) (.+)", str(member.get("how", "")))
    return Path(where[1]).name if where else ""


def reference_in_words(evidence: Evidence) -> str:
    """What everything is compared with: "your best single model"."""
    reference = evidence.reference
    assert reference is not None
    whose = "your" if reference["family"] == "single" else "the"
    return f"{whose} {in_words(evidence, reference)}"


def serving_in_words(evidence: Evidence) -> str:
    """By what costs are counted: "costs are FLOPs at inference"."""
    serving = evidence.serving
    if serving.cost is None:
        return f"what serving costs is not known: {serving.why_no_costs}"
    if serving.why_no_costs:
        return f"costs are {serving.title} for an answer, as the members' own files say"
    return f"costs are {serving.title} at inference"


def cost_in_words(ratio: float) -> str:
    """A serving cost in units of the reference's: "the cost of one model", "eight times the cost"."""
    whole = round(ratio)
    if whole < 1 or abs(ratio / whole - 1) > SAME_COST:
        return f"{ratio:.2g} times the cost"
    return {1: "the cost of one model", 2: "twice the cost"}.get(whole, f"{counted(whole)} times the cost")


def amount(column: Column, value: float, half_width: float | None = None) -> str:
    """A score's difference in its unit, without the unit: of shares in points, as exact as the interval makes it."""
    if not column.is_share:
        return _rounded(value, 3)
    half = 100 * half_width if half_width is not None and half_width > 0 else 1.0
    return _rounded(100 * value, min(2, max(1, math.ceil(0.3 - math.log10(half)))))


def _rounded(value: float, digits: int) -> str:
    """With one digit more where all of them would be zeros of a bound that is none."""
    text = f"{value:.{digits}f}"
    if value and not float(text):
        text = f"{value:.{digits + 1}f}"
    return (text if float(text) else text.removeprefix("-")).replace("-", MINUS)


def unit(column: Column) -> str:
    """The unit of such a difference, with a blank before it; empty where the score's name says it."""
    if column.is_share:
        return " points"
    return f" {column.unit}" if column.unit and column.unit not in column.title else ""


def interval(column: Column, low: float, high: float) -> str:
    """"1.0 to 1.6"."""
    half = (high - low) / 2
    return f"{amount(column, low, half)} to {amount(column, high, half)}"


def gain_in_words(column: Column, gain: Gain, than: str | None, scopes: str) -> str:
    """A gain over something: "+1.3 points of accuracy over your best single model (1.0 to 1.6)".

    Args:
        column: the score.
        gain: in it.
        than: what it is a gain over; None where that has just been said.
        scopes: the intervals in words.
    """
    value = amount(column, gain.value, (gain.high_together - gain.low_together) / 2)
    if column.sign < 0:
        over = f" than that of {than}" if than else ""
        return f"{column.title} lower by {value}{unit(column)}{over} ({scopes})"
    plus, over = "" if value.startswith(MINUS) else "+", f" over {than}" if than else ""
    return f"{plus}{value}{unit(column)} of {column.title}{over} ({scopes})"
