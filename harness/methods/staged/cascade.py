"""Cascade: cheap stages first; an example goes on only where the stage before is not certain of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from harness.cost.relative import relative_costs
from harness.evaluate.cascading import NEVER, Point, Stages, at_least, curve, dial, within
from harness.evaluate.named_stages import StageName, made_stage, named_members, positions
from harness.lm.heldout import said_of_heldout
from harness.methods.method import method
from harness.systems.acceptance import Agreement, Certain, Confidence, Entropy, Margin
from harness.systems.rules import Linear
from harness.systems.staged import Staged
from harness.systems.systems import OutputCombination
from harness.types import Combination, Ingredients, NotApplicable, cut_to

ACCEPT: dict[str, type[Certain]] = {
    "confidence": Confidence, "margin": Margin, "entropy": Entropy, "agreement": Agreement,
}  # fmt: skip


@method(
    "cascade",
    family="staged",
    summary="Stages in order of cost: the first that is certain of an example answers it; thresholds from held-out.",
    paper="Viola and Jones 2001; agreement: Kolawole et al. 2024, arXiv:2407.02348; Wang et al. 2022, arXiv:2012.01988",
    words="cascade over {members} by {accept}",
    needs={"members", "base", "train", "heldout"},
    order_sensitive=lambda parameters: any(positions(stage) is not None for stage in parameters["stages"]),
    identical_members_unchanged=lambda parameters: all(
        positions(stage) is not None or stage in ("best_single", "linear", "uniform_soup")
        for stage in parameters["stages"]
    )
    and parameters["accept"] != "agreement"
    and parameters["cost"] is None,  # copies run as one model, which is all that there is to pay
    small=(
        {},
        {"stages": [0, "0+1", "0+1+2"], "accept": "agreement", "threshold": 0.9},
        {"stages": [1, "uniform_soup", "linear"], "accept": "margin", "quality": 0.5},
        {"stages": [0, "1+2"], "accept": "entropy", "cost": 0.6, "combine": "mean"},
    ),
    uses=named_members,
    reads=lambda parameters: "answers" if parameters["accept"] == "agreement" else "probabilities",
    seconds=2,
)
def cascade(
    ingredients: Ingredients,
    *,
    stages: Annotated[list[StageName], Field(min_length=2)] = ["best_single", "linear"],  # noqa: B006
    accept: Literal["confidence", "margin", "entropy", "agreement"] = "confidence",
    cost: Annotated[float, Field(gt=0, le=1)] | None = None,
    quality: Annotated[float, Field(ge=0, le=1)] | None = None,
    threshold: Annotated[float, Field(ge=0, le=2)] | None = None,
    combine: Literal["last", "mean"] = "last",
) -> Staged:
    """A stage is a member (``0``), the mean of several (``0+1``), or a method that makes a combination.

    Held-out decides the thresholds: the best score that costs at most the share ``cost`` of what all stages take
    together (by default all of it), or the least cost that keeps the share ``quality`` of what the last stage gains
    over the first. ``threshold`` gives it instead. A single stage is taken where none of the thresholds beats it.
    """
    if sum(given is not None for given in (cost, quality, threshold)) > 1:
        raise NotApplicable("cost, quality and threshold each decide the thresholds: one of them is enough")
    made = [made_stage(stage, ingredients, by_vote=accept == "agreement") for stage in stages]
    if combine == "mean":
        made = _means(made)
    certain = ACCEPT[accept]
    first = made[0].parts()
    if accept == "agreement" and len(first) < 2 and threshold is None and len(made) == 2:
        raise NotApplicable(f"one model alone ({first[0].name}) always agrees with itself: the first stage needs two")
    if threshold is not None:
        return Staged(made, [certain(threshold)] * (len(made) - 1), {"thresholds": [threshold] * (len(made) - 1)})
    return _chosen(made, certain, ingredients, cost, quality)


def _means(stages: Sequence[Combination]) -> list[Combination]:
    """Each stage as the mean of itself and all stages before it."""
    found: list[Combination] = []
    total: dict[str, float] = {}
    parts: dict[str, Any] = {}
    for number, stage in enumerate(stages, start=1):
        if not isinstance(stage, OutputCombination) or not isinstance(stage.rule, Linear):
            raise NotApplicable("combine: mean is a mean of members: every stage has to be a weighted mean of some")
        for part, weight in zip(stage.parts(), stage.rule.weights.tolist(), strict=True):
            parts[part.digest] = part
            total[part.digest] = total.get(part.digest, 0.0) + weight
        weights = torch.tensor(list(total.values()), dtype=torch.float64) / number
        found.append(OutputCombination(list(parts.values()), Linear(weights)))
    return found


def _chosen(
    stages: Sequence[Combination],
    certain: type[Certain],
    ingredients: Ingredients,
    budget: float | None,
    quality: float | None,
) -> Staged:
    heldout = ingredients.heldout
    system = Staged(stages, [certain(NEVER)] * (len(stages) - 1))
    costs, unit = relative_costs(system.parts(), heldout)
    cumulative = (system.ran.double() @ torch.tensor(costs, dtype=torch.float64)).tolist()
    whole = cumulative[-1]
    early = system.parts_until(len(stages) - 2)
    told = said_of_heldout([*stages, *early], ingredients)
    size = min(answer.shape[-1] for answer in told.log_probs)
    found = [cut_to(size, answer) for answer in told.log_probs]
    answers, said = found[: len(stages)], dict(zip([part.digest for part in early], found[len(stages) :], strict=True))
    if any(answer.isnan().any() for answer in answers):
        raise NotApplicable("a stage says NaN on held-out, where the thresholds are chosen")
    certainties = [
        certain.certainty(answer, torch.stack([said[part.digest] for part in system.parts_until(number)]))
        for number, answer in enumerate(answers[:-1])
    ]
    tried = Stages.of(certainties, answers, told.labels, [each / whole for each in cumulative])
    points = curve(tried)
    point = _decided(points, tried, told.criterion, budget, quality)
    turned = dial(points, told.criterion)
    settings = [[certain(at) for at in each.thresholds] for each in turned]
    details = {
        "heldout": point.told(), "cost_unit": unit, "stage_costs": tried.costs.tolist(),
        "curve": [each.told() for each in turned],
    }  # fmt: skip
    cost_of = dict(zip([part.digest for part in system.parts()], costs, strict=True))
    alone = [sum(cost_of[part.digest] for part in stage.parts()) / whole for stage in stages]
    for number, share in enumerate(alone):
        accuracy, likelihood = tried.alone(number)
        single = Point((), share, accuracy, likelihood)
        if number and share <= point.cost and single.score(told.criterion) > point.score(told.criterion):
            details["heldout"] = single.told()
            return Staged([stages[number]], [], details | {"stage_alone": number})
    return Staged(stages, [certain(at) for at in point.thresholds], details, settings)


def _decided(
    points: Sequence[Point], tried: Stages, criterion: str, budget: float | None, quality: float | None
) -> Point:
    if quality is None:
        if found := within(points, 1.0 if budget is None else budget, criterion):
            return found
        raise NotApplicable(f"the first stage alone takes {tried.costs[0]:.3g} of what all stages take together")
    first, last = (tried.point([at] * len(tried.certainties)).score(criterion)[0] for at in (0.0, NEVER))
    found = at_least(points, first + quality * (last - first) if last > first else first, criterion)
    assert found is not None  # the last stage is among them
    return found
