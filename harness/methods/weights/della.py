"""DELLA: entries of the task vectors are dropped at random, smaller ones more likely, before a sign is elected."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from harness.evaluate.scaling import Scale
from harness.merging.sparsify import L1_REMARK, Rescale, Rows, drop, magprune_probabilities, uniform_draws
from harness.merging.ties import MERGEKIT, Divide
from harness.methods.method import method
from harness.methods.weights.ties import merge_sparse, vectors_of
from harness.systems.systems import SingleModel
from harness.types import Ingredients, NotApplicable

PRUNING: dict[str, tuple[Rows, Rescale]] = {"paper": ("outputs", "inverse"), "mergekit": ("second_axis", "l1")}


@method(
    "della",
    family="weights",
    summary="Task vectors with entries dropped at random, the larger ones less often, then merged by TIES or added.",
    paper="Deep et al. 2024, arXiv:2406.11617",
    words="DELLA merge of {members}",
    needs={"members", "base", "train", "heldout"},
    order_sensitive=lambda parameters: parameters["weights"] is not None,
    small=(
        {"scale": 1.0},
        {"dialect": "mergekit", "merge": "linear", "weights": [1.0, -0.5, 0.25], "scale": 0.3},
    ),
)
def della(
    ingredients: Ingredients,
    *,
    density: Annotated[float, Field(gt=0, le=1)] = 0.3,
    epsilon: Annotated[float, Field(ge=0, lt=0.5)] = 0.15,
    merge: Literal["linear", "ties"] = "ties",
    dialect: Literal["paper", "mergekit"] = "paper",
    weights: list[float] | None = None,
    rescale: Rescale | None = None,
    divide: Divide | None = None,
    scale: Scale = "heldout",
) -> SingleModel:
    """An entry is kept with a probability from ``density - epsilon`` to ``density + epsilon``; all at density 1.

    Both dialects elect and divide as mergekit's ``della`` and, with ``merge: linear``, its ``della_linear``.
    """
    if density < 1 and not epsilon < density < 1 - epsilon:
        raise NotApplicable(
            f"density {density:g} and epsilon {epsilon:g} give probabilities from {density - epsilon:g} to "
            f"{density + epsilon:g}: both must be between 0 and 1"
        )
    rows, usual = PRUNING[dialect]
    how = rescale or usual
    rules = replace(MERGEKIT, name=dialect)
    if merge == "linear":
        rules = replace(rules, elect="none", divide="none")
    rules = rules.changed(divide=divide)
    seed, identities = ingredients.seed, [member.draws for member in ingredients.members]

    def sparsify(tensor: Tensor, member: int, name: str) -> Tensor:
        if density == 1:
            return tensor
        likely = magprune_probabilities(tensor, density, epsilon, rows)
        return drop(tensor, likely, uniform_draws(tensor.shape, seed, identities[member], name), how)

    remarks = {
        "entries are ranked along the second axis alone, in convolutions too": rows == "second_axis",
        L1_REMARK: how == "l1",
    }
    said = [words for words, holds in remarks.items() if holds]
    vectors = vectors_of(ingredients)
    return merge_sparse(ingredients, vectors, sparsify, rules, weights, scale, remarks=said, merge=merge, rescale=how)
