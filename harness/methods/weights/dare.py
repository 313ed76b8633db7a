"""DARE: entries of the task vectors are dropped at random, the rest is made larger, and then they are merged."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from harness.evaluate.scaling import Scale
from harness.merging.sparsify import L1_REMARK, Rescale, drop, uniform_draws
from harness.merging.ties import DIALECTS, Divide
from harness.methods.method import method
from harness.methods.weights.ties import merge_sparse, vectors_of
from harness.systems.systems import SingleModel
from harness.types import Ingredients

RESCALE: dict[str, Rescale] = {"paper": "inverse", "mergekit": "l1", "peft": "inverse"}
TIES_DIVIDE: dict[str, Divide] = {"paper": "count", "mergekit": "none", "peft": "count"}


@method(
    "dare",
    family="weights",
    summary="Task vectors with most entries dropped at random and the rest rescaled, then added or merged by TIES.",
    paper="Yu et al. 2024, arXiv:2311.03099",
    words="DARE merge of {members}",
    needs={"members", "base", "train", "heldout"},
    order_sensitive=lambda parameters: parameters["weights"] is not None,
    small=(
        {"scale": 0.3},
        {"dialect": "mergekit", "merge": "ties", "weights": [1.0, 0.5, -0.25], "scale": 1.0},
    ),
)
def dare(
    ingredients: Ingredients,
    *,
    density: Annotated[float, Field(gt=0, le=1)] = 0.1,
    merge: Literal["linear", "ties"] = "linear",
    dialect: Literal["paper", "mergekit", "peft"] = "paper",
    weights: list[float] | None = None,
    rescale: Rescale | None = None,
    divide: Divide | None = None,
    scale: Scale = "heldout",
) -> SingleModel:
    """``density`` is 1 - p, the share that is kept; p = 0.9 in the paper.

    Merged by TIES nothing is trimmed any more, as in mergekit and peft; the authors' code can do that too.
    """
    how = rescale or RESCALE[dialect]
    rules = replace(DIALECTS[dialect], scope="tensor", keep="at_least_one")  # entries are dropped one by one
    if merge == "linear":
        rules = replace(rules, elect="none", divide="none", weigh="before")
    else:
        rules = replace(rules, divide=TIES_DIVIDE[dialect])
    rules = rules.changed(divide=divide)
    seed, identities = ingredients.seed, [member.draws for member in ingredients.members]

    def sparsify(tensor: Tensor, member: int, name: str) -> Tensor:
        return drop(tensor, density, uniform_draws(tensor.shape, seed, identities[member], name), how)

    said = [L1_REMARK] if how == "l1" else []
    vectors = vectors_of(ingredients)
    return merge_sparse(ingredients, vectors, sparsify, rules, weights, scale, remarks=said, merge=merge, rescale=how)
