"""Mixtures of experts: which experts run, how evenly, and whether some have been given up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.display.formats import amount, difference, difference_interval, percent, ratio, scored
from harness.report.evidence import Evidence

NONE = "none"
IDLE = 0.1
"""An expert that runs for less than this share of an even load is as good as given up."""
SHOWN = 3
"""Experts of a mixture that are told to be idle, at most."""


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


def experts_of(evidence: Evidence) -> dict[str, Any] | None:
    """A row for each mixture of experts; None for a run without any."""
    rows = [_row(evidence, name, uses) for name, uses in uses_of(evidence).items()]
    if not rows:
        return None
    return {"score": evidence.score.title, "rows": rows, "drops": any(row["dropped"] != NONE for row in rows)}


def _row(evidence: Evidence, name: str, uses: list[Use]) -> dict[str, Any]:
    row, is_share = evidence.by_name[name], evidence.score.is_share
    load = uses[0].loads[0]
    dropped = float(np.mean([use.dropped for use in uses]))
    gain = evidence.gain(name)
    ends = f" [{difference_interval(gain.low, gain.high, is_share)}]" if gain else ""
    return {
        "variant": name,
        "score": scored(row.get(evidence.score.name), is_share),
        "gain": difference(gain.value if gain else None, is_share) + ends,
        "flops": ratio(evidence.own_cost_ratio(row)),
        "experts": f"{load.sum():.0f} of {len(load)}",
        "active": f"{amount(row['params_active'])} of {amount(row['params_stored'])}",
        "busiest": "–" if uses[0].all_run else f"{np.mean([max(map(busiest, use.loads)) for use in uses]):.2f}×",
        "training": _in_training(uses),
        "idle": _idle(uses),
        "dropped": percent(dropped) if dropped else NONE,
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
    """The experts that are given up, in words: those of most seeds first."""
    found: dict[tuple[str, int], list[float]] = {}
    for use in uses:
        for layer, expert, share in _idle_experts(use):
            found.setdefault((layer, expert), []).append(share)
    told = []
    for (layer, expert), shares in sorted(found.items(), key=lambda each: -len(each[1]))[:SHOWN]:
        where = f" of {layer}" if len(uses[0].layers) > 1 else ""
        seeds = f" (in {len(shares)} of {len(uses)} seeds)" if len(uses) > 1 else ""
        told.append(f"expert {expert}{where} runs for {percent(float(np.mean(shares)), 1)}{seeds}")
    more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(told) + more if told else NONE


def _idle_experts(use: Use) -> Iterator[tuple[str, int, float]]:
    for layer, load in zip(use.layers, use.loads, strict=True):
        for expert in np.flatnonzero(load < IDLE * load.mean()):
            yield layer, int(expert), float(load[expert])
