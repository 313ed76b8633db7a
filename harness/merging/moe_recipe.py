"""mergekit-moe's recipes: which model gives the experts, and which one all else; what routers are made of.

Source: mergekit 0.1.5, ``mergekit/moe/config.py`` (Goddard et al. 2024, arXiv:2403.13257).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from harness.errors import BadInput
from harness.strict import yaml
from harness.strict.fields import Count, Strict
from harness.strict.model import read_model

GateMode = Literal["hidden", "cheap_embed", "random", "uniform_random"]
DRAWN = ("random", "uniform_random")
Prompts = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]

UNSUPPORTED = {
    "shared_experts": "every expert is one that a router picks",
    "architecture": "the base's kind says which there is: Mixtral for Llama and Mistral, Qwen-MoE for Qwen",
    "noise_scale": "the method 'upcycle' has noise",
}
"""Keys of mergekit-moe that are refused where they say something, each with what there is instead."""


class Expert(Strict):
    """One expert of every layer."""

    source_model: str
    positive_prompts: Prompts | None = None
    negative_prompts: Prompts | None = None
    residual_scale: float | None = None
    """What its output is multiplied by."""


class MoeRecipe(Strict):
    """The keys of such a recipe; ``base_model`` and ``source_model`` are names of a pool's models once it is read."""

    file: str = ""
    """Where it was read from, as the suite has it; empty where it stands in the suite itself."""
    base_model: str
    gate_mode: GateMode = "hidden"
    experts: Annotated[list[Expert], Field(min_length=1)]
    experts_per_token: Count = 2
    dtype: Literal["float32", "float16", "bfloat16"] | None = None


def is_moe(value: Any) -> bool:
    """Whether a document is such a recipe, and not one of mergekit's others."""
    return isinstance(value, dict) and "experts" in value


def read_moe(document: yaml.Document, folder: Path | None, models: Mapping[str, str]) -> MoeRecipe:
    """A recipe whose models are named as the pool names them.

    Args:
        document: as parsed.
        folder: that paths in it are relative to; None where names alone can be meant.
        models: folders of the pool's models by their names. Where there are none, every name is taken as it is: whether
            there is such a model is seen when the recipe is run.

    Raises:
        BadInput: the first fault, with its line: a key that is not supported, a model that is not of the pool, an
            expert without prompts.
    """
    recipe = read_model(MoeRecipe, _supported(document), "a recipe")
    _check(recipe, document)

    def named(given: str, *path: str | int) -> str:
        return name_of(given, folder, models, document.place(path))

    experts = [
        expert.model_copy(update={"source_model": named(expert.source_model, "experts", index, "source_model")})
        for index, expert in enumerate(recipe.experts)
    ]
    return recipe.model_copy(update={"base_model": named(recipe.base_model, "base_model"), "experts": experts})


def _supported(document: yaml.Document) -> yaml.Document:
    """The document without keys that say nothing here; ``BadInput`` where one of them says something."""
    value = dict(document.value)
    _drop_unsupported(value, document, ())
    if isinstance(value.get("experts"), list):
        value["experts"] = [dict(each) if isinstance(each, dict) else each for each in value["experts"]]
        for index, each in enumerate(value["experts"]):
            if isinstance(each, dict):
                _drop_unsupported(each, document, ("experts", index))
    return replace(document, value=value)


def _drop_unsupported(said: dict[str, Any], document: yaml.Document, at: yaml.Position) -> None:
    for key in UNSUPPORTED.keys() & said.keys():
        if said.pop(key):
            raise BadInput(f"'{key}' is not supported", place=document.place((*at, key)), hint=UNSUPPORTED[key])


def _check(recipe: MoeRecipe, document: yaml.Document) -> None:
    """What mergekit-moe refuses as well."""
    experts, k = recipe.experts, recipe.experts_per_token
    if k > len(experts):
        problem = f"{k} experts cannot run for a token: there are only {len(experts)}"
        hint = "'experts_per_token' is 2 by default"
        raise BadInput(problem, place=document.place(("experts_per_token",)), hint=hint)
    if recipe.gate_mode in DRAWN:
        return
    for index, expert in enumerate(experts):
        if not expert.positive_prompts:
            problem = f"gate_mode '{recipe.gate_mode}' needs 'positive_prompts' of every expert"
            raise BadInput(problem, place=document.place(("experts", index)))
    if len(experts) > 1:
        place = document.place(("experts",))
        if _alike((expert.positive_prompts, expert.negative_prompts) for expert in experts):
            raise BadInput("all experts have the same prompts: no router could tell them apart", place=place)
        if _alike(expert.source_model for expert in experts):
            raise BadInput("all experts are one model: any router gives the same", place=place)


def _alike(values: Iterator[Any]) -> bool:
    first = next(values)
    return all(value == first for value in values)


def name_of(given: str, folder: Path | None, models: Mapping[str, str], place: str) -> str:
    """The name of the model that a recipe means by a path, or by that name."""
    if not models:
        return given
    path = (folder or Path()) / Path(given).expanduser()
    for name, place_of in models.items():
        if place_of == given or (folder and Path(place_of).resolve() == path.resolve()):
            return name
    if given in models:
        return given
    known = [os.path.relpath(each, folder) if folder and Path(each).is_dir() else each for each in models.values()]
    raise BadInput(f"'{given}' is no model of the pool", place=place, given=given, choices=known)
