"""Checkpoint ensemble: the last checkpoints of one training run, combined in output space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from harness.methods.method import method
from harness.systems.fitting import uniform
from harness.systems.parts import MemberPart
from harness.systems.rules import Linear, LogLinear
from harness.systems.systems import OutputCombination
from harness.types import Ingredients, Member, NotApplicable


@method(
    "checkpoint_ensemble",
    family="output",
    summary="The last n checkpoints of one run as an ensemble: free of further training.",
    paper="Huang et al. 2017 (snapshot ensembles), arXiv:1704.00109; Sennrich et al. 2016, arXiv:1606.02891",
    words="{rule} of the last {n} checkpoints",
    told={"rule": {"linear": "ensemble", "log_linear": "log-linear ensemble"}},
    needs={"members"},
    pool="checkpoints",
    order_sensitive=True,
    identical_members_unchanged=True,
    small=({"n": 2}, {"n": 2, "rule": "log_linear"}),
)
def checkpoint_ensemble(
    ingredients: Ingredients, *, n: Annotated[int, Field(ge=1)] = 5, rule: Literal["linear", "log_linear"] = "linear"
) -> OutputCombination:
    checkpoints = last_checkpoints(ingredients, n)
    parts = [MemberPart(member, ingredients.device) for member in checkpoints]
    weights = uniform(len(parts))
    details = {"checkpoints": epochs_of(checkpoints)}
    return OutputCombination(parts, Linear(weights) if rule == "linear" else LogLinear(weights), details)


def last_checkpoints(ingredients: Ingredients, n: int) -> tuple[Member, ...]:
    """The last n checkpoints of the run that the pool holds, in time order."""
    if n > len(ingredients.members):
        raise NotApplicable(f"the run kept {len(ingredients.members)} checkpoints, not {n}")
    return ingredients.members[-n:]


def epochs_of(checkpoints: Sequence[Member]) -> list[str]:
    """After which epochs they were kept, in words, for the report."""
    return [f"epoch {member.provenance['epochs']}" for member in checkpoints]
