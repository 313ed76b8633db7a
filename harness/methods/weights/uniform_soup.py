"""Uniform soup: the plain mean of all members' weights."""

from __future__ import annotations

from harness.combinations import SingleModel, merged_model
from harness.merging.arithmetic import average
from harness.merging.guards import check_mergeable, different_starts
from harness.registry import method
from harness.types import Ingredients


@method(
    "uniform_soup",
    family="weights",
    summary="The mean of all members' weights: one model's cost at inference.",
    paper="Wortsman et al. 2022, arXiv:2203.05482",
    needs={"members", "train"},
    identical_members_unchanged=True,
)
def uniform_soup(ingredients: Ingredients) -> SingleModel:
    members = ingredients.members
    check_mergeable(members)
    weights = average([member.weights for member in members])
    architecture = members[0].architecture
    module = merged_model(architecture, weights, ingredients.train.inputs, ingredients.device)
    warning = different_starts(members)
    return SingleModel(architecture, module, {"warnings": [warning]} if warning else {})
