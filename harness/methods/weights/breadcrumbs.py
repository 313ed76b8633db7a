"""Model Breadcrumbs: task vectors without their smallest changes and without their outliers."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from harness.evaluate.scaling import Scale
from harness.merging.sparsify import trim_outliers
from harness.merging.ties import MERGEKIT, Divide
from harness.methods.method import method
from harness.methods.weights.ties import merge_sparse, vectors_of
from harness.systems.systems import SingleModel
from harness.types import Ingredients


@method(
    "breadcrumbs",
    family="weights",
    summary="Task vectors without the smallest changes and the outliers of each tensor, then added or merged by TIES.",
    paper="Davari and Belilovsky 2024, arXiv:2312.06795",
    words="Model Breadcrumbs merge of {members}",
    needs={"members", "base", "train", "heldout"},
    order_sensitive=lambda parameters: parameters["weights"] is not None,
    small=(
        {"scale": 0.3, "outliers": 0.1},
        {"merge": "ties", "weights": [1.0, 0.5, -0.25], "scale": 1.0},
    ),
)
def breadcrumbs(
    ingredients: Ingredients,
    *,
    density: Annotated[float, Field(gt=0, le=1)] = 0.15,
    outliers: Annotated[float, Field(ge=0, le=1)] = 0.01,
    merge: Literal["linear", "ties"] = "linear",
    weights: list[float] | None = None,
    divide: Divide | None = None,
    scale: Scale = "heldout",
) -> SingleModel:
    """As mergekit's ``breadcrumbs`` and ``breadcrumbs_ties``; its ``gamma`` is ``outliers``.

    The paper has masks by layer, as here; its authors' code ranks within each row of the last axis, where a small
    convolution kernel loses everything.
    """
    rules = replace(MERGEKIT, elect="none" if merge == "linear" else "sum", divide="none").changed(divide=divide)

    def sparsify(tensor: Tensor, member: int, name: str) -> Tensor:
        return trim_outliers(tensor, density, outliers)

    remarks = ["a small tensor may lose every entry, and keep its outliers"]
    vectors = vectors_of(ingredients)
    return merge_sparse(ingredients, vectors, sparsify, rules, weights, scale, remarks=remarks, merge=merge)
