"""What it costs to serve a variant: what budgets, fronts and pictures of a run go by."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from harness.results.columns import column_of
from harness.results.metric import Column
from harness.results.other_columns import OWN_COST
from harness.results.run import Run

FLOPS = "flops_per_example"
FIRST = ("money", "tokens", "ms")
"""Of the costs that members bring themselves, which comes first; then by name."""


@dataclass(frozen=True)
class Serving:
    """By what a run counts the cost of serving."""

    cost: Column | None
    """The number that has it; None where no cost is known."""
    title: str
    """What prose calls its unit: "FLOPs", or "money"."""
    why_no_costs: str
    """Why nothing was counted or measured; empty where it was."""


def own_costs(metrics: Collection[str]) -> list[str]:
    """Those of these measures that say what members cost by their own files, the first to go by first."""
    prefix = f"{OWN_COST.name}/"
    order = [f"{prefix}{name}" for name in FIRST]
    found = sorted(name for name in metrics if name.startswith(prefix))
    return sorted(found, key=lambda name: order.index(name) if name in order else len(order))


def title_of(cost: str) -> str:
    """What prose calls the unit of a cost: "money" of "cost/money"."""
    return "FLOPs" if cost == FLOPS else cost.partition("/")[2]


def serving_of(run: Run) -> Serving:
    """What a run says of it; those from before it did went by FLOPs."""
    said = run.record.get("serving") or {"cost": FLOPS, "why_no_costs": None}
    name = said["cost"]
    return Serving(column_of(name) if name else None, title_of(name) if name else "", said["why_no_costs"] or "")
