"""Linear interpolation: a weighted mean of the members' probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.methods.method import method
from harness.systems.fitting import fit_gate, fit_linear, nll, uniform
from harness.systems.rules import Gated, Linear, LogLinear
from harness.systems.systems import OutputCombination, member_parts
from harness.types import Ingredients, NotApplicable

Weight = Annotated[float, Field(ge=0)]

WEIGHTS_IN_WORDS = {
    "weights": {
        "uniform": "",
        "learned": " with learned weights",
        "contextual": " with weights that depend on the input",
    }
}


def named_by_weights(parameters: Mapping[str, Any]) -> list[int] | None:
    """The members to which given weights are given, or the first if all are zero; None where they are not given."""
    weights = parameters["weights"]
    return [k for k, weight in enumerate(weights) if weight] or [0] if isinstance(weights, list) else None


@method(
    "linear",
    family="output",
    summary="Weighted mean of the members' probabilities; a label any member believes in survives (logical OR).",
    paper="Lakshminarayanan et al. 2017, arXiv:1612.01474; Jelinek and Mercer 1980",
    words="linear ensemble of {members}{weights}",
    told=WEIGHTS_IN_WORDS,
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
    return interpolation(ingredients, weights, Linear, fit_linear, on_simplex=True)


def interpolation(
    ingredients: Ingredients,
    weights: str | list[float],
    rule: type[Linear] | type[LogLinear],
    fit: Callable[[Tensor, Tensor], Tensor],
    *,
    on_simplex: bool,
) -> OutputCombination:
    """The members under a rule with weights that are uniform, given, learned or from a gate.

    Args:
        ingredients: held-out is read where there is something to fit.
        weights: "uniform", "learned", "contextual", or one for each member.
        rule: how they are mixed.
        fit: weights [M] from held-out log-probabilities [M, N, C] and labels [N].
        on_simplex: whether given weights have to sum to 1.
    """
    parts = member_parts(ingredients)
    if weights == "uniform":
        return OutputCombination(parts, rule(uniform(len(parts))))
    if isinstance(weights, list):
        return OutputCombination(parts, rule(given_weights(weights, len(parts), on_simplex=on_simplex)))
    stacked, labels = ingredients.stacked(parts, ingredients.heldout), ingredients.heldout.labels
    if weights == "learned":
        learned = rule(fit(stacked, labels))
        details = {"weights": learned.weights.tolist(), "heldout_nll": nll(learned(stacked), labels)}
        return OutputCombination(parts, learned, details)
    kind = "linear" if rule is Linear else "log_linear"
    gated = Gated(*fit_gate(stacked, labels, kind), kind)
    mean_weights = gated.weights(stacked).flatten(1).mean(dim=1).tolist()
    details = {"weights": mean_weights, "slopes": gated.slopes.tolist(), "heldout_nll": nll(gated(stacked), labels)}
    return OutputCombination(parts, gated, details)


def given_weights(weights: list[float], members: int, *, on_simplex: bool) -> Tensor:
    """Weights from a suite as a tensor [M] in float64, checked against the number of members."""
    if len(weights) != members:
        raise NotApplicable(f"{len(weights)} weights are given for {members} members")
    if on_simplex and abs(sum(weights) - 1) > 1e-6:
        raise NotApplicable(f"the weights sum to {sum(weights):g}: a linear interpolation needs a sum of 1")
    return torch.tensor(weights, dtype=torch.float64)
