"""Temperature scaling: one scalar, fitted on held-out, that changes confidence and never the prediction."""

from __future__ import annotations

from typing import Literal

from harness.evaluate.heldout import ranking
from harness.methods.method import method
from harness.systems.fitting import fit_temperature, nll, uniform
from harness.systems.rules import Linear, LogLinear, Rule, Tempered
from harness.systems.systems import OutputCombination, member_parts
from harness.types import Ingredients, stack


@method(
    "temperature",
    family="output",
    summary="The best member or the uniform ensemble, calibrated by one temperature on held-out.",
    paper="Guo et al. 2017, arXiv:1706.04599",
    words="recalibrated {of}",
    told={"of": {"best_single": "best single model", "linear": "ensemble of {members}",
                 "log_linear": "log-linear ensemble of {members}"}},
    needs={"members", "heldout"},
    small=({"of": "linear"}, {"of": "log_linear"}, {"of": "best_single"}),
)
def temperature(
    ingredients: Ingredients, *, of: Literal["best_single", "linear", "log_linear"] = "linear"
) -> OutputCombination:
    parts = member_parts(ingredients)
    heldout = ingredients.heldout
    predictions, labels = ingredients.predictions(parts, heldout), heldout.labels
    if of == "best_single":
        best = ranking(ingredients.members, predictions, labels, heldout.criterion)[0]
        parts, predictions = [parts[best]], [predictions[best]]
    stacked = stack(parts, predictions)
    weights = uniform(len(parts))
    rule: Rule = LogLinear(weights) if of == "log_linear" else Linear(weights)
    before = rule(stacked)
    rule = Tempered(rule, fit_temperature(before, labels))
    details = {
        "temperature": rule.temperature,
        "heldout_nll_before": nll(before, labels),
        "heldout_nll": nll(rule(stacked), labels),
    }
    return OutputCombination(parts, rule, details)
