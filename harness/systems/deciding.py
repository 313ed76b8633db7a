"""Systems that decide, example by example, which of their models run: they need what has choices."""

from __future__ import annotations

from harness.systems.routed import Routed
from harness.systems.staged import UNDECIDED, InStages
from harness.types import Combination, Split


def decides_by_choices(combination: Combination) -> bool:
    """Whether it decides by the probabilities of an example's classes, or choices, which models answer it."""
    return isinstance(combination, InStages | Routed)


def why_undecided(combination: Combination, split: Split) -> str | None:
    """Why a combination cannot be run on a split's inputs; None if it can."""
    return UNDECIDED if decides_by_choices(combination) and len(split.labels) != len(split.inputs) else None
