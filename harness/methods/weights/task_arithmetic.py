"""Task arithmetic: task vectors are added to the base, or taken away from it."""

from __future__ import annotations

from typing import Literal

from harness.evaluate.scaling import Scale, add_task_vector
from harness.merging.guards import check_mergeable, warnings_of
from harness.merging.task_vectors import TaskVectors, merge_task_vectors
from harness.merging.ties import SUM
from harness.methods.method import method
from harness.systems.systems import SingleModel
from harness.types import Ingredients, NotApplicable

GRID = [step / 20 for step in range(21)]


@method(
    "task_arithmetic",
    family="weights",
    summary="theta_0 + scale * sum of c_k (theta_k - theta_0); c is +1 (add), -1 (negate) or given.",
    paper="Ilharco et al. 2023, arXiv:2212.04089",
    words="{coefficients} task vectors of {members}",
    told={"coefficients": {"add": "sum of the", "negate": "negated sum of the"}},
    needs={"members", "base", "train", "heldout"},
    order_sensitive=lambda parameters: isinstance(parameters["coefficients"], list),
    small=(
        {"scale": 0.3},
        {"scale": "heldout"},
        {"scale": "heldout_per_layer"},
        {"coefficients": "negate", "scale": 0.3},
        {"coefficients": [1.0, -0.5, 0.0], "scale": 1.0},
    ),
    seconds=3,
)
def task_arithmetic(
    ingredients: Ingredients,
    *,
    coefficients: Literal["add", "negate"] | list[float] = "add",
    scale: Scale = "heldout",
) -> SingleModel:
    """``scale: heldout`` tries 0, 0.05 .. 1 on held-out: the best accuracy when adding, the worst when negating.

    ``heldout_per_layer`` then tries them for each layer in turn. A negation is meant to lose a skill; how much else is
    lost with it is for a control task to say.
    """
    base, members = ingredients.base, ingredients.members
    check_mergeable((base, *members))
    if isinstance(coefficients, list) and len(coefficients) != len(members):
        raise NotApplicable(f"{len(coefficients)} coefficients are given for {len(members)} members")
    factors = {"add": 1.0, "negate": -1.0}
    signs = [factors[coefficients]] * len(members) if isinstance(coefficients, str) else coefficients
    models = [member.weights for member in members]
    # made once, in float32: each scale is then a step along it, rounded once to the weights' precision
    total = merge_task_vectors(TaskVectors(base.weights, models), lambda change, member, name: change, SUM, signs)
    module, details = add_task_vector(ingredients, total.tensors, scale, GRID, lowest=coefficients == "negate")
    details["sign_conflict"] = total.sign_conflict
    details |= warnings_of(members, base)
    return SingleModel(base.architecture, module, details)
