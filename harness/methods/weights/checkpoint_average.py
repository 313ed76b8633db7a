"""Checkpoint averaging: the mean of the last checkpoints of one training run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.merging.guards import check_mergeable
from harness.methods.method import method
from harness.methods.output.checkpoint_ensemble import epochs_of, last_checkpoints
from harness.methods.weights.uniform_soup import mean_of
from harness.systems.systems import SingleModel
from harness.types import Ingredients


@method(
    "checkpoint_average",
    family="weights",
    summary="The mean of the last n checkpoints' weights (n=5 as for Transformer-base).",
    paper="Vaswani et al. 2017, arXiv:1706.03762, section 6.1",
    words="average of the last {n} checkpoints",
    needs={"members", "train"},
    pool="checkpoints",
    order_sensitive=True,
    identical_members_unchanged=True,
    small=({"n": 2}, {"n": 3}),
)
def checkpoint_average(ingredients: Ingredients, *, n: Annotated[int, Field(ge=1)] = 5) -> SingleModel:
    checkpoints = last_checkpoints(ingredients, n)
    check_mergeable(checkpoints)
    module = mean_of(checkpoints, ingredients)
    details = {"checkpoints": epochs_of(checkpoints)}
    return SingleModel(checkpoints[0].architecture, module, details)
