"""TIES merging as in its paper: trim, elect sign, disjoint mean."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from harness.combinations import SingleModel, merged_model
from harness.evaluate.heldout import search_scale
from harness.merging.guards import check_mergeable
from harness.merging.ties import apply_task_vector, ties_task_vector
from harness.registry import method
from harness.types import Ingredients

GRID = [step / 10 for step in range(1, 21)]


@method(
    "ties",
    family="weights",
    summary="Task vectors trimmed to their largest entries, a sign elected per weight, the agreeing ones averaged.",
    paper="Yadav et al. 2023, arXiv:2306.01708",
    needs={"members", "base", "train", "heldout"},
    small=({"density": 0.2}, {"density": 0.5, "scale": "heldout"}),
)
def ties(
    ingredients: Ingredients,
    *,
    density: Annotated[float, Field(gt=0, le=1)] = 0.2,
    scale: Literal["heldout"] | float = 1.0,
) -> SingleModel:
    """``scale: heldout`` tries 0.1, 0.2 .. 2.0, and the best held-out accuracy wins."""
    base, members = ingredients.base, ingredients.members
    check_mergeable((base, *members))
    vector = ties_task_vector(base.weights, [member.weights for member in members], density)

    def at(value: float) -> nn.Module:
        weights = apply_task_vector(base.weights, vector, value)
        return merged_model(base.architecture, weights, ingredients.train.inputs, ingredients.device)

    if scale == "heldout":
        chosen, module, curve = search_scale(GRID, at, ingredients.heldout)
        return SingleModel(base.architecture, module, {"scale": chosen, "curve": curve})
    return SingleModel(base.architecture, at(float(scale)), {"scale": scale})
