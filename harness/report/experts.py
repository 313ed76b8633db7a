"""Mixtures of experts: which experts run, how evenly, and whether some have been given up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.display.formats import amount, percent
from harness.report.evidence import Evidence

IDLE = 0.1
"""An expert that runs for less than this share of an even load is as good as given up."""


@dataclass(frozen=True)
class Use:
    """What a mixture's experts ran for on test, with one seed."""

    seed: str
    layers: dict[str, dict[str, Any]]
    """By layer ``load``, of each expert, and ``by_group``."""
    dropped: float
    in_training: list[list[float]]
    """The loads in equal parts of the training, in order; empty where none are known."""

    @property
    def loads(self) -> list[np.ndarray]:
        """Of each layer the share of rows that each expert runs for."""
        return [np.asarray(layer["load"], float) for layer in self.layers.values()]

    @property
    def all_run(self) -> bool:
        """Whether every expert runs for every row, so that nothing is chosen."""
        return all(bool((load > 1 - 1e-9).all()) for load in self.loads)


def uses_of(evidence: Evidence) -> dict[str, list[Use]]:
    """By variant, in the order of the table, what each seed's experts ran for."""
    found: dict[str, list[Use]] = {}
    for name in map(str, evidence.ordered(evidence.ok)["variant"]):
        for seed, details in evidence.run.details.get(name, {}).items():
            if use := details.get("experts"):
                training = details.get("load_in_training", [])
                found.setdefault(name, []).append(Use(seed, use["layers"], use["dropped"], training))
    return found


def experts_of(evidence: Evidence) -> list[dict[str, Any]] | None:
    """A row for each mixture of experts; None for a run without any."""
    return [_row(evidence, name, uses) for name, uses in uses_of(evidence).items()] or None


def _row(evidence: Evidence, name: str, uses: list[Use]) -> dict[str, Any]:
    row = evidence.by_name[name]
    load = uses[0].loads[0]
    dropped = float(np.mean([use.dropped for use in uses]))
    return {
        "variant": name,
        "experts": f"{load.sum():.0f} of {len(load)}",
        "active": f"{amount(row['params_active'])} of {amount(row['params_stored'])}",
        "busiest": "–" if uses[0].all_run else f"{np.mean([max(map(busiest, use.loads)) for use in uses]):.2f}×",
        "training": _in_training(uses),
        "idle": _idle(uses),
        "dropped": percent(dropped) if dropped else "none",
    }


def busiest(load: np.ndarray) -> float:
    """The load of the busiest expert in units of an even load: 1 where all run as often."""
    return float(load.max() / load.mean())


def _in_training(uses: list[Use]) -> str:
    """The busiest expert in the first and in the last part of the training."""
    known = [use.in_training for use in uses if use.in_training]
    if not known or uses[0].all_run:
        return "–"
    first, last = (np.mean([busiest(np.asarray(parts[at])) for parts in known]) for at in (0, -1))
    return f"{first:.2f}× → {last:.2f}×"


def _idle(uses: list[Use]) -> str:
    """The experts that are given up, in words."""
    found = [(use, *where) for use in uses for where in _idle_experts(use)]
    if not found:
        return "none"
    told = []
    for use, layer, expert, share in found[:3]:
        where = f" of {layer}" if len(use.layers) > 1 else ""
        seed = f" (seed {use.seed})" if len(uses) > 1 else ""
        told.append(f"expert {expert}{where} runs for {percent(share, 1)}{seed}")
    more = f", and {len(found) - 3} more" if len(found) > 3 else ""
    return "; ".join(told) + more


def _idle_experts(use: Use) -> Iterator[tuple[str, int, float]]:
    for layer, load in zip(use.layers, use.loads, strict=True):
        for expert in np.flatnonzero(load < IDLE * load.mean()):
            yield layer, int(expert), float(load[expert])
