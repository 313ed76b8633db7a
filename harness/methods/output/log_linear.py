"""Log-linear interpolation: a weighted product of the members' probabilities, normalised; negative weights allowed."""

from __future__ import annotations

from typing import Literal

from harness.methods.method import method
from harness.methods.output.linear import WEIGHTS_IN_WORDS, interpolation, named_by_weights
from harness.systems.fitting import fit_log_linear
from harness.systems.rules import LogLinear
from harness.systems.systems import OutputCombination
from harness.types import Ingredients


@method(
    "log_linear",
    family="output",
    summary="Weighted geometric mean (averaged logits); one member's veto is enough (logical AND).",
    paper="Hinton 2002 (products of experts); Heskes 1998",
    words="log-linear ensemble of {members}{weights}",
    told=WEIGHTS_IN_WORDS,
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
    return interpolation(ingredients, weights, LogLinear, fit_log_linear, on_simplex=False)
