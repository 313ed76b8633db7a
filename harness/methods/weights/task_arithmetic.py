"""Task arithmetic: task vectors are added to the base, or taken away from it."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from harness.combinations import SingleModel, merged_model
from harness.evaluate.heldout import search_scale
from harness.merging.guards import check_mergeable, different_starts
from harness.merging.task_vectors import apply_task_vector, merge_task_vectors
from harness.merging.ties import SUM
from harness.registry import method
from harness.types import Ingredients, NotApplicable

GRID = [step / 20 for step in range(21)]


@method(
    "task_arithmetic",
    family="weights",
    summary="theta_0 + scale * sum of c_k (theta_k - theta_0); c is +1 (add), -1 (negate) or given.",
    paper="Ilharco et al. 2023, arXiv:2212.04089",
    needs={"members", "base", "train", "heldout"},
    order_sensitive=lambda parameters: isinstance(parameters["coefficients"], list),
    small=(
        {"scale": 0.3},
        {"scale": "heldout"},
        {"coefficients": "negate", "scale": 0.3},
        {"coefficients": [1.0, -0.5, 0.0], "scale": 1.0},
    ),
)
def task_arithmetic(
    ingredients: Ingredients,
    *,
    coefficients: Literal["add", "negate"] | list[float] = "add",
    scale: Literal["heldout"] | float = "heldout",
) -> SingleModel:
    """``scale: heldout`` tries 0, 0.05 .. 1 on held-out: the best accuracy when adding, the worst when negating.

    A negation is meant to lose a skill; how much else is lost with it is for a control task to say.
    """
    base, members = ingredients.base, ingredients.members
    check_mergeable((base, *members))
    if isinstance(coefficients, list) and len(coefficients) != len(members):
        raise NotApplicable(f"{len(coefficients)} coefficients are given for {len(members)} members")
    factors = {"add": 1.0, "negate": -1.0}
    signs = [factors[coefficients]] * len(members) if isinstance(coefficients, str) else coefficients
    models = [member.weights for member in members]
    # made once, in float32: each scale is then a step along it, rounded once to the weights' precision
    total = merge_task_vectors(base.weights, models, lambda change, member, name: change, SUM, signs).tensors

    def at(value: float) -> nn.Module:
        weights = apply_task_vector(base.weights, total, value)
        return merged_model(base.architecture, weights, ingredients.train.inputs, ingredients.device)

    details: dict[str, Any] = {}
    if scale == "heldout":
        scale, module, details["curve"] = search_scale(GRID, at, ingredients.heldout, lowest=coefficients == "negate")
    else:
        module = at(scale)
    if warning := different_starts(members):
        details["warnings"] = [warning]
    return SingleModel(base.architecture, module, {"scale": scale, **details})
