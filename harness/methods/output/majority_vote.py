"""Majority vote over the members' most probable labels."""

from __future__ import annotations

from harness.methods.method import method
from harness.systems.rules import Vote
from harness.systems.systems import OutputCombination, member_parts
from harness.types import Ingredients


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
    return OutputCombination(member_parts(ingredients), Vote())
