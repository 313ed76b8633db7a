"""Learned soup: how much of each member is in the average is learned on held-out."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from harness.merging.guards import check_mergeable, warnings_of
from harness.merging.learned_soup import Descent, learn_mix, mix
from harness.methods.method import method
from harness.methods.weights.uniform_soup import mean_of
from harness.models.weights import load_module
from harness.systems.systems import SingleModel, merged_model
from harness.types import Ingredients


@method(
    "learned_soup",
    family="weights",
    summary="A weighted mean of the members' weights, the softmax weights learned by gradient descent on held-out.",
    paper="Wortsman et al. 2022, arXiv:2203.05482, appendix I",
    words="learned soup of {members}{by_layer}",
    told={"by_layer": {False: "", True: ", layer by layer"}},
    needs={"members", "train", "heldout"},
    identical_members_unchanged=True,
    small=({"epochs": 2}, {"epochs": 1, "by_layer": True, "temperature": False}),
)
def learned_soup(
    ingredients: Ingredients,
    *,
    by_layer: bool = False,
    temperature: bool = True,
    epochs: Annotated[int, Field(ge=1)] = 5,
    lr: Annotated[float, Field(gt=0)] = 0.05,
) -> SingleModel:
    """A temperature that is learned with the weights keeps them from making up for over-confidence.

    As in the paper the mixed weights alone are the result: the temperature is reported and not applied.
    """
    members, heldout = ingredients.members, ingredients.heldout
    check_mergeable(members)
    if len(members) == 1:
        return SingleModel(members[0].architecture, mean_of(members, ingredients), {"weights": [1.0]})
    models = [member.weights for member in members]
    learned = learn_mix(
        load_module(members[0]).to(ingredients.device),
        models,
        heldout,
        by_layer=by_layer,
        temperature=temperature,
        descent=Descent(lr, epochs),
        generator=ingredients.generator(),
    )
    mixed = mix(models, learned)
    module = merged_model(members[0].architecture, mixed, models, ingredients.train_inputs, ingredients.device)
    details: dict[str, Any] = {
        "weights": learned.shares if by_layer else learned.shares["model"],
        "temperature": learned.temperature,
        "heldout_loss": learned.losses,
    }
    details |= warnings_of(members)
    return SingleModel(members[0].architecture, module, details)
