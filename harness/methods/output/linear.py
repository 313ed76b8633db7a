"""Linear interpolation: a weighted mean of the members' probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from harness.methods.method import method
from harness.systems.fitting import fit_gate, fit_linear, nll, uniform
from harness.systems.rules import Gated, Linear
from harness.systems.systems import OutputCombination, member_parts
from harness.types import Ingredients, NotApplicable

Weight = Annotated[float, Field(ge=0)]


def named_by_weights(parameters: Mapping[str, Any]) -> list[int] | None:
    """The members to which given weights are given, or the first if all are zero; None where they are not given."""
    weights = parameters["weights"]
    return [k for k, weight in enumerate(weights) if weight] or [0] if isinstance(weights, list) else None


@method(
    "linear",
    family="output",
    summary="Weighted mean of the members' probabilities; a label any member believes in survives (logical OR).",
    paper="Lakshminarayanan et al. 2017, arXiv:1612.01474; Jelinek and Mercer 1980",
    needs={"members", "heldout"},
    order_sensitive=lambda parameters: isinstance(parameters["weights"], list),
    identical_members_unchanged=True,
    small=(
        {"weights": "uniform"},
        {"weights": "learned"},
        {"weights": "contextual"},
        {"weights": [0.7, 0.3, 0.0]},
    ),
    uses=named_by_weights,
)
def linear(
    ingredients: Ingredients, *, weights: Literal["uniform", "learned", "contextual"] | list[Weight] = "uniform"
) -> OutputCombination:
    parts = member_parts(ingredients)
    if weights == "uniform":
        return OutputCombination(parts, Linear(uniform(len(parts))))
    if isinstance(weights, list):
        return OutputCombination(parts, Linear(given_weights(weights, len(parts), on_simplex=True)))
    stacked, labels = ingredients.stacked(parts, ingredients.heldout), ingredients.heldout.labels
    rule: Linear | Gated
    if weights == "learned":
        rule = Linear(fit_linear(stacked, labels))
        details = {"weights": rule.weights.tolist()}
    else:
        rule = Gated(*fit_gate(stacked, labels, "linear"), "linear")
        details = {"weights": rule.weights(stacked).flatten(1).mean(dim=1).tolist(), "slopes": rule.slopes.tolist()}
    return OutputCombination(parts, rule, {**details, "heldout_nll": nll(rule(stacked), labels)})


def given_weights(weights: list[float], members: int, *, on_simplex: bool) -> torch.Tensor:
    """Weights from a suite as a tensor [M] in float64, checked against the number of members."""
    if len(weights) != members:
        raise NotApplicable(f"{len(weights)} weights are given for {members} members")
    if on_simplex and abs(sum(weights) - 1) > 1e-6:
        raise NotApplicable(f"the weights sum to {sum(weights):g}: a linear interpolation needs a sum of 1")
    return torch.tensor(weights, dtype=torch.float64)
