"""A merge that a recipe of mergekit's says: its YAML file, with folders of the pool's models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, ValidationInfo
from torch import Tensor

from harness.errors import BadInput
from harness.merging.arithmetic import Weights
from harness.merging.forms import form_of
from harness.merging.guards import check_mergeable, warnings_of
from harness.merging.moe_recipe import MoeRecipe, is_moe, read_moe
from harness.merging.recipe_gates import routers
from harness.methods.method import method
from harness.strict import yaml
from harness.strict.beside import Beside
from harness.systems.systems import SingleModel, merged_model
from harness.types import Ingredients, Member, NotApplicable


def _read(given: str | dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    """The recipe in a file beside the suite, or one that stands in the suite, or that was read before."""
    beside: Beside = info.context or Beside(Path(), {})
    if isinstance(given, str):
        path = beside.folder / Path(given).expanduser()
        document = yaml.read(path)
        return {**_parsed(document, path.parent, beside.models), "file": given}
    try:
        return _parsed(yaml.Document(given, "", "", {(): 1}), None, beside.models)
    except BadInput as fault:  # its place is that of the parameter
        raise BadInput(fault.problem, given=fault.given, choices=fault.choices, hint=fault.hint) from None


def _parsed(document: yaml.Document, folder: Path | None, models: Mapping[str, str]) -> dict[str, Any]:
    if not is_moe(document.value):
        hint = "mergekit-moe's have 'base_model' and 'experts'"
        raise BadInput("this is no recipe that is read here", place=document.place(()), hint=hint)
    return read_moe(document, folder, models).model_dump()


Recipe = Annotated[str | dict[str, Any], AfterValidator(_read)]
"""The path of a YAML file, relative to the suite's, or what such a file holds."""


@method(
    "recipe",
    family="trained",
    summary="What a recipe of mergekit-moe says: experts of some models, all else of one, routers drawn or of prompts.",
    paper="Goddard et al. 2024, arXiv:2403.13257 (mergekit-moe)",
    words="mixture of experts by a recipe",
    needs={"members", "base", "train"},
    small=(
        {"file": {"base_model": "base", "gate_mode": "random",
                  "experts": [{"source_model": "m0"}, {"source_model": "m1"}, {"source_model": "base"}]}},
        {"file": {"base_model": "m0", "gate_mode": "uniform_random", "experts_per_token": 1, "dtype": "bfloat16",
                  "experts": [{"source_model": "m1"}, {"source_model": "m0"}]}},
    ),
    seconds=10,
)  # fmt: skip
def recipe(ingredients: Ingredients, *, file: Recipe) -> SingleModel:
    """Attention, norms and embeddings are those of the recipe's ``base_model``, as mergekit-moe has it.

    Models are named by paths relative to the recipe's file: folders of the pool's members, or of its base; in a recipe
    that stands in the suite itself, by the pool's own names for them ("base", "m0").
    """
    if isinstance(file, str):
        raise TypeError("a recipe is read when its parameters are validated")
    return _mixture(ingredients, MoeRecipe.model_validate(file))


def _mixture(ingredients: Ingredients, said: MoeRecipe) -> SingleModel:
    base, *sources = (_model(ingredients, name) for name in (said.base_model, *(e.source_model for e in said.experts)))
    form = form_of(base.architecture)
    check_mergeable([base, *sources])
    architecture = form.sparse(len(sources), said.experts_per_token, 0.0)
    scales = [expert.residual_scale for expert in said.experts]
    if any(scale is not None for scale in scales) and not form.layers:
        raise NotApplicable("'residual_scale' is for language models, whose layers add to a residual stream")
    weights = [member.weights if scale is None else Scaled(member.weights, scale)
               for member, scale in zip(sources, scales, strict=True)]  # fmt: skip
    gates = routers(said, form, base, ingredients.generator(), ingredients.device)
    dtype = getattr(torch, said.dtype) if said.dtype else next(iter(base.weights.values())).dtype
    tensors = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor
               for name, tensor in form.assemble(weights, [base.weights], gates).items()}  # fmt: skip
    used = [base.weights, *(member.weights for member in sources)]
    module = merged_model(architecture, tensors, used, ingredients.train_inputs, ingredients.device)
    details: dict[str, Any] = {"base": base.name, "experts_from": [member.name for member in sources]}
    return SingleModel(architecture, module, details | warnings_of(sources, base))


def _model(ingredients: Ingredients, name: str) -> Member:
    """The member of a name, or the pool's base."""
    found = {member.name: member for member in ingredients.members}
    if name in found:
        return found[name]
    if name == "base":
        return ingredients.base
    raise NotApplicable(f"the recipe names '{name}', and the members are {', '.join(found)}")


@dataclass(frozen=True)
class Scaled(Mapping[str, Tensor]):
    """A language model's tensors, its feed-forward layers' outputs multiplied by a scale."""

    of: Weights
    scale: float

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.of[name]
        return tensor * self.scale if name.endswith(".mlp.down_proj.weight") else tensor

    def __contains__(self, name: object) -> bool:
        return name in self.of

    def __iter__(self) -> Iterator[str]:
        return iter(self.of)

    def __len__(self) -> int:
        return len(self.of)
