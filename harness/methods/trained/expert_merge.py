"""Fine-tunes merged into one mixture: each one's layers become an expert, and everything else is averaged."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from harness.merging.forms import form_of
from harness.merging.guards import check_mergeable, warnings_of
from harness.merging.own_data import own_data
from harness.merging.prototypes import prototypes
from harness.merging.sparse_training import train_routers
from harness.methods.method import method
from harness.methods.weights.uniform_soup import mean_of
from harness.systems.systems import SingleModel, merged_model
from harness.types import Ingredients, NotApplicable

Gate = Literal["prototype", "hidden", "random", "trained"]


@method(
    "expert_merge",
    family="trained",
    summary="Each member's feed-forward (or hidden) layers as an expert, k of which run; everything else averaged.",
    paper="Sukhbaatar et al. 2024, arXiv:2403.07816; Goddard et al. 2024, arXiv:2403.13257 (mergekit-moe)",
    words="mixture of {members} as experts{gate}",
    told={"gate": {"prototype": "", "random": " behind a random router", "trained": " behind a trained router"}},
    needs={"members", "train"},
    order_sensitive=lambda given: given["gate"] in ("random", "trained") or bool(given["data"] or given["prompts"]),
    identical_members_unchanged=True,
    small=({}, {"gate": "random", "k": 1}, {"gate": "trained", "steps": 2}),
    seconds=60,
)
def expert_merge(
    ingredients: Ingredients,
    *,
    gate: Gate = "prototype",
    k: Annotated[int, Field(ge=1)] = 2,
    data: list[str] | None = None,
    prompts: list[list[str]] | None = None,
    balance: Annotated[float, Field(ge=0)] = 0.01,
    steps: Annotated[int, Field(ge=1)] = 100,
    lr: Annotated[float, Field(gt=0)] = 1e-2,
) -> SingleModel:
    """Llama-type language models become Mixtral or Qwen-MoE; a classifier's hidden layer becomes experts.

    The router at each layer is, by ``gate``:

    - ``prototype``: of each expert the mean of what the layer's experts are given, on the expert's own data;
    - ``hidden``: of each expert the mean of what enters the layer at the last token of its texts (mergekit-moe);
    - ``random``: drawn (mergekit-moe);
    - ``trained``: the prototypes, trained for ``steps`` with everything else frozen, at the rate ``lr`` and with
      ``balance`` weighing the loss that keeps all experts in use.

    States are those of the members' average. An expert's own data is the group of training examples that ``data`` names
    for it, or the texts that ``prompts`` has for it; by default what it was trained on, and where that is the same for
    all, or not known, the examples of which it is right with more probability than the other members.
    """
    members = ingredients.members
    if k > len(members):
        raise NotApplicable(f"k={k} experts cannot run: there are only {len(members)}")
    form = form_of(members[0].architecture)
    if gate == "hidden" and not form.layers:
        raise NotApplicable("gate 'hidden' is for language models: 'prototype' is for all")
    check_mergeable(members)
    architecture = form.sparse(len(members), k, balance)
    models = [member.weights for member in members]
    details: dict[str, Any] = dict(warnings_of(members))
    if gate == "random":
        generator = ingredients.generator()
        widths = [form.inputs(place, models[0]) for place in form.places]
        # in one draw, as mergekit-moe has it
        routers = list(torch.randn(len(widths), len(members), widths[0], generator=generator))
    else:
        own = own_data(ingredients, data, prompts)
        details["own_data"] = own.words
        mean = mean_of(members, ingredients)
        routers = prototypes(mean, form, own.batches, "last" if gate == "hidden" else "experts")
    tensors = form.assemble(models, models, routers)
    module = merged_model(architecture, tensors, models, ingredients.train_inputs, ingredients.device)
    if gate == "trained":
        log = train_routers(module, form, ingredients.train, steps=steps, lr=lr, balance=balance, seed=ingredients.seed)
        details |= {"examples_seen": log.examples, "router_seconds": log.seconds}
    return SingleModel(architecture, module, details)
