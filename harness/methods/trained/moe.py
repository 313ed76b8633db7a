"""A sparsely-gated mixture-of-experts classifier, trained from scratch, and its dense twin."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field
from torch import nn

from harness.evaluate.expert_use import use_of
from harness.methods.method import method
from harness.models.architectures import build, takes, with_options
from harness.models.training import train, usual_schedule
from harness.moe.choose import AUTO
from harness.moe.layer import MixtureOfExperts
from harness.moe.watching import loads_noted
from harness.registry import DISPATCHES
from harness.systems.systems import SingleModel
from harness.types import Ingredients, NotApplicable


def _known(path: str) -> str:
    if path != AUTO:
        DISPATCHES.get(path)
    return path


PathName = Annotated[str, AfterValidator(_known)]
"""A registered dispatch path, or "auto"."""


@method(
    "moe",
    family="trained",
    summary="The members' network with its hidden layer split into experts, k of which run for each example.",
    paper="Shazeer et al. 2017, arXiv:1701.06538",
    words="{routing} mixture of {experts} experts",
    told={"routing": {"sparse": "sparse", "dense": "dense"}},
    needs={"members", "train"},
    small=({"epochs": 1}, {"epochs": 1, "routing": "dense", "k": 1}, {"epochs": 1, "dispatch": "index"}),
)
def moe(
    ingredients: Ingredients,
    *,
    experts: Annotated[int, Field(ge=2)] = 4,
    k: Annotated[int, Field(ge=1)] = 2,
    routing: Literal["sparse", "dense"] = "sparse",
    dispatch: PathName | None = None,
    balance: Annotated[float, Field(ge=0)] = 0.1,
    epochs: Annotated[int, Field(ge=1)] = 12,
    lr: Annotated[float, Field(gt=0)] = 2e-3,
) -> SingleModel:
    """``routing: dense`` is the twin in which all experts run for every example (k = experts).

    ``dispatch`` names the path on which rows reach their experts, or "auto" for the fastest by a short measurement:
    faster, but two runs may then differ in the last bits. None: rows sorted by expert, or all at once where all run.
    """
    if k > experts:
        raise NotApplicable(f"k={k} experts cannot run: there are only {experts}")
    first = min(ingredients.members, key=lambda member: member.name)
    if not takes(first.architecture, "experts"):
        name = first.architecture.name
        raise NotApplicable(f"architecture {name} has no hidden layer that can be split into experts here")
    active = experts if routing == "dense" else k
    path = {} if dispatch is None else {"dispatch": dispatch}
    architecture = with_options(
        first.architecture, experts=experts, active=active, routing=routing, balance=balance, **path
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(ingredients.seed)
        module = build(architecture).to(ingredients.device)
    schedule = replace(usual_schedule(ingredients.train, epochs), lr=lr)
    with loads_noted(module) as loads:
        log = train(module, ingredients.train, schedule, seed=ingredients.seed)
    details: dict[str, Any] = {
        "examples_seen": log.examples, "expert_load": _load(module, ingredients), "load_in_training": loads
    }  # fmt: skip
    if dispatch is not None:
        details["dispatch"] = str(_layer(module).choice)
    return SingleModel(architecture, module, details)


def _layer(module: nn.Module) -> MixtureOfExperts:
    return next(part for part in module.modules() if isinstance(part, MixtureOfExperts))


def _load(module: nn.Module, ingredients: Ingredients) -> list[float]:
    """The share of the training examples that each expert runs on, without noise."""
    split = ingredients.train
    batches = ((batch, torch.zeros(len(batch), dtype=torch.int64)) for batch in split.inputs.split(split.batch))
    (layer,) = use_of(module, batches, ["train"])["layers"].values()
    load: list[float] = layer["load"]
    return load
