"""SWA: the mean of every checkpoint of one training run from some epoch on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.merging.guards import check_mergeable
from harness.methods.method import method
from harness.methods.output.checkpoint_ensemble import epochs_of, last_checkpoints
from harness.methods.weights.uniform_soup import mean_of
from harness.systems.systems import SingleModel
from harness.types import Ingredients, NotApplicable


@method(
    "swa",
    family="weights",
    summary="The mean of all checkpoints of one run from an epoch on, BatchNorm statistics measured anew.",
    paper="Izmailov et al. 2018, arXiv:1803.05407",
    words="average of {members}",
    needs={"members", "train"},
    pool="checkpoints",
    order_sensitive=True,
    identical_members_unchanged=True,
    small=({}, {"from_epoch": 2}),
)
def swa(ingredients: Ingredients, *, from_epoch: Annotated[int, Field(ge=1)] = 1) -> SingleModel:
    """The arithmetic is ``checkpoint_average``'s: SWA counts from a first epoch, that from the last checkpoint back.

    What is SWA's own is a constant or cyclic learning rate while the checkpoints are collected, which is for the recipe
    of the pool to choose.
    """
    run = last_checkpoints(ingredients, len(ingredients.members))
    checkpoints = [member for member in run if member.provenance["epochs"] >= from_epoch]
    if not checkpoints:
        raise NotApplicable(f"no checkpoint from epoch {from_epoch} on: the last is {run[-1].provenance['epochs']}")
    check_mergeable(checkpoints)
    details = {"checkpoints": epochs_of(checkpoints)}
    return SingleModel(run[-1].architecture, mean_of(checkpoints, ingredients), details)
