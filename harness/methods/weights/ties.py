"""TIES merging: trim, elect a sign, combine what agrees; in the dialect of whichever implementation is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from harness.combinations import SingleModel, merged_model
from harness.evaluate.heldout import search_scale
from harness.merging.guards import check_mergeable, different_starts
from harness.merging.sparsify import Keep, trim
from harness.merging.task_vectors import Sparsify, apply_task_vector, merge_task_vectors
from harness.merging.ties import DIALECTS, Dialect, Divide, Elect, Scope, Weigh, ZeroSum
from harness.methods.weights.task_arithmetic import GRID as SUM_GRID
from harness.registry import method
from harness.types import Ingredients

GRID = [step / 10 for step in range(1, 21)]


@method(
    "ties",
    family="weights",
    summary="Task vectors trimmed to their largest entries, a sign elected per weight, the agreeing ones averaged.",
    paper="Yadav et al. 2023, arXiv:2306.01708",
    needs={"members", "base", "train", "heldout"},
    order_sensitive=lambda parameters: parameters["weights"] is not None,
    small=(
        {"density": 0.2},
        {"density": 0.5, "scale": "heldout"},
        {"dialect": "paper"},
        {"dialect": "mergekit", "weights": [1.0, 0.5, 0.25]},
        {"dialect": "peft", "weights": [1.0, -0.5, 0.25], "elect": "count"},
    ),
)
def ties(
    ingredients: Ingredients,
    *,
    density: Annotated[float, Field(gt=0, le=1)] = 0.2,
    scale: Literal["heldout"] | float = 1.0,
    dialect: Literal["stockpot", "paper", "mergekit", "peft"] = "stockpot",
    weights: list[float] | None = None,
    scope: Scope | None = None,
    keep: Keep | None = None,
    elect: Elect | None = None,
    zero_sum: ZeroSum | None = None,
    weigh: Weigh | None = None,
    divide: Divide | None = None,
) -> SingleModel:
    """A dialect is a preset of the six parameters after ``weights`` (``merging.ties.Dialect``); each given one wins."""
    rules = DIALECTS[dialect].changed(
        scope=scope, keep=keep, elect=elect, zero_sum=zero_sum, weigh=weigh, divide=divide
    )

    def sparsify(vector: Tensor, member: int, name: str) -> Tensor:
        return trim(vector, density, rules.keep)

    return merge_sparse(ingredients, sparsify, rules, weights, scale, remarks=rules.trim_remarks)


def merge_sparse(
    ingredients: Ingredients,
    sparsify: Sparsify,
    dialect: Dialect,
    weights: Sequence[float] | None,
    scale: Literal["heldout"] | float,
    *,
    remarks: Sequence[str] = (),
    **details: Any,
) -> SingleModel:
    """The base with the members' task vectors, made sparse and merged, added to it ``scale`` times.

    ``remarks`` say what is surprising in the sparsifying; they and ``details`` are handed on to the report.

    ``scale: heldout`` tries 0.1, 0.2 .. 2 or, of sums that are not divided, 0, 0.05 .. 1, and the best held-out score
    wins.
    """
    base, members = ingredients.base, ingredients.members
    check_mergeable((base, *members))
    merged = merge_task_vectors(base.weights, [member.weights for member in members], sparsify, dialect, weights)

    def at(value: float) -> nn.Module:
        found = apply_task_vector(base.weights, merged.tensors, value)
        return merged_model(base.architecture, found, ingredients.train.inputs, ingredients.device)

    told = {"dialect": dialect.name, **details, "sign_conflict": merged.sign_conflict}
    if surprising := [*remarks, *dialect.merge_remarks]:
        told["remarks"] = "; ".join(surprising)
    if warning := different_starts(members):
        told["warnings"] = [warning]
    if scale == "heldout":
        grid = SUM_GRID if dialect.divide == "none" else GRID
        scale, module, told["curve"] = search_scale(grid, at, ingredients.heldout)
    else:
        module = at(scale)
    return SingleModel(base.architecture, module, {"scale": scale, **told})
