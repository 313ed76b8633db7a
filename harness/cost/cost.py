"""The interface of a cost: what a combination takes to run, as columns of the results, in one decorated function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness.registry import COSTS
from harness.results.metric import Column
from harness.types import Combination, Split

Load = Callable[[], Combination]
Figures = Mapping[str, Any]
"""Numbers by the names of the cost's columns, None where the meter gave none; and words, under ``<cost>_source``."""


@dataclass(frozen=True)
class Bench:
    """What a cost is measured on, in a process of its own that does nothing else meanwhile."""

    load: Load
    """Gives the combination as it was built, anew at every call."""
    reference: Load | None
    """The suite's reference, for costs that are ratios to it; None where it cannot be run."""
    test: Split
    device: torch.device
    once: Figures
    """What ``Cost.once`` found, before any variant was measured; empty without it."""


@dataclass(frozen=True)
class Cost:
    """One registered cost."""

    name: str
    """Also its key under ``cost:`` of a suite."""
    columns: tuple[Column, ...]
    seconds: float
    """About how long it takes."""
    measure: Callable[[Bench], Figures]
    module: str
    unavailable: Callable[[torch.device], str | None]
    """Why a device has no meter for it; None if it has. It takes no time to find out."""
    once: Callable[[torch.device, Split], Figures] | None
    """What is measured once for all variants, before them."""
    beside_reference: bool
    fresh: bool
    """Whether it needs a process that has done nothing yet, and so is the first to be measured in it."""
    usual: bool
    """Whether a suite that does not name it has it measured."""


def cost(
    name: str,
    *,
    columns: Sequence[Column],
    seconds: float,
    unavailable: Callable[[torch.device], str | None] = lambda device: None,
    once: Callable[[torch.device, Split], Figures] | None = None,
    beside_reference: bool = False,
    fresh: bool = False,
    usual: bool = False,
) -> Callable[[Callable[[Bench], Figures]], Callable[[Bench], Figures]]:
    """Register ``function(bench) -> figures`` as a cost; see ``Cost`` for what the arguments say."""

    def register(function: Callable[[Bench], Figures]) -> Callable[[Bench], Figures]:
        COSTS.add(
            Cost(
                name=name,
                columns=tuple(columns),
                seconds=seconds,
                measure=function,
                module=function.__module__,
                unavailable=unavailable,
                once=once,
                beside_reference=beside_reference,
                fresh=fresh,
                usual=usual,
            )
        )
        return function

    return register
