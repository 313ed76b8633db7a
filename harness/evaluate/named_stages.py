"""The stages of a staged method as a suite names them: members by position, means of several, methods by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

from harness.registry import METHODS
from harness.systems.fitting import uniform
from harness.systems.rules import Linear, Vote
from harness.systems.systems import OutputCombination, member_parts
from harness.types import Combination, Ingredients, NotApplicable


def _known(stage: int | str) -> int | str:
    """A position, positions joined by +, or the name of a method."""
    if isinstance(stage, str) and positions(stage) is None:
        declared = METHODS.get(stage)
        if declared.family == "staged":
            raise ValueError("a stage is a member, several, or a combination without stages")
        declared.validate({})  # which it runs with
    if isinstance(stage, int) and stage < 0:
        raise ValueError("positions are counted from 0")
    return stage


def positions(stage: int | str) -> list[int] | None:
    """The members that a stage names; None for a method."""
    words = str(stage).split("+")
    return [int(word) for word in words] if all(word.isdecimal() for word in words) else None


StageName = Annotated[int | str, AfterValidator(_known)]


def named_members(parameters: Mapping[str, Any]) -> list[int] | None:
    """The members that all stages together name; None where a method is among them, or none are named."""
    found = [positions(stage) for stage in parameters["stages"] or ()]
    return None if None in found or not found else sorted({position for each in found for position in each or ()})


def made_stage(stage: int | str, ingredients: Ingredients, *, by_vote: bool = False) -> Combination:
    """The combination that a stage names; ``by_vote`` counts the votes of members that give no probabilities."""
    named = positions(stage)
    if named is None:
        declared = METHODS.get(str(stage))
        return declared.apply(ingredients, declared.validate({}))
    parts = member_parts(ingredients)
    if max(named) >= len(parts):
        raise NotApplicable(f"there is no member {max(named)}: the pool has {len(parts)}")
    chosen = [parts[position] for position in named]
    vote = by_vote and any(part.says != "probabilities" for part in chosen)
    return OutputCombination(chosen, Vote() if vote else Linear(uniform(len(chosen))))
