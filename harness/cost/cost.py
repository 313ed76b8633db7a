"""The interface of a cost: what a combination takes to run, as columns of the results, in one decorated function."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness.cost.meters import Meter
from harness.registry import COSTS
from harness.results.metric import NAME, Column
from harness.types import Combination, Split

Load = Callable[[], Combination]
Figures = Mapping[str, Any]
"""JSON values by the names of the cost's columns, None where the meter gave none; its words; and more for ``derive``.

An interval stands under its stem: ``latency_ratio_low`` and ``latency_ratio_high``.
"""


@dataclass(frozen=True)
class Bench:
    """What a cost is measured on, in a process of its own that does nothing else meanwhile."""

    load: Load
    """Gives the combination as it was built, anew at every call."""
    reference: Load | None
    """The suite's reference; None for costs that are not measured beside it."""
    test: Split
    device: torch.device
    once: Figures
    """What ``Cost.once`` found, before any variant was measured; empty where it found nothing."""


@dataclass(frozen=True)
class Context:
    """What else is known of a measured variant when the tables are written, for columns that are derived."""

    device: torch.device
    row: Figures
    """Its columns so far: its scores, and what is counted."""
    scores_test: bool
    """Whether it is scored on the examples that costs are measured on, and not on questions of their own."""
    is_reference: bool
    reference: Figures | None
    """What the same cost found of the reference; None where it found nothing."""
    price_per_gpu_hour: float | None
    forecast: Callable[[], int | None]
    """The working memory in bytes that was to be expected before it was built; None where that is not known."""


@dataclass(frozen=True)
class Cost:
    """One registered cost."""

    name: str
    """Also its key under ``cost:`` of a suite."""
    columns: tuple[Column, ...]
    """The first is the one that its meter has to give: without it nothing is kept, and the next run tries again."""
    words: tuple[tuple[str, str], ...]
    """Columns of text with their meanings. ``<cost>_source`` says where figures come from, or why there are none."""
    seconds: float
    """About how long it takes, and ``once`` too."""
    measure: Callable[[Bench], Figures]
    module: str
    meters: Callable[[torch.device], Mapping[str, Meter]]
    """What reads it on a device, by what is read: ``stockpot doctor`` tries them."""
    unavailable: Callable[[torch.device], str | None]
    """Why a device has no meter for it; None if it has. It takes no time to find out."""
    once: Callable[[torch.device, Split], Figures | None] | None
    """What is measured once for all variants, before them, in a process that holds the task; None: no figure."""
    derive: Callable[[Figures, Context], Figures]
    """Columns that follow from its figures and what else is known; nothing is measured for them."""
    beside_reference: bool
    fresh: bool
    """Whether it needs a process that has done nothing yet, and so is the first to be measured in it."""
    usual: bool
    """Whether a suite that does not name it has it measured."""
    by_network: bool
    """Whether it is the same for all variants that are one dense network, whatever its weights: one is measured."""

    @property
    def source(self) -> str | None:
        """The column of words that says where its figures come from, if it has one."""
        name = f"{self.name}_source"
        return name if name in dict(self.words) else None

    @property
    def cells(self) -> tuple[str, ...]:
        """The names of all its columns, with those of intervals and of words."""
        stems = [column.interval for column in self.columns if column.interval]
        bounds = [f"{stem}_{end}" for stem in stems for end in ("low", "high")]
        return (*(column.name for column in self.columns), *bounds, *dict(self.words))

    def faults(self, figures: Figures) -> dict[str, str]:
        """What is wrong with figures, by their names: each is None, or a finite number that its column can have.

        Bounds of intervals are numbers too, and may lie outside the column's range.
        """
        found = {}
        for column in self.columns:
            for name in (column.name, *column.bounds):
                value = figures.get(name)
                if value is None:
                    continue
                if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
                    found[name] = f"{name} is {value!r}, which is no finite number"
                elif name == column.name and not column.least <= value <= column.most:
                    found[name] = f"{name} is {value!r}, of a range {column.least:g} to {column.most:g}"
        return found


def cost(
    name: str,
    *,
    columns: Sequence[Column],
    seconds: float,
    words: Sequence[tuple[str, str]] = (),
    meters: Callable[[torch.device], Mapping[str, Meter]] = lambda device: {},
    unavailable: Callable[[torch.device], str | None] = lambda device: None,
    once: Callable[[torch.device, Split], Figures | None] | None = None,
    derive: Callable[[Figures, Context], Figures] = lambda figures, context: {},
    beside_reference: bool = False,
    fresh: bool = False,
    usual: bool = False,
    by_network: bool = False,
) -> Callable[[Callable[[Bench], Figures]], Callable[[Bench], Figures]]:
    """Register ``function(bench) -> figures`` as a cost; see ``Cost`` for what the arguments say.

    Raises:
        ValueError: for a name that is no lower-case identifier, no column, or two columns of one name.
    """
    numbers = [each for column in columns for each in (column.name, *column.bounds)]
    _check_names(name, numbers, [word for word, _ in words])

    def register(function: Callable[[Bench], Figures]) -> Callable[[Bench], Figures]:
        COSTS.add(
            Cost(
                name=name,
                columns=tuple(columns),
                words=tuple(words),
                seconds=seconds,
                measure=function,
                module=function.__module__,
                meters=meters,
                unavailable=unavailable,
                once=once,
                derive=derive,
                beside_reference=beside_reference,
                fresh=fresh,
                usual=usual,
                by_network=by_network,
            )
        )
        return function

    return register


def _check_names(cost: str, numbers: list[str], words: list[str]) -> None:
    if not numbers:
        raise ValueError(f"cost '{cost}' has no column")
    for name in (cost, *numbers, *words):
        if not re.fullmatch(NAME, name):
            raise ValueError(f"names of costs and columns have lower-case letters, digits and '_' only: {name!r}")
    names = [*numbers, *words]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"cost '{cost}' has two columns '{twice[0]}'")
