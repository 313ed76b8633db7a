"""MC dropout: several stochastic passes of one member, averaged."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from harness.evaluate.heldout import ranking
from harness.methods.method import method
from harness.systems.dropout import DropoutPass, has_dropout
from harness.systems.fitting import accuracy, nll, uniform
from harness.systems.rules import Linear
from harness.systems.systems import OutputCombination, member_parts
from harness.types import Ingredients, NotApplicable


@method(
    "mc_dropout",
    family="output",
    summary="Dropout stays on: the mean of T stochastic passes of the best member (or one by position).",
    paper="Gal and Ghahramani 2016, arXiv:1506.02142; T=30 as in uncertainty-baselines",
    words="mean of {passes} passes with dropout",
    needs={"members", "heldout"},
    order_sensitive=lambda parameters: isinstance(parameters["member"], int),
    small=({"passes": 3}, {"passes": 2, "member": 1}),
    uses=lambda parameters: [parameters["member"]] if isinstance(parameters["member"], int) else None,
    seconds=8,
)
def mc_dropout(
    ingredients: Ingredients,
    *,
    passes: Annotated[int, Field(ge=1)] = 30,
    member: Literal["best"] | Annotated[int, Field(ge=0)] = "best",
) -> OutputCombination:
    parts = member_parts(ingredients)
    heldout = ingredients.heldout
    if member == "best":
        single = ingredients.predictions(parts, heldout)
        member = ranking(ingredients.members, single, heldout.labels, heldout.criterion)[0]
    if member >= len(parts):
        raise NotApplicable(f"there is no member {member}: the pool has {len(parts)}")
    chosen = ingredients.members[member]
    if not has_dropout(parts[member].module):
        raise NotApplicable(f"member {chosen.name} ({chosen.architecture.name}) has no dropout")
    # the passes' seed is the member's own, so that T=5 is the first five of T=30 and their predictions are shared
    draws = [DropoutPass(parts[member], t, chosen.seed % 2**31) for t in range(passes)]
    stacked = ingredients.stacked(draws, heldout)
    details = {"member": chosen.name, "spread_curve": spread_curve(stacked, heldout.labels)}
    return OutputCombination(draws, Linear(uniform(passes)), details)


def spread_curve(stacked: Tensor, labels: Tensor) -> list[dict[str, Any]]:
    """Held-out scores of the first T passes, and the standard deviation of a mean of T over the passes [T, N, C].

    The deviation is measured where it can be: over the disjoint groups of T passes, averaged over examples and labels.
    """
    total = len(stacked)
    curve = []
    for count in sorted({t for t in (1, 2, 3, 5, 10, 15, 20, 30, 50, 100) if t < total} | {total}):
        mean = stacked[:count].double().exp().mean(dim=0).log()
        point: dict[str, Any] = {"passes": count, "accuracy": accuracy(mean, labels), "nll": nll(mean, labels)}
        if (groups := total // count) >= 2:
            means = stacked[: groups * count].double().exp().unflatten(0, (groups, count)).mean(dim=1)
            point["std"] = float(means.var(dim=0).mean().sqrt())
        curve.append(point)
    return curve
