"""Bagging: members trained on bootstrap resamples, combined by mean probability or by vote."""

from __future__ import annotations

from typing import Any, Literal

import torch

from harness.methods.method import method
from harness.systems.fitting import accuracy, nll, uniform
from harness.systems.rules import Linear, Rule, Vote
from harness.systems.systems import OutputCombination, member_parts
from harness.types import Ingredients


@method(
    "bagging",
    family="output",
    summary="Bootstrap-trained members, combined; scored for free on the examples each one never saw (out of bag).",
    paper="Breiman 1996, doi:10.1007/BF00058655",
    words="bagged ensemble of {members}{combine}",
    told={"combine": {"mean": "", "vote": " by vote"}},
    needs={"members", "train"},
    pool="bootstrap",
    small=({"combine": "mean"}, {"combine": "vote"}),
)
def bagging(ingredients: Ingredients, *, combine: Literal["mean", "vote"] = "mean") -> OutputCombination:
    parts = member_parts(ingredients)
    rule: Rule = Linear(uniform(len(parts))) if combine == "mean" else Vote()
    return OutputCombination(parts, rule, _out_of_bag(ingredients, parts, combine))


def _out_of_bag(ingredients: Ingredients, parts: list[Any], combine: str) -> dict[str, float]:
    """The score on each training example of only those members whose resample lacks it."""
    train = ingredients.train
    stacked = ingredients.stacked(parts, train)
    out = torch.ones(len(parts), len(train), dtype=torch.bool)
    for row, member in zip(out, ingredients.members, strict=True):
        row[torch.tensor(member.provenance["rows"])] = False
    scored = out.any(dim=0)
    details = {"out_of_bag_fraction": float(out.double().mean()), "out_of_bag_scored": float(scored.double().mean())}
    if scored.any():
        weights = out.double() / out.sum(dim=0).clamp(min=1)
        votes = torch.nn.functional.one_hot(stacked.argmax(dim=-1), stacked.shape[-1])
        voices = stacked.double().exp() if combine == "mean" else votes + 1e-6 * stacked.double().exp()
        mean = (weights.unsqueeze(-1) * voices).sum(dim=0)[scored]
        mean = mean / mean.sum(dim=-1, keepdim=True)
        details["out_of_bag_accuracy"] = accuracy(mean, train.labels[scored])
        if combine == "mean":
            details["out_of_bag_nll"] = nll(mean.log(), train.labels[scored])
    return details
