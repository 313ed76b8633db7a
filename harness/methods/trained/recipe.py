"""What a recipe of mergekit's or mergekit-moe's says: a YAML file, with folders of the pool's models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, ValidationInfo
from torch import Tensor

from harness.errors import BadInput
from harness.merging.arithmetic import Weights, first_of
from harness.merging.forms import form_of
from harness.merging.guards import check_mergeable, warnings_of
from harness.merging.moe_recipe import MoeRecipe, is_moe, read_moe
from harness.merging.recipe_gates import routers
from harness.methods.method import method
from harness.models.configuration import config_of, head_of, like, settings_of
from harness.recipes.configuration import changed_config
from harness.recipes.planning import Planned
from harness.recipes.pooled import Held, PooledRecipe, merge_held, read_pooled
from harness.strict import yaml
from harness.strict.beside import Beside
from harness.systems.systems import SingleModel, merged_model
from harness.types import Architecture, Ingredients, Member, NotApplicable


def _read(given: str | dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    """The recipe in a file beside the suite, or one that stands in the suite, or that was read before."""
    beside: Beside = info.context or Beside(Path(), {})
    if isinstance(given, str):
        path = beside.folder / Path(given).expanduser()
        return {**_parsed(yaml.read_all(path), path.parent, beside.models), "file": given}
    if given.keys() >= {"documents", "models"}:
        return given
    try:
        return _parsed([yaml.Document(given, "", "", {(): 1})], None, beside.models)
    except BadInput as fault:  # its place is that of the parameter
        raise BadInput(fault.problem, given=fault.given, choices=fault.choices, hint=fault.hint) from None


def _parsed(documents: Sequence[yaml.Document], folder: Path | None, models: Mapping[str, str]) -> dict[str, Any]:
    first = documents[0]
    if is_moe(first.value):
        if len(documents) > 1:
            place = documents[1].place(())
            raise BadInput("a mixture of experts is no stage", place=place, hint="remove the line '---'")
        return read_moe(first, folder, models).model_dump()
    if not isinstance(first.value, dict) or "merge_method" not in first.value:
        hint = "mergekit's have a 'merge_method', mergekit-moe's 'experts'"
        raise BadInput("this is no recipe that is read here", place=first.place(()), hint=hint)
    return read_pooled(documents, folder, models).model_dump()


Recipe = Annotated[str | dict[str, Any], AfterValidator(_read)]
"""The path of a YAML file, relative to the suite's, or what such a file holds."""


@method(
    "recipe",
    family="trained",
    summary="What a recipe of mergekit's says: any merge of weights, by layers, in stages; or a mixture of experts.",
    paper="Goddard et al. 2024, arXiv:2403.13257 (mergekit)",
    words="merge by a recipe",
    needs={"members", "base", "train"},
    small=(
        {"file": {"base_model": "base", "gate_mode": "random",
                  "experts": [{"source_model": "m0"}, {"source_model": "m1"}, {"source_model": "base"}]}},
        {"file": {"base_model": "m0", "gate_mode": "uniform_random", "experts_per_token": 1, "dtype": "bfloat16",
                  "experts": [{"source_model": "m1"}, {"source_model": "m0"}]}},
        {"file": {"merge_method": "ties", "base_model": "base", "parameters": {"density": 0.5},
                  "models": [{"model": "m0", "parameters": {"weight": 0.5}},
                             {"model": "m1", "parameters": {"weight": 0.3}}]}},
    ),
    seconds=10,
)  # fmt: skip
def recipe(ingredients: Ingredients, *, file: Recipe) -> SingleModel:
    """One with ``merge_method`` is a merge, computed in float32 and rounded once, as ``stockpot merge`` makes it.

    One with ``experts`` is a mixture: attention, norms and embeddings are those of its ``base_model``. Models are named
    by paths relative to the recipe's file: folders of the pool's members, or of its base; in a recipe that stands in
    the suite itself, by the pool's own names for them ("base", "m0").
    """
    if isinstance(file, str):
        raise TypeError("a recipe is read when its parameters are validated")
    if "documents" in file:
        return _merge(ingredients, PooledRecipe.model_validate(file))
    return _mixture(ingredients, MoeRecipe.model_validate(file))


def _merge(ingredients: Ingredients, said: PooledRecipe) -> SingleModel:
    models = {text: _model(ingredients, name) for text, name in said.models.items()}
    used = list(models.values())
    check_mergeable(used)
    settings = settings_of(used[0].architecture) if head_of(used[0].architecture) else {}
    held = {text: Held(model.weights, settings) for text, model in models.items()}
    tensors, planned = merge_held(said.recipes(), held, ingredients.seed)
    donor = models[planned.donor]
    counters = {name: tensor for name, tensor in donor.weights.items() if not tensor.is_floating_point()}
    architecture = _with_layers(donor.architecture, planned)
    weights = [model.weights for model in used]
    whole = first_of(tensors, counters)
    module = merged_model(architecture, whole, weights, ingredients.train_inputs, ingredients.device)
    details = {"merged": [model.name for model in used], "rule": said.recipes()[-1].rule.name}
    return SingleModel(architecture, module, details | warnings_of(used))


def _with_layers(architecture: Architecture, planned: Planned) -> Architecture:
    """The architecture of as many layers as a merge has."""
    if head_of(architecture) is None:
        return architecture
    settings = settings_of(architecture)
    changed = changed_config(settings, layers=planned.taken or None, dtype="float32", place="the recipe")
    del changed["dtype"]
    return architecture if changed == settings else like(architecture, config_of(changed))


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
