"""What members' own files say that each of their answers cost: pools of predictions bring it with them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.models.lookup import PredictedWeights
from harness.results.serving import in_order
from harness.systems.parts import MemberPart
from harness.types import Part


def own_costs(parts: Sequence[Part], rows: Tensor) -> dict[str, Tensor]:
    """[N, parts] float64 of rows [N], by name: of the costs that all parts bring, the first to go by first."""
    costs = [_costs_of(part) for part in parts]
    shared = set.intersection(*map(set, costs)) if costs else set()
    return {name: torch.stack([each[name][rows].double() for each in costs], dim=1) for name in in_order(shared)}


def _costs_of(part: Part) -> dict[str, Tensor]:
    weights = part.member.weights if isinstance(part, MemberPart) else None
    return weights.costs() if isinstance(weights, PredictedWeights) else {}
