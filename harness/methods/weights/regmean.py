"""RegMean: each linear layer is the one whose outputs are nearest to those of all members' layers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from harness.merging.guards import check_mergeable, warnings_of
from harness.merging.regmean import Grams, input_grams, regression_mean
from harness.methods.method import method
from harness.models.weights import load_module
from harness.systems.systems import SingleModel, batches_of, merged_model
from harness.types import Ingredients, Member


@method(
    "regmean",
    family="weights",
    summary="Linear and convolution layers by least squares from the Gram matrices of their inputs; the rest averaged.",
    paper="Jin et al. 2023, arXiv:2212.09849",
    words="RegMean merge of {members}",
    needs={"members", "train"},
    identical_members_unchanged=True,
    small=({}, {"alpha": 0.0, "examples": 20}, {"alpha": 1.0}),
)
def regmean(
    ingredients: Ingredients,
    *,
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.9,
    examples: Annotated[int, Field(ge=1)] = 1000,
) -> SingleModel:
    """``alpha`` multiplies what is off the diagonal of the Gram matrices, taken on the first ``examples`` inputs.

    Each member's Gram matrices are made, added and dropped in turn, so that three sets of them are held at once:
    ``gram_bytes`` is one of these.
    """
    members = ingredients.members
    check_mergeable(members)
    inputs = ingredients.train.inputs[:examples]
    cost: dict[str, Any] = {}

    def measured(member: Member) -> Grams:
        module = load_module(member).to(ingredients.device)
        grams = input_grams(module, batches_of(inputs, ingredients.device, ingredients.train.batch))
        cost.update(regressed_tensors=len(grams), gram_bytes=sum(gram.nbytes for gram in grams.values()))
        return grams

    models = [member.weights for member in members]
    weights = regression_mean(models, map(measured, members), alpha)
    module = merged_model(members[0].architecture, weights, models, ingredients.train_inputs, ingredients.device)
    details = {"forward_passes": len(inputs) * len(members), **cost}
    details |= warnings_of(members)
    return SingleModel(members[0].architecture, module, details)
