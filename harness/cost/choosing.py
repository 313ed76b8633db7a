"""Which costs a run measures, in what order and processes, and what their cells say where they are not measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from harness.cost.cost import Context, Cost, Figures
from harness.registry import COSTS

Asked = Callable[[str], bool]
"""Whether a suite asks for a cost, by its name."""

Meters = torch.device | Mapping[str, str | None]
"""The device of this machine; or what another said of its own: by cost, why it has no meter, None where it has one."""


def chosen(asked: Asked, meters: Meters) -> tuple[Cost, ...]:
    """The costs that a suite asks for and the device has a meter for, in the order in which they are measured.

    Those that need a fresh process come first, then the quick ones.
    """
    wanted = [cost for cost in COSTS if asked(cost.name) and why_no_meter(cost, meters) is None]
    return tuple(sorted(wanted, key=lambda cost: (not cost.fresh, cost.seconds, cost.name)))


def sittings(costs: Sequence[Cost]) -> list[tuple[Cost, ...]]:
    """Costs by the process that measures them, all in the given order: each that needs a fresh one begins another."""
    first = [cost for cost in costs if cost.fresh]
    rest = tuple(cost for cost in costs if not cost.fresh)
    if not first:
        return [rest] if rest else []
    return [(first[0], *rest), *((cost,) for cost in first[1:])]


def why_not_here(cost: Cost, asked: Asked, meters: Meters) -> str | None:
    """Why a run measures a cost of no variant at all; None where it does."""
    return why_no_meter(cost, meters) if asked(cost.name) else "the suite does not ask for it"


def why_no_meter(cost: Cost, meters: Meters) -> str | None:
    """Why a cost cannot be measured there; None where it can."""
    return cost.unavailable(meters) if isinstance(meters, torch.device) else meters.get(cost.name)


def cells(
    cost: Cost, found: Figures, context: Context, tell: Callable[[str], None] = lambda problem: None
) -> dict[str, Any]:
    """The cost's columns of a variant: what was measured, and what is derived from that; of nothing else.

    Args:
        cost: what was measured.
        found: its figures.
        context: what else is known.
        tell: is given a sentence for everything that cannot be derived; those columns are None.
    """
    derived: dict[str, Any] = {}
    if cost.columns[0].name in found:
        try:
            derived = dict(cost.derive(found, context))
        except Exception as error:  # a fault of one cost takes no run with it
            derived = {column.name: None for column in cost.columns if column.name not in found}
            tell(f"{cost.name}: nothing is derived from its figures: {type(error).__name__}: {error}")
    for name, problem in cost.faults(derived).items():
        derived[name] = None
        tell(f"{cost.name}: {problem}")
    return {name: value for name, value in {**found, **derived}.items() if name in cost.cells}
