"""The laws of costs: what every registered cost owes a run, measured on small combinations of three networks."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from harness.checks.law import law, laws, require
from harness.checks.pools import build_method, fine_tunes, on_test, split
from harness.cost.choosing import cells
from harness.cost.cost import Bench, Context, Cost, Figures
from harness.registry import COSTS
from harness.results.metric import SOURCES
from harness.systems.dropout import hash_of
from harness.types import Combination

AT_ONCE = 1.0
"""Seconds in which it is known whether there is a meter."""


def check_cost(name: str) -> None:
    """Run every law on a registered cost; on a machine without its meter, those that measure nothing.

    Raises:
        BrokenLaw: the first that does not hold.
    """
    cost = COSTS.get(name)
    for each in laws("cost"):
        each(cost)


def device_of(cost: Cost) -> torch.device | None:
    """A device of this machine that has a meter for it; None if there is none."""
    devices = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
    return next((device for device in devices if cost.unavailable(device) is None), None)


@dataclass(frozen=True)
class Measured:
    """A cost measured twice in one process: what it gave, its cells, and what became of the combinations it loaded."""

    figures: tuple[Figures, Figures]
    cells: tuple[Mapping[str, Any], Mapping[str, Any]]
    derived: Figures
    loaded: tuple[tuple[Combination, str], ...]
    """Each with its fingerprint when it was loaded."""


@cache
def measured(cost: Cost) -> Measured | None:
    """One linear combination beside one member; None on a machine without a meter."""
    device = device_of(cost)
    if device is None:
        return None
    loaded: list[tuple[Combination, str]] = []

    def load(method: str) -> Callable[[], Combination]:
        def build() -> Combination:
            combination = build_method(method, fine_tunes())
            for part in combination.parts():
                part.module.to(device)
            loaded.append((combination, _fingerprint(combination)))
            return combination

        return build

    test = split("test")
    once = (cost.once(device, test) if cost.once else None) or {}
    reference = load("best_single") if cost.beside_reference else None
    bench = Bench(load("linear"), reference, test, device, once)
    figures = cost.measure(bench), cost.measure(bench)
    context = Context(device, {"accuracy": 0.5}, True, False, figures[0], 1.0, lambda: 2**20)
    has_first = figures[0].get(cost.columns[0].name) is not None
    derived = cost.derive(figures[0], context) if has_first else {}
    first, second = (cells(cost, each, context) for each in figures)
    return Measured(figures, (first, second), derived, tuple(loaded))


def _fingerprint(combination: Combination) -> str:
    weights = [hash_of(tensor) for part in combination.parts() for tensor in part.module.state_dict().values()]
    return f"{weights} {[part.module.training for part in combination.parts()]}"


@law("cost")
def its_columns_say_what_they_are(cost: Cost) -> None:
    """There is a column; names are identifiers of their own, meanings are told, ranges not empty, sources known."""
    require(cost.columns, "it has no column")
    require(len(set(cost.cells)) == len(cost.cells), f"two of its columns have one name: {cost.cells}")
    require(cost.seconds > 0, "it says to take no time")
    for column in cost.columns:
        require(column.name.isidentifier(), f"'{column.name}' is no identifier")
        require(len(column.meaning.split()) > 1, f"the meaning of {column.name} is not told: '{column.meaning}'")
        require(column.least < column.most, f"the range of {column.name} is empty")
        known = (*SOURCES, *dict(cost.words))
        require(column.source in known, f"the source of {column.name} is '{column.source}', none of {', '.join(known)}")


@law("cost")
def its_columns_are_no_others(cost: Cost) -> None:
    """No other cost has a column of the same name."""
    for other in COSTS:
        if other.name != cost.name:
            shared = set(cost.cells) & set(other.cells)
            require(not shared, f"the cost '{other.name}' has columns of the same names: {sorted(shared)}")


@law("cost")
def a_missing_meter_is_known_at_once(cost: Cost) -> None:
    """Whether a device has a meter is told within a second, with a sentence where it has none."""
    for device in (torch.device("cpu"), torch.device("cuda")):
        cost.unavailable(device)  # the first call may import a library
        begin = time.perf_counter()
        reason = cost.unavailable(device)
        seconds = time.perf_counter() - begin
        require(seconds < AT_ONCE, f"it took {seconds:.1f} s to find out whether {device} has a meter")
        require(reason is None or len(reason.split()) > 1, f"{device} has no meter, and the reason is '{reason}'")


@law("cost")
def every_column_is_given(cost: Cost) -> None:
    """Each column is a number or None, measured or derived; without the first, its source column says why."""
    if (found := measured(cost)) is None:
        return
    for figures, row in zip(found.figures, found.cells, strict=True):
        if figures.get(cost.columns[0].name) is None:
            reason = figures.get(cost.source or "")
            require(isinstance(reason, str) and reason, f"there is no {cost.columns[0].name}, and no word says why")
            continue
        for column in cost.columns:
            require(column.name in row, f"{column.name} is not given (None, where there is no figure)")
            value = row[column.name]
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            require(value is None or is_number, f"{column.name} is {value!r}")
        for name in dict(cost.words):
            require(isinstance(row.get(name, ""), str), f"{name} is {row.get(name)!r}, and no text")


@law("cost")
def little_is_enough_to_derive(cost: Cost) -> None:
    """Columns are derived, or None, also without scores, a price, a forecast or figures of the reference."""
    device = device_of(cost)
    if device is None or (found := measured(cost)) is None:
        return
    for figures in found.figures:
        if figures.get(cost.columns[0].name) is None:
            continue
        for is_reference, scores_test in ((True, True), (True, False), (False, True)):
            context = Context(device, {}, scores_test, is_reference, None, None, lambda: None)
            problems = list(cost.faults(cost.derive(figures, context)).values())
            require(not problems, f"of a variant of which little is known, {(problems or [''])[0]}")


@law("cost")
def nothing_undeclared_is_given(cost: Cost) -> None:
    """Figures are those of its columns, intervals and words; more is measured only for what is derived from it."""
    if (found := measured(cost)) is None:
        return
    given = set(found.derived)
    if cost.derive.__module__ == Cost.__module__:  # the default, which derives nothing
        given |= {name for figures in found.figures for name in figures}
    require(given <= set(cost.cells), f"no column is declared for {sorted(given - set(cost.cells))}")


@law("cost")
def figures_are_within_range(cost: Cost) -> None:
    """Every number is finite and from ``least`` to ``most``; bounds of an interval are in order."""
    if (found := measured(cost)) is None:
        return
    for row in found.cells:
        for column in cost.columns:
            value = row.get(column.name)
            if value is None:
                continue
            inside = math.isfinite(value) and column.least <= value <= column.most
            require(inside, f"{column.name} is {value}, of a range {column.least} to {column.most}")
            if column.interval is not None:
                low, high = row.get(f"{column.interval}_low"), row.get(f"{column.interval}_high")
                ordered = low is None or high is None or low <= high
                require(ordered, f"the interval of {column.name} is {low} to {high}")


@law("cost")
def figures_can_be_kept(cost: Cost) -> None:
    """What is measured are JSON values without NaN: they are stored, and read again."""
    if (found := measured(cost)) is None:
        return
    for figures in found.figures:
        kept = json.loads(json.dumps(dict(figures), allow_nan=False))
        require(kept.keys() == figures.keys(), f"not all names are text: {list(figures)}")


@law("cost")
def it_can_be_measured_again(cost: Cost) -> None:
    """A second measurement in the same process gives the same columns."""
    if (found := measured(cost)) is None:
        return
    first, second = (set(row) for row in found.cells)
    require(first == second, f"the second measurement gives other columns: {sorted(first ^ second)}")


@law("cost")
def the_combination_is_unchanged(cost: Cost) -> None:
    """What was measured still has its weights, in eval mode, and says what it said."""
    if (found := measured(cost)) is None:
        return
    require(found.loaded, "it measured nothing: neither 'load' nor 'reference' was called")
    expected = {name: on_test(build_method(name, fine_tunes())) for name in ("linear", "best_single")}
    for combination, before in found.loaded:
        require(_fingerprint(combination) == before, "weights, or the mode of a network, have changed")
        if device_of(cost) == torch.device("cpu"):
            said = on_test(combination)
            require(any(torch.equal(said, each) for each in expected.values()), "it says something else afterwards")
