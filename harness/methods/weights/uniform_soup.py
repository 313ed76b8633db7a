"""Uniform soup: the plain mean of all members' weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from harness.merging.arithmetic import average
from harness.merging.guards import check_mergeable, warnings_of
from harness.methods.method import method
from harness.models.streamed import member_to_run
from harness.systems.systems import SingleModel, merged_model
from harness.types import Ingredients, Member


@method(
    "uniform_soup",
    family="weights",
    summary="The mean of all members' weights: one model's cost at inference.",
    paper="Wortsman et al. 2022, arXiv:2203.05482",
    words="uniform soup of {members}",
    needs={"members", "train"},
    identical_members_unchanged=True,
)
def uniform_soup(ingredients: Ingredients) -> SingleModel:
    members = ingredients.members
    check_mergeable(members)
    module = mean_of(members, ingredients)
    return SingleModel(members[0].architecture, module, warnings_of(members))


def mean_of(members: Sequence[Member], ingredients: Ingredients) -> nn.Module:
    """The network with the mean of the members' weights; one alone is that member, BatchNorm statistics included."""
    if len(members) == 1:
        return member_to_run(members[0], ingredients.device)
    models = [member.weights for member in members]
    return merged_model(
        members[0].architecture, average(models), models, ingredients.train_inputs, ingredients.device
    )
