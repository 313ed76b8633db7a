"""Majority vote over the members' most probable labels."""

from __future__ import annotations

from harness.methods.method import method
from harness.systems.rules import Vote
from harness.systems.systems import OutputCombination, member_parts
from harness.types import Ingredients

LOWER_BOUND = (
    "it is only known which members are right, so the vote is right where more than half of them are: where the others "
    "disagree fewer would do, so this is a lower bound"
)


@method(
    "majority_vote",
    family="output",
    summary="Each member votes for one label; the mean probability breaks ties and keeps every label possible.",
    paper="Hansen and Salamon 1990",
    words="majority vote of {members}",
    needs={"members"},
    reads="correctness",
)
def majority_vote(ingredients: Ingredients) -> OutputCombination:
    parts = member_parts(ingredients)
    lowest = any(part.says == "correctness" for part in parts)
    return OutputCombination(parts, Vote(), {"warnings": [LOWER_BOUND]} if lowest else None)
