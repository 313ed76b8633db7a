"""What it costs to serve a variant: what budgets, fronts and pictures of a run go by."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from harness.results.columns import ALL_SEEDS, column_of
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
    return [f"{prefix}{name}" for name in in_order([m.removeprefix(prefix) for m in metrics if m.startswith(prefix)])]


def in_order(names: Collection[str]) -> list[str]:
    """Names of costs that members bring: those that come first, then the others."""
    return sorted(names, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))


def title_of(cost: str) -> str:
    """What prose calls the unit of a cost: "money" of "cost/money"."""
    return "FLOPs" if cost == FLOPS else cost.partition("/")[2]


def serving_of(run: Run) -> Serving:
    """What a run says of it; those from before it did went by FLOPs."""
    said = run.record.get("serving") or {"cost": FLOPS, "why_no_costs": None}
    name = said["cost"]
    return Serving(column_of(name) if name else None, title_of(name) if name else "", said["why_no_costs"] or "")


def cost_ratios(run: Run) -> dict[str, float]:
    """What each variant costs to serve in units of the reference's, those of which it is known."""
    serving, rows = serving_of(run), run.variants
    rows = rows[(rows["seed"] == ALL_SEEDS) & (rows["status"] == "ok")]
    if serving.cost is None:
        return {}
    name = serving.cost.name
    costs = dict(zip(rows["variant"], rows[name], strict=True)) if name in rows else dict(run.measures.get(name, {}))
    reference = costs.get(run.record["reference"]["variant"], math.nan)
    known = {variant: cost for variant, cost in costs.items() if cost > 0 and variant in set(rows["variant"])}
    return {variant: float(cost / reference) for variant, cost in known.items()} if reference > 0 else {}
