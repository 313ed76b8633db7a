"""What models cost beside each other, for choices that are made before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from harness.cost import flops
from harness.types import NotApplicable, Part, Split, check_tokens

FEW = 8
"""Inputs that operations are counted on."""
FLOPS, CALLS = "FLOPs", "calls"


def relative_costs(parts: Sequence[Part], split: Split) -> tuple[list[float], str]:
    """What each part takes for an example, and the unit: FLOPs, or calls (1 each) where something cannot be counted.

    Members that are known by their predictions alone take no operations, and some run by another's tokens.
    """
    few = split.inputs[: min(FEW, split.batch)]
    try:
        check_tokens(parts, split)
        counted = [flops.count(partial(part.log_probs, few)) / len(few) for part in parts]
    except NotApplicable:
        return [1.0] * len(parts), CALLS
    return (counted, FLOPS) if all(counted) else ([1.0] * len(parts), CALLS)
