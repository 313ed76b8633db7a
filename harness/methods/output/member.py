"""The members themselves: one by its position, and the best one on held-out, which is the usual reference."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.evaluate.heldout import ranking, score
from harness.methods.method import method
from harness.systems.fitting import uniform
from harness.systems.rules import Linear
from harness.systems.systems import OutputCombination, member_parts
from harness.types import Ingredients, NotApplicable


@method(
    "member",
    family="single",
    summary="One member of the pool, by its position.",
    paper="-",
    words="single model at position {index}",
    needs={"members"},
    reads="correctness",
    order_sensitive=True,
    identical_members_unchanged=True,
    small=({"index": 0}, {"index": 1}),
    uses=lambda parameters: [parameters["index"]],
)
def member(ingredients: Ingredients, *, index: Annotated[int, Field(ge=0)]) -> OutputCombination:
    parts = member_parts(ingredients)
    if index >= len(parts):
        raise NotApplicable(f"there is no member {index}: the pool has {len(parts)}")
    return OutputCombination([parts[index]], Linear(uniform(1)), {"member": parts[index].name})


@method(
    "best_single",
    family="single",
    summary="The member with the best held-out accuracy (equal ones: the lower NLL); of language models, NLL first.",
    paper="-",
    words="best single model",
    needs={"members", "heldout"},
    reads="correctness",
    identical_members_unchanged=True,
)
def best_single(ingredients: Ingredients) -> OutputCombination:
    parts = member_parts(ingredients)
    predictions = ingredients.predictions(parts, ingredients.heldout)
    labels, criterion = ingredients.heldout.labels, ingredients.heldout.criterion
    best = ranking(ingredients.members, predictions, labels, criterion)[0]
    details = {"member": parts[best].name, "heldout_score": score(predictions[best], labels, criterion)[0]}
    return OutputCombination([parts[best]], Linear(uniform(1)), details)
