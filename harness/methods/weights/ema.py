"""EMA: the exponential moving average of one training run's checkpoints."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.merging.ema import exponential_average
from harness.merging.guards import check_mergeable
from harness.methods.method import method
from harness.methods.output.checkpoint_ensemble import epochs_of, last_checkpoints
from harness.models.streamed import member_to_run
from harness.systems.systems import SingleModel, merged_model
from harness.types import Ingredients


@method(
    "ema",
    family="weights",
    summary="The exponential moving average of one run's checkpoints, in time order.",
    paper="Polyak and Juditsky 1992; as torch.optim.swa_utils.AveragedModel",
    words="moving average of {members}",
    needs={"members", "train"},
    pool="checkpoints",
    order_sensitive=True,
    identical_members_unchanged=True,
    small=({}, {"decay": 0.9}),
)
def ema(ingredients: Ingredients, *, decay: Annotated[float, Field(ge=0, le=1)] = 0.5) -> SingleModel:
    """``decay`` is per checkpoint, not per step: with 0.5 the last two or three of them are most of the average."""
    checkpoints = last_checkpoints(ingredients, len(ingredients.members))
    check_mergeable(checkpoints)
    last = checkpoints[-1]
    if len(checkpoints) == 1 or decay == 0:
        module = member_to_run(last, ingredients.device)
    else:
        models = [member.weights for member in checkpoints]
        weights = exponential_average(models, decay)
        module = merged_model(last.architecture, weights, models, ingredients.train_inputs, ingredients.device)
    details = {"checkpoints": epochs_of(checkpoints)}
    return SingleModel(last.architecture, module, details)
