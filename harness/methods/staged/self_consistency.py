"""Self-consistency: one model draws several answers, and the most frequent or the most probable one counts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.evaluate.heldout import ranking
from harness.methods.method import method
from harness.systems.systems import member_parts
from harness.systems.written import SelfConsistency
from harness.types import Ingredients, NotApplicable


@method(
    "self_consistency",
    family="staged",
    summary="One member draws n answers, and the most frequent one after extraction counts, or the most probable one.",
    paper="Wang et al. 2022, arXiv:2203.11171; temperature 0.7 as there",
    words="one of {n} answers that one of {members} draws, by {by}",
    told={"by": {"majority": "majority", "log_probability": "log-probability"}},
    needs={"members", "heldout"},
    writes=True,
    order_sensitive=lambda parameters: isinstance(parameters["member"], int),
    small=({"n": 3}, {"n": 2, "member": 1, "by": "log_probability", "temperature": 1.5, "top_p": 0.9}),
    uses=lambda parameters: [parameters["member"]] if isinstance(parameters["member"], int) else None,
)
def self_consistency(
    ingredients: Ingredients,
    *,
    n: Annotated[int, Field(ge=1)] = 8,
    member: Literal["best"] | Annotated[int, Field(ge=0)] = "best",
    by: Literal["majority", "log_probability"] = "majority",
    temperature: Annotated[float, Field(gt=0)] = 0.7,
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0,
) -> SelfConsistency:
    parts = member_parts(ingredients)
    if member == "best":
        heldout = ingredients.heldout
        single = ingredients.predictions(parts, heldout)
        member = ranking(ingredients.members, single, heldout.labels, heldout.criterion)[0]
    if member >= len(parts):
        raise NotApplicable(f"there is no member {member}: the pool has {len(parts)}")
    chosen = parts[member]
    # the seed is the member's own, so that the answers of n = 4 are the first four of n = 8, and are drawn once
    return SelfConsistency(
        [chosen],
        n=n,
        temperature=temperature,
        top_p=top_p,
        by=by,
        seed=chosen.member.seed % 2**31,
        details={"member": chosen.name},
    )
