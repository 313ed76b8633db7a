"""Negative evidence: what an expert knows beyond an anti-expert is added to a base's logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from harness.evaluate.heldout import ranking
from harness.methods.method import method
from harness.systems.fitting import nll
from harness.systems.parts import MemberPart
from harness.systems.rules import Contrast
from harness.systems.systems import OutputCombination
from harness.types import Ingredients, NotApplicable

Position = Annotated[int, Field(ge=0)]
GRID = [step / 10 for step in range(21)]


def _named(parameters: Mapping[str, Any]) -> list[int] | None:
    """The members that have a role by their position; None where one is ranked best or worst of all."""
    roles = [parameters[role] for role in ("on", "expert", "anti")]
    return None if {"best", "worst"} & set(roles) else [role for role in roles if role != "base"]


@method(
    "expert_anti_expert",
    family="output",
    summary="z_base + a (z_expert - z_anti): DExperts, and contrastive decoding with base = expert.",
    paper="Liu et al. 2021, arXiv:2105.03023; Li et al. 2022, arXiv:2210.15097",
    words="mixture of an expert less an anti-expert",
    needs={"members", "base", "heldout"},
    order_sensitive=lambda parameters: any(isinstance(parameters[k], int) for k in ("on", "expert", "anti")),
    small=(
        {"a": "heldout"},
        {"a": 0.5, "mask": "contrastive"},
        {"a": 0.5, "mask": "dexperts", "anti": "worst"},
        {"a": 0.5, "on": 0, "expert": 1, "anti": 2},
        {"a": 0.5, "on": "base", "expert": 2, "anti": "base"},
    ),
    uses=_named,
)
def expert_anti_expert(
    ingredients: Ingredients,
    *,
    a: Literal["heldout"] | float = "heldout",
    on: Literal["best", "base"] | Position = "best",
    expert: Literal["best"] | Position = "best",
    anti: Literal["base", "worst"] | Position = "base",
    mask: Literal["none", "contrastive", "dexperts"] = "none",
) -> OutputCombination:
    members, labels = ingredients.members, ingredients.heldout.labels
    ranks = {}
    if {"best", "worst"} & {on, expert, anti}:
        predictions = ingredients.predictions([MemberPart(m, ingredients.device) for m in members], ingredients.heldout)
        order = ranking(members, predictions, labels, ingredients.heldout.criterion)
        ranks = {"best": order[0], "worst": order[-1]}

    def part(which: str | int) -> MemberPart:
        if which == "base":
            return MemberPart(ingredients.base, ingredients.device)
        index = ranks[which] if isinstance(which, str) else which
        if index >= len(members):
            raise NotApplicable(f"there is no member {index}: the pool has {len(members)}")
        return MemberPart(members[index], ingredients.device)

    parts = [part(on), part(expert), part(anti)]
    threshold = 0.1 if mask == "contrastive" else 0.9
    roles = ingredients.stacked(parts, ingredients.heldout)
    details: dict[str, Any] = {"roles": dict(zip(("on", "expert", "anti"), (p.name for p in parts), strict=True))}
    if a == "heldout":
        a, details["curve"] = _best_strength(roles, labels, mask, threshold)
    return OutputCombination(parts, Contrast(float(a), mask, threshold), {**details, "a": a})


def _best_strength(
    roles: Tensor, labels: Tensor, mask: str, threshold: float
) -> tuple[float, list[dict[str, float]]]:
    """The strength of ``GRID`` with the least loss on held-out predictions [3, N, C], and all losses.

    Examples whose label the base excludes have an infinite loss at every strength, and are left out.
    """
    possible = ~roles[0].gather(-1, labels.unsqueeze(-1)).squeeze(-1).isneginf()
    if not possible.any():
        return 0.0, []
    if not possible.all():
        roles, labels = roles[:, possible], labels[possible]
    losses = [nll(Contrast(value, mask, threshold)(roles), labels) for value in GRID]
    curve = [{"a": value, "nll": loss} for value, loss in zip(GRID, losses, strict=True)]
    return GRID[losses.index(min(losses))], curve
