"""Refinement: a model revises its own output, round by round."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.methods.method import method
from harness.methods.staged.pipeline import Rounds, Share, pipeline
from harness.models import configuration
from harness.models.heads import MASKED
from harness.systems.revision import TEMPLATE, revise
from harness.types import Combination, Ingredients, NotApplicable

Position = Annotated[int, Field(ge=0)]


@method(
    "refine",
    family="staged",
    summary="A model revises its own output in rounds: a masked one the text that a classifier reads, a causal one its "
    "answer.",
    paper="Ghazvininejad et al. 2019, arXiv:1904.09324 (mask-predict); Madaan et al. 2023, arXiv:2303.17651",
    words="output of one of {members}{rounds}",
    told={"rounds": {0: " in one shot", 1: ", revised once", 2: ", revised twice", 4: ", revised four times"}},
    needs={"members", "heldout"},
    writes=True,
    order_sensitive=True,
    small=({"rounds": 2}, {"model": 1, "reader": 0, "reviser": 2, "rounds": 1}),
    uses=lambda parameters: sorted({parameters[name] for name in ("model", "reader", "reviser")} - {None}),
    reads="text",
    seconds=10,
)
def refine(
    ingredients: Ingredients,
    *,
    model: Position = 0,
    reader: Position = 1,
    reviser: Position | None = None,
    rounds: Rounds = 4,
    share: Share = 0.0,
    template: str = TEMPLATE,
) -> Combination:
    """0 rounds are the output of one shot; an output is done when a round changes nothing.

    A masked language model restores texts by mask-predict, and the member ``reader`` says their class. Restored is what
    a text marks with the model's mask, and the ``share`` of its other tokens that is the least probable under the
    model; ``heldout`` chooses it by the class that is read. Round t masks the least probable floor(N (1 - t / (rounds +
    1))) of N restored tokens again.

    Another language model drafts an answer, and the member ``reviser``, by default itself, writes it anew in each round
    from ``template``, which has a place for the ``{question}`` and one for the ``{answer}``.
    """
    members = ingredients.members
    if model >= len(members):
        raise NotApplicable(f"there is no member {model}: the pool has {len(members)}")
    head = configuration.head_of(members[model].architecture)
    if head is not None and head.labelled:
        raise NotApplicable(f"member {members[model].name} is a classifier: it has no text to revise")
    if head == MASKED:
        return pipeline(ingredients, stages=[model, reader], rounds=rounds, share=share)
    return revise(ingredients, model=model, reviser=reviser, rounds=rounds, template=template)
