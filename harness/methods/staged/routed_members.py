"""Routed members: for every example a router picks those that are run."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.cost.relative import relative_costs
from harness.evaluate.cascading import within
from harness.evaluate.heldout import ranking
from harness.evaluate.routing import PRICES, fit_router, out_of_fold, priced, turned
from harness.lm.heldout import documents_of, said_of_heldout
from harness.methods.method import method
from harness.systems.routed import ONE_MEMBER, Routed
from harness.systems.routers import Router, evidence_of
from harness.systems.systems import member_parts
from harness.types import Ingredients, NotApplicable


@method(
    "routed_members",
    family="staged",
    summary="A router fitted on held-out picks the members that run, by the cheapest one's prediction or the inputs.",
    paper="Ong et al. 2024, arXiv:2406.18665; Hu et al. 2024, arXiv:2403.12031; nearest neighbours: Woods et al. 1997",
    words="{pick} of {members} by a router",
    needs={"members", "heldout"},
    identical_members_unchanged=True,
    small=({}, {"router": "neighbours", "by": "inputs"}, {"pick": 2, "cost": 0.8}, {"price": 0.5, "pick": 3}),
    seconds=2,
)
def routed_members(
    ingredients: Ingredients,
    *,
    by: Literal["prediction", "inputs"] = "prediction",
    router: Literal["logistic", "neighbours"] = "logistic",
    pick: Annotated[int, Field(ge=1)] = 1,
    price: Annotated[float, Field(ge=0)] | None = None,
    cost: Annotated[float, Field(gt=0, le=1)] | None = None,
) -> Routed:
    """``by: prediction`` asks the cheapest member first (of equally cheap ones the best), which then always runs.

    A member is worth its probability of being right less ``price`` times its share of what all members take together,
    but for the one that runs anyway. Without a price held-out chooses it: the best score that costs at most the share
    ``cost``, by default all.
    """
    if price is not None and cost is not None:
        raise NotApplicable("price and cost both decide how dear a member may be: one of them is enough")
    parts, heldout = member_parts(ingredients), ingredients.heldout
    if pick > len(parts):
        raise NotApplicable(f"{pick} members cannot be picked: the pool has {len(parts)}")
    if by == "inputs" and not heldout.inputs.is_floating_point():
        raise NotApplicable("a router reads numbers, and these inputs are raw files or tokens: route by prediction")
    if pick > 1 and documents_of(heldout):
        raise NotApplicable(ONE_MEMBER)
    told = said_of_heldout(parts, ingredients)
    predictions, labels = told.log_probs, told.labels
    if any(said.isnan().any() for said in predictions):
        raise NotApplicable("a member says NaN on held-out")
    # the best first, so that of members that promise the same the better one runs, in whatever order they are given
    ranked = ranking(ingredients.members, predictions, labels, told.criterion)
    parts, predictions = [parts[k] for k in ranked], [predictions[k] for k in ranked]
    taken, unit = relative_costs(parts, heldout)
    shares = [each / sum(taken) for each in taken]
    asked = min(range(len(parts)), key=shares.__getitem__) if by == "prediction" else None
    evidence = heldout.inputs.flatten(1) if asked is None else evidence_of(predictions[asked])
    right = torch.stack([said.argmax(dim=-1) == labels for said in predictions], dim=1)

    def prices_at(at: float) -> list[float]:
        return [0.0 if k == asked else at * share for k, share in enumerate(shares)]  # who is asked is paid already

    def system(at: float, fitted: Router) -> Routed:
        return Routed(parts, fitted, prices_at(at), picked=pick, asked=asked)

    unseen = _Known(out_of_fold(evidence, right, router, ingredients.generator()))
    prices = PRICES if price is None else (price,)
    points = [
        priced(at, *system(at, unseen).answer(evidence, predictions), labels, shares) for at in prices
    ]
    best = within(points, 1.0 if cost is None else cost, told.criterion)
    if best is None:
        raise NotApplicable(f"{min(point.cost for point in points):.3g} of what all members take is the least it takes")
    found = system(best.price, fit_router(evidence, right, router))
    found.settings = tuple(prices_at(point.price) for point in turned(points))
    found.details = {
        "heldout": best.told(), "cost_unit": unit, "member_costs": shares,
        "asked": None if asked is None else parts[asked].name, "curve": [point.told() for point in points],
    }  # fmt: skip
    return found


class _Known(Router):
    """What is expected on held-out, example by example, whatever the evidence."""

    def __init__(self, expected: Tensor) -> None:
        self.expected = expected

    def __call__(self, evidence: Tensor) -> Tensor:
        return self.expected

    @property
    def flops(self) -> float:
        return 0.0
