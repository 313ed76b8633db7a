"""Model Stock: the mean of the fine-tunes, drawn to the base where they disagree."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from harness.merging import model_stock as kernel
from harness.merging.guards import check_mergeable, warnings_of
from harness.methods.method import method
from harness.systems.systems import SingleModel, merged_model
from harness.types import Ingredients, NotApplicable


@method(
    "model_stock",
    family="weights",
    summary="From the base towards the mean of the members, each layer as far as the angle between their updates says.",
    paper="Jang et al. 2024, arXiv:2403.19522",
    words="Model Stock merge of {members}",
    needs={"members", "base", "train"},
    identical_members_unchanged=lambda parameters: parameters["norm_floor"] == 0,
    small=({}, {"filter_wise": True, "norm_floor": 1e-6}),
)
def model_stock(
    ingredients: Ingredients, *, filter_wise: bool = False, norm_floor: Annotated[float, Field(ge=0)] = 0.0
) -> SingleModel:
    """``norm_floor: 1e-6`` is mergekit's (0.1.5); see ``merging.model_stock``."""
    base, members = ingredients.base, ingredients.members
    check_mergeable((base, *members))
    if len(members) < 2:
        raise NotApplicable("Model Stock goes by the angle between two fine-tunes, and the pool has one")
    models = [member.weights for member in members]
    weights, ratios = kernel.model_stock(base.weights, models, filter_wise=filter_wise, norm_floor=norm_floor)
    module = merged_model(
        base.architecture, weights, [base.weights, *models], ingredients.train_inputs, ingredients.device
    )
    details: dict[str, Any] = {
        "ratios": {"least": min(ratios), "mean": sum(ratios) / len(ratios), "largest": max(ratios)}
    }
    details |= warnings_of(members, base)
    if against := sum(ratio < 0 for ratio in ratios):
        apart = f"in {against} of {len(ratios)} tensors the updates point away from each other (ratio below 0)"
        details.setdefault("warnings", []).append(apart)
    return SingleModel(base.architecture, module, details)
