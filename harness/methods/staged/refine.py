"""Refinement: a model revises its own output, round by round, before another one reads it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.methods.method import method
from harness.methods.staged.pipeline import Rounds, Share, pipeline
from harness.models import configuration
from harness.models.heads import MASKED
from harness.types import Combination, Ingredients, NotApplicable


@method(
    "refine",
    family="staged",
    summary="A masked language model restores the text and revises that for some rounds; a classifier reads it.",
    paper="Ghazvininejad et al. 2019, arXiv:1904.09324 (mask-predict)",
    words="restored text{rounds}, read by one of {members}",
    told={"rounds": {0: " in one shot", 1: ", revised once", 2: ", revised twice", 4: ", revised four times"}},
    needs={"members", "heldout"},
    order_sensitive=True,
    small=(),
    uses=lambda parameters: [parameters["model"], parameters["reader"]],
    reads="text",
    seconds=10,
)
def refine(
    ingredients: Ingredients,
    *,
    model: Annotated[int, Field(ge=0)] = 0,
    reader: Annotated[int, Field(ge=0)] = 1,
    rounds: Rounds = 4,
    share: Share = 0.0,
) -> Combination:
    """Mask-predict by the member ``model``, read by the member ``reader``; 0 rounds are the output of one shot.

    What is restored is what a text marks with the model's mask, and the ``share`` of its other tokens that is the
    least probable under the model; ``heldout`` chooses it by the class that is read. Round t masks the least probable
    floor(N (1 - t / (rounds + 1))) of N restored tokens again; a text is done when a round changes nothing.
    """
    members = ingredients.members
    if model < len(members) and configuration.head_of(members[model].architecture) != MASKED:
        raise NotApplicable(f"member {members[model].name} is no masked language model: it has no text to revise")
    return pipeline(ingredients, stages=[model, reader], rounds=rounds, share=share)
