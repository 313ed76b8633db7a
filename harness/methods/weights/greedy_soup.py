"""Greedy soup: members join the average in the order of their held-out scores, if they do not harm it."""

from __future__ import annotations

from typing import Literal

from harness.evaluate.heldout import predict_module, ranking, score
from harness.merging.guards import check_mergeable, warnings_of
from harness.methods.method import method
from harness.methods.weights.uniform_soup import mean_of
from harness.systems.systems import SingleModel, member_parts
from harness.types import Ingredients


@method(
    "greedy_soup",
    family="weights",
    summary="Average only the members that do not lower the held-out score of the soup so far.",
    paper="Wortsman et al. 2022, arXiv:2203.05482, recipe 1 (the paper accepts >=, its code >)",
    words="greedy soup of {members}",
    needs={"members", "train", "heldout"},
    identical_members_unchanged=True,
    small=({}, {"accept": "better"}),
    seconds=1.5,
)
def greedy_soup(
    ingredients: Ingredients, *, accept: Literal["not_worse", "better"] = "not_worse"
) -> SingleModel:
    members, heldout = ingredients.members, ingredients.heldout
    check_mergeable(members)
    predictions = ingredients.predictions(member_parts(ingredients), heldout)
    order = ranking(members, predictions, heldout.labels, heldout.criterion)
    inside: list[int] = []
    best, curve = None, []
    for index in order:
        module = mean_of([members[i] for i in (*inside, index)], ingredients)
        trial = score(predict_module(module, heldout), heldout.labels, heldout.criterion)[0]
        taken = best is None or trial > best[0] or (accept == "not_worse" and trial == best[0])
        curve.append({"member": members[index].name, "heldout_score": trial, "taken": taken})
        if taken:
            inside.append(index)
            best = (trial, module)
    assert best is not None
    details = {"members": [members[i].name for i in inside], "heldout_score": best[0], "steps": curve}
    details |= warnings_of([members[i] for i in inside])
    return SingleModel(members[0].architecture, best[1], details)
