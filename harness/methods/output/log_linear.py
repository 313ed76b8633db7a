"""Log-linear interpolation: a weighted product of the members' probabilities, normalised; negative weights allowed."""

from __future__ import annotations

from typing import Literal

from harness.methods.method import method
from harness.methods.output.linear import given_weights, named_by_weights
from harness.systems.fitting import fit_gate, fit_log_linear, nll, uniform
from harness.systems.rules import Gated, LogLinear
from harness.systems.systems import OutputCombination, member_parts
from harness.types import Ingredients


@method(
    "log_linear",
    family="output",
    summary="Weighted geometric mean (averaged logits); one member's veto is enough (logical AND).",
    paper="Hinton 2002 (products of experts); Heskes 1998",
    needs={"members", "heldout"},
    order_sensitive=lambda parameters: isinstance(parameters["weights"], list),
    # learned weights are free in their sum, so for copies of one member they act as its temperature
    identical_members_unchanged=lambda parameters: parameters["weights"] in ("uniform", "contextual"),
    small=(
        {"weights": "uniform"},
        {"weights": "learned"},
        {"weights": "contextual"},
        {"weights": [1.5, -0.5, 0.0]},
    ),
    uses=named_by_weights,
)
def log_linear(
    ingredients: Ingredients, *, weights: Literal["uniform", "learned", "contextual"] | list[float] = "uniform"
) -> OutputCombination:
    parts = member_parts(ingredients)
    if weights == "uniform":
        return OutputCombination(parts, LogLinear(uniform(len(parts))))
    if isinstance(weights, list):
        return OutputCombination(parts, LogLinear(given_weights(weights, len(parts), on_simplex=False)))
    stacked, labels = ingredients.stacked(parts, ingredients.heldout), ingredients.heldout.labels
    rule: LogLinear | Gated
    if weights == "learned":
        rule = LogLinear(fit_log_linear(stacked, labels))
        details = {"weights": rule.weights.tolist()}
    else:
        rule = Gated(*fit_gate(stacked, labels, "log_linear"), "log_linear")
        details = {"weights": rule.weights(stacked).flatten(1).mean(dim=1).tolist(), "slopes": rule.slopes.tolist()}
    return OutputCombination(parts, rule, {**details, "heldout_nll": nll(rule(stacked), labels)})
