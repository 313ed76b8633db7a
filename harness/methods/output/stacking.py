"""Stacking: a multinomial logistic model reads what all members say."""

from __future__ import annotations

from harness.methods.method import method
from harness.systems.fitting import nll
from harness.systems.stacking import fit_stacking
from harness.systems.systems import OutputCombination, member_parts
from harness.types import Ingredients, NotApplicable

MOST = 2_000_000
"""Weights at most: for a vocabulary of thousands there would be more than any held-out split can tell."""


@method(
    "stacking",
    family="output",
    summary="A multinomial logistic model on the members' held-out log-probabilities, L2 by cross-validation.",
    paper="Wolpert 1992; Ting and Witten 1999",
    words="stacked model over {members}",
    needs={"members", "heldout"},
    small=({},),
    seconds=8,
)
def stacking(ingredients: Ingredients) -> OutputCombination:
    """However large the penalty, a log-linear mixture with learned weights is left."""
    parts = member_parts(ingredients)
    stacked, labels = ingredients.stacked(parts, ingredients.heldout), ingredients.heldout.labels
    members, _, classes = stacked.shape
    if (count := members * classes**2) > MOST:
        raise NotApplicable(f"{members} members of {classes} classes have {count:,} weights, too many to be fitted")
    if stacked.isnan().any():
        raise NotApplicable("a member says NaN on held-out")
    possible = ~stacked.gather(-1, labels.expand(members, -1).unsqueeze(-1)).isneginf().all(dim=0).squeeze(-1)
    rule, penalty, losses = fit_stacking(stacked[:, possible], labels[possible], ingredients.generator())
    details = {
        "penalty": penalty,
        "weights": rule.scales.tolist(),
        "curve": [{"penalty": penalty, "nll": loss} for penalty, loss in sorted(losses.items())],
        "heldout_nll": nll(rule(stacked), labels),
    }
    return OutputCombination(parts, rule, details)
