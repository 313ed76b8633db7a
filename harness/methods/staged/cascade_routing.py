"""Cascade routing: after each stage a router decides for every example whether it stops, goes on, or skips stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.cost.relative import relative_costs
from harness.evaluate.cascading import within
from harness.evaluate.heldout import ranking
from harness.evaluate.named_stages import StageName, made_stage, named_members
from harness.evaluate.routing import PRICES, fit_router, out_of_fold, priced, turned
from harness.lm.heldout import said_of_heldout
from harness.methods.method import method
from harness.systems.cascade_routing import CascadeRouting
from harness.systems.fitting import uniform
from harness.systems.routers import evidence_of
from harness.systems.rules import Linear
from harness.systems.systems import OutputCombination, member_parts
from harness.types import Combination, Ingredients, NotApplicable


def _by_name(parameters: Mapping[str, Any]) -> bool:
    """Whether stages are given, and one of them is not a method."""
    return any(not str(stage).isidentifier() for stage in parameters["stages"] or ())


@method(
    "cascade_routing",
    family="staged",
    summary="After each stage a router fitted on held-out says of every example: stop here, go on, or skip stages.",
    paper="Dekoninck et al. 2025, arXiv:2410.10347",
    words="cascade routing over {members}",
    needs={"members", "base", "train", "heldout"},
    order_sensitive=_by_name,
    identical_members_unchanged=lambda parameters: all(
        not str(stage).isidentifier() or stage in ("best_single", "linear", "uniform_soup")
        for stage in parameters["stages"] or ()
    )
    and parameters["cost"] is None,  # copies run as one model, which is all that there is to pay
    small=(
        {},
        {"stages": [0, 1, 2], "router": "neighbours"},
        {"stages": ["best_single", "uniform_soup", "linear"], "price": 0.05},
        {"stages": ["0", "0+1", "0+1+2"], "cost": 0.8, "decisions": 1},
    ),
    uses=named_members,
    seconds=2,
)
def cascade_routing(
    ingredients: Ingredients,
    *,
    stages: Annotated[list[StageName], Field(min_length=2)] | None = None,
    router: Literal["logistic", "neighbours"] = "logistic",
    price: Annotated[float, Field(ge=0)] | None = None,
    cost: Annotated[float, Field(gt=0, le=1)] | None = None,
    decisions: Annotated[int, Field(ge=1)] | None = None,
) -> CascadeRouting:
    """A stage is a member (``0``), the mean of several (``0+1``), or a method that makes a combination.

    Without ``stages`` these are the cheapest member (of equally cheap ones the best), then the means of the two, four,
    eight ... cheapest, and of all. A later stage is worth its probability of being right less ``price`` times the share
    of what all models take together that is still to be paid. Without a price held-out chooses it: the best score that
    costs at most the share ``cost``, by default all. ``decisions: 1`` decides after the first stage alone.
    """
    if price is not None and cost is not None:
        raise NotApplicable("price and cost both decide how dear a stage may be: one of them is enough")
    made = _growing(ingredients) if stages is None else [made_stage(stage, ingredients) for stage in stages]
    if len(made) < 2:
        raise NotApplicable("one stage leaves nothing to decide: the pool has one member")
    parts = {part.digest: part for stage in made for part in stage.parts()}
    taken, unit = relative_costs(list(parts.values()), ingredients.heldout)
    shares = [each / sum(taken) for each in taken]
    told = said_of_heldout(made, ingredients)
    answers = told.log_probs
    if any(answer.isnan().any() for answer in answers):
        raise NotApplicable("a stage says NaN on held-out, where the router is fitted")
    evidence = [evidence_of(answer) for answer in answers[:-1]]
    right = torch.stack([answer.argmax(dim=-1) == told.labels for answer in answers], dim=1)
    routers = [fit_router(known, right[:, number:], router) for number, known in enumerate(evidence)]
    unseen = [
        out_of_fold(known, right[:, number:], router, ingredients.generator()) for number, known in enumerate(evidence)
    ]
    found = CascadeRouting(made, routers, shares, 0.0, decisions=decisions)

    def tried(at: float) -> tuple[Tensor, Tensor, Tensor]:
        return found.priced(at).go_through(
            len(right), lambda stage, rows: answers[stage][rows], lambda stage, rows, _: unseen[stage][rows]
        )

    points = [
        priced(at, *tried(at)[:2], told.labels, shares) for at in (PRICES if price is None else (price,))
    ]
    best = within(points, 1.0 if cost is None else cost, told.criterion)
    if best is None:
        raise NotApplicable(f"{min(point.cost for point in points):.3g} of what all models take is the least it takes")
    found.price = best.price
    found.settings = tuple(point.price for point in turned(points))
    found.details = {
        "heldout": best.told(), "cost_unit": unit, "curve": [point.told() for point in points],
        "stages": [[part.name for part in stage.parts()] for stage in made], "paths": _paths(tried(best.price)[2]),
    }  # fmt: skip
    return found


def _growing(ingredients: Ingredients) -> list[Combination]:
    """The cheapest member, and the means of the two, four, eight ... cheapest and of all; of equally cheap the best."""
    parts = member_parts(ingredients)
    taken, _ = relative_costs(parts, ingredients.heldout)
    told = said_of_heldout(parts, ingredients)
    ranked = ranking(ingredients.members, told.log_probs, told.labels, told.criterion)
    ordered = [parts[k] for k in sorted(ranked, key=taken.__getitem__)]
    sizes = sorted({min(2**power, len(parts)) for power in range(len(parts).bit_length() + 1)})
    return [OutputCombination(ordered[:size], Linear(uniform(size))) for size in sizes]


def _paths(asked: Tensor) -> list[dict[str, Any]]:
    """Which stages examples went through, bool [N, stages], from the most frequent path on, with its share."""
    paths, counts = asked.unique(dim=0, return_counts=True)
    order = counts.sort(descending=True, stable=True).indices.tolist()
    return [
        {"stages": paths[k].nonzero().flatten().tolist(), "share": int(counts[k]) / len(asked)} for k in order
    ]
