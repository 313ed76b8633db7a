"""Fisher merging: each weight is the mean of the members', weighted by how much their predictions hang on it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from harness.merging.fisher import diagonal_fisher, fisher_average
from harness.merging.guards import check_mergeable, warnings_of
from harness.methods.method import method
from harness.models.weights import load_module
from harness.systems.systems import SingleModel, merged_model
from harness.types import Ingredients, Member, NotApplicable


@method(
    "fisher",
    family="weights",
    summary="The mean of the members' weights, each weighted by its diagonal Fisher information.",
    paper="Matena and Raffel 2022, arXiv:2111.09832",
    words="Fisher-weighted average of {members}",
    needs={"members", "train", "heldout"},
    order_sensitive=lambda parameters: isinstance(parameters["weights"], list),
    identical_members_unchanged=True,
    small=(
        {},
        {"labels": "sampled", "on": "train", "examples": 8, "normalise": False},
        {"weights": [0.5, 0.0, 1.5], "examples": 8},
    ),
)
def fisher(
    ingredients: Ingredients,
    *,
    labels: Literal["true", "sampled"] = "true",
    on: Literal["heldout", "train"] = "heldout",
    examples: Annotated[int, Field(ge=1)] = 256,
    weights: Literal["uniform"] | list[float] = "uniform",
    floor: Annotated[float, Field(gt=0)] = 1e-6,
    normalise: bool = True,
) -> SingleModel:
    """The Fisher information is measured on the first ``examples`` inputs of a split.

    ``labels: true`` is the empirical Fisher, ``sampled`` the paper's (labels drawn from the model's predictions); both
    and the rest are explained in ``merging.fisher``.
    """
    members = ingredients.members
    check_mergeable(members)
    coefficients = [1.0] * len(members) if weights == "uniform" else list(weights)
    if len(coefficients) != len(members):
        raise NotApplicable(f"{len(coefficients)} weights are given for {len(members)} members")
    if min(coefficients) < 0 or not any(coefficients):
        raise NotApplicable("Fisher merging needs weights of which none is negative and one is above 0")
    split = ingredients.heldout if on == "heldout" else ingredients.train
    inputs = split.inputs[:examples]
    truth = split.labels.view(len(split.inputs), -1)[:examples]

    def measured(member: Member) -> dict[str, Tensor]:
        generator = ingredients.generator() if labels == "sampled" else None
        return diagonal_fisher(load_module(member).to(ingredients.device), inputs, truth, generator)

    models = [member.weights for member in members]
    merged = fisher_average(
        models,
        map(measured, members),
        coefficients,
        floor=floor,
        normalise=normalise,
    )
    module = merged_model(members[0].architecture, merged, models, ingredients.train_inputs, ingredients.device)
    details: dict[str, Any] = {"gradients": len(inputs) * len(members)}
    details |= warnings_of(members)
    return SingleModel(members[0].architecture, module, details)
