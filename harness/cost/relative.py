"""What models cost beside each other, for choices that are made before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from harness.cost import flops
from harness.cost.own import own_costs
from harness.evaluate.halving import with_fewer
from harness.types import NotApplicable, Part, Split, check_tokens

FEW = 8
"""Inputs that operations are counted on."""
FLOPS, CALLS = "FLOPs", "calls"


def relative_costs(parts: Sequence[Part], split: Split) -> tuple[list[float], str]:
    """What each part takes for an example of a split on average, and the unit: see ``costs_by_row``."""
    each, unit = costs_by_row(parts, split)
    return each.mean(dim=0).tolist(), unit


def _flops_on(part: Part, few: Tensor, count: int) -> float:
    return flops.count(partial(part.log_probs, few[:count])) / count


def costs_by_row(parts: Sequence[Part], split: Split) -> tuple[Tensor, str]:
    """What each part takes for each example, float64 [N, parts], or [1, parts] where all take the same; and the unit.

    The first cost that all members bring with their predictions, by its name ("money"); else FLOPs; or calls (1 each)
    where something cannot be counted, or is run by another's tokens.
    """
    for name, own in own_costs(parts, split.inputs).items():
        if own.sum() > 0:
            return own, name
    few = split.inputs[: min(FEW, split.batch)]
    try:
        check_tokens(parts, split)
        counted = [with_fewer(partial(_flops_on, part, few), len(few)) for part in parts]
    except NotApplicable:
        counted = []
    known = bool(counted) and all(counted)
    return torch.tensor([counted if known else [1.0] * len(parts)], dtype=torch.float64), FLOPS if known else CALLS
