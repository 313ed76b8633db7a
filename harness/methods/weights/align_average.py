"""Permutation alignment: members' units are put into one order before their weights are averaged."""

from __future__ import annotations

from typing import Any, Literal

from harness.evaluate.barrier import barrier, interpolate
from harness.evaluate.heldout import ranking
from harness.merging.alignment import align, align_to_mean
from harness.merging.arithmetic import average
from harness.merging.guards import check_mergeable
from harness.merging.permutations import interchangeable
from harness.methods.method import method
from harness.methods.weights.uniform_soup import mean_of
from harness.models.weights import load_module, without_ties
from harness.systems.systems import SingleModel, member_parts, merged_model
from harness.types import Ingredients


@method(
    "align_average",
    family="weights",
    summary="Members' hidden units are reordered to match (Git Re-Basin weight matching), then the weights averaged.",
    paper="Ainsworth et al. 2023, arXiv:2209.04836, algorithms 1 (to: best) and 3 (to: mean)",
    words="average of {members}, their units aligned{to}",
    told={"to": {"best": "", "mean": " to the mean"}},
    needs={"members", "train", "heldout"},
    identical_members_unchanged=True,
    small=({}, {"to": "mean"}),
)
def align_average(ingredients: Ingredients, *, to: Literal["best", "mean"] = "best") -> SingleModel:
    """``to: best`` aligns every member to the one with the best held-out score (names break ties).

    ``to: mean`` aligns each in turn to the mean of all others until none moves (MergeMany). Both start from the members
    in the order of their scores, so the pool's order does not matter. The details hold the held-out curve and barrier
    between the two best members, before and after.
    """
    members, heldout = ingredients.members, ingredients.heldout
    check_mergeable(members)
    module = load_module(members[0])
    layers = interchangeable(module)
    if len(members) == 1:
        return SingleModel(members[0].architecture, mean_of(members, ingredients))
    predictions = ingredients.predictions(member_parts(ingredients), heldout)
    ranked = [members[k] for k in ranking(members, predictions, heldout.labels, heldout.criterion)]
    models = [{name: member.weights[name] for name in without_ties(module)} for member in ranked]
    details: dict[str, Any] = {}
    if to == "mean":
        aligned = align_to_mean(models, layers, ingredients.generator())
    else:
        best, *others = models
        aligned = [best, *(align(best, model, layers, ingredients.generator()).weights for model in others)]
        details["reference"] = ranked[0].name
    architecture, inputs, device = members[0].architecture, ingredients.train_inputs, ingredients.device
    before, after = (
        interpolate(architecture, first, second, inputs, heldout, device) for first, second, *_ in (models, aligned)
    )
    details["barrier"] = {"before": barrier(before), "after": barrier(after)}
    between = [member.name for member in ranked[:2]]
    details["interpolation"] = {"between": between, "before": before, "after": after}
    module = merged_model(architecture, average(aligned), aligned, inputs, device)
    return SingleModel(architecture, module, details)
