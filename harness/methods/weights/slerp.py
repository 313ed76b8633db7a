"""SLERP: two members, interpolated along the arc between them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.merging import slerp as kernel
from harness.merging.guards import check_mergeable, warnings_of
from harness.methods.method import method
from harness.systems.systems import SingleModel, merged_model
from harness.types import Ingredients, NotApplicable

Position = Annotated[int, Field(ge=0)]


@method(
    "slerp",
    family="weights",
    summary="Two members' weights, interpolated along the arc between them instead of the chord.",
    paper="Shoemake 1985, doi:10.1145/325334.325242 (quaternions); the same for weights as in mergekit 0.1.5",
    words="spherical interpolation of two models",
    needs={"members", "train"},
    order_sensitive=True,
    identical_members_unchanged=True,
    small=({}, {"t": 0.3, "scope": "model", "first": 2, "second": 0}),
    uses=lambda parameters: [parameters["first"], parameters["second"]],
)
def slerp(
    ingredients: Ingredients,
    *,
    t: Annotated[float, Field(ge=0, le=1)] = 0.5,
    first: Position = 0,
    second: Position = 1,
    scope: Literal["tensor", "model"] = "tensor",
) -> SingleModel:
    """From the member at position ``first`` (t = 0) to that at ``second`` (t = 1), by the angle of a ``scope``."""
    members = ingredients.members
    if max(first, second) >= len(members):
        raise NotApplicable(f"there is no member {max(first, second)}: the pool has {len(members)}")
    pair = members[first], members[second]
    check_mergeable(pair)
    models = [member.weights for member in pair]
    weights = kernel.slerp(models[0], models[1], t, scope)
    module = merged_model(pair[0].architecture, weights, models, ingredients.train_inputs, ingredients.device)
    details = {"members": [member.name for member in pair]}
    details |= warnings_of(pair)
    return SingleModel(pair[0].architecture, module, details)
