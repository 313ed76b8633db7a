"""Sparse upcycling: copies of a dense model's layers become experts behind a fresh router, and training goes on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.merging.forms import form_of
from harness.merging.guards import check_mergeable
from harness.merging.sparse_training import balanced, train_for
from harness.methods.method import method
from harness.models.weights import load_module, module_with
from harness.moe.watching import loads_noted
from harness.systems.systems import SingleModel
from harness.types import Ingredients, Member, NotApplicable

START = 0.02
"""Standard deviation of a fresh router's weights, as transformers starts them."""


@method(
    "upcycle",
    family="trained",
    summary="One model with copies of its feed-forward (or hidden) layers as experts, k of which run, trained on.",
    paper="Komatsuzaki et al. 2023, arXiv:2212.05055",
    words="{experts}{start}",
    told={
        "experts": {1: "dense model trained further", None: "upcycled mixture"},
        "start": {"member": "", "base": " from the base"},
    },
    needs={"members", "base", "train"},
    order_sensitive=lambda parameters: parameters["start"] == "member",
    identical_members_unchanged=lambda parameters: parameters["steps"] == 0 and parameters["noise"] == 0,
    small=(
        {"steps": 2, "experts": 1, "k": 1},
        {"steps": 0},
        {"steps": 2, "experts": 3, "noise": 0.1, "index": 1},
        {"steps": 2, "start": "base", "k": 1},
    ),
    uses=lambda parameters: [] if parameters["start"] == "base" else [parameters["index"]],
    seconds=60,
)
def upcycle(
    ingredients: Ingredients,
    *,
    start: Literal["member", "base"] = "member",
    index: Annotated[int, Field(ge=0)] = 0,
    experts: Annotated[int, Field(ge=1)] = 4,
    k: Annotated[int, Field(ge=1)] = 2,
    noise: Annotated[float, Field(ge=0)] = 0.0,
    balance: Annotated[float, Field(ge=0)] = 0.01,
    steps: Annotated[int, Field(ge=0)] = 200,
    lr: Annotated[float, Field(gt=0)] = 1e-3,
) -> SingleModel:
    """The dense model is the member at ``index``, or with ``start: base`` the pool's base.

    Before the first step the mixture says what that model says, for the weights of the experts that run sum to 1.
    Llama-type language models become Mixtral or Qwen-MoE; a classifier's hidden layer becomes experts. One expert is
    the dense model itself, trained on as long: what of the gain is due to the training alone. ``noise`` is the
    standard deviation of what is added to each tensor of each copy, relative to the tensor's own; ``balance`` weighs
    the loss that keeps all experts in use.
    """
    if k > experts:
        raise NotApplicable(f"k={k} experts cannot run: there are only {experts}")
    if noise and experts == 1:
        raise NotApplicable("one expert is the dense model itself: there are no copies for noise to tell apart")
    dense = _dense(ingredients, start, index)
    form = form_of(dense.architecture)
    architecture = form.sparse(experts, k, balance)
    check_mergeable([dense])
    if experts == 1:
        return _trained_on(dense, ingredients, steps, lr)
    generator, weights = ingredients.generator(), dense.weights
    widths = [form.inputs(place, weights) for place in form.places]
    routers = [START * torch.randn(experts, width, generator=generator) for width in widths]
    tensors = form.assemble([weights] * experts, [weights], routers)
    if noise:
        copied = tuple(f"{place}.experts." for place in form.places)
        tensors |= {
            name: _noisy(tensor, noise, generator) for name, tensor in tensors.items() if name.startswith(copied)
        }
    module = module_with(architecture, tensors).to(ingredients.device)
    details: dict[str, Any] = {"dense": dense.name}
    if steps:
        with balanced(form, module, balance), loads_noted(module) as loads:
            log = train_for(module, ingredients.train, steps, lr, ingredients.seed)
        details |= {"examples_seen": log.examples, "train_seconds": log.seconds, "load_in_training": loads}
    return SingleModel(architecture, module, details)


def _trained_on(dense: Member, ingredients: Ingredients, steps: int, lr: float) -> SingleModel:
    """The dense model alone, on as many examples as a mixture would be given."""
    module = load_module(dense).to(ingredients.device)
    details: dict[str, Any] = {"dense": dense.name}
    if steps:
        log = train_for(module, ingredients.train, steps, lr, ingredients.seed)
        details |= {"examples_seen": log.examples, "train_seconds": log.seconds}
    return SingleModel(dense.architecture, module, details)


def _dense(ingredients: Ingredients, start: str, index: int) -> Member:
    members = ingredients.members
    if start == "base":
        return ingredients.base
    if index >= len(members):
        raise NotApplicable(f"there is no member {index}: the pool has {len(members)}")
    return members[index]


def _noisy(stacked: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Tensors of all experts [experts, ...], each copy with noise of its own."""
    drawn = torch.randn(stacked.shape, generator=generator, dtype=stacked.dtype)
    return stacked + noise * stacked[0].std() * drawn
