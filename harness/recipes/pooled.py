"""Recipes over the models of a pool: their folders are the pool's models, and what they make stays in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.errors import BadInput
from harness.merging.arithmetic import Weights
from harness.merging.moe_recipe import name_of
from harness.merging.spilled import Results
from harness.models.weights import CODES
from harness.recipes.document import Recipe, arranged
from harness.recipes.planning import Planned, plan
from harness.recipes.references import Around, Reference
from harness.streaming.definitions import combine
from harness.streaming.plan import Step, TensorAt
from harness.streaming.reading import TORCH, cast
from harness.strict import yaml
from harness.strict.fields import Strict

_OF_FOLDERS = {
    "tokenizer": "the models of a pool have one tokenizer",
    "chat_template": "it changes no score",
    "vocabulary": "the models of a pool have the same tokens",
}
"""Keys of a recipe that say something of the new folder, each with why there is none here."""


class PooledRecipe(Strict):
    """A recipe as a suite keeps it."""

    file: str = ""
    """Where it was read from, as the suite has it; empty where it stands in the suite itself."""
    documents: list[dict[str, Any]]
    """What the file holds."""
    models: dict[str, str]
    """What it calls its models, and what the pool calls them."""

    def recipes(self) -> tuple[Recipe, ...]:
        """As ``document.read`` has them."""
        documents = [yaml.Document(document, "", "", {(): 1}) for document in self.documents]
        return arranged(documents, Around(Path(), names=self.models))


def read_pooled(documents: Sequence[yaml.Document], folder: Path | None, models: Mapping[str, str]) -> PooledRecipe:
    """A recipe whose models are those of a pool.

    Args:
        documents: as parsed.
        folder: that paths in it are relative to; None where names alone can be meant.
        models: folders of the pool's models by their names. Where there are none, every name is taken as it is: whether
            there is such a model is seen when the recipe is run.

    Raises:
        BadInput: the first fault, with its line.
    """
    if folder is None or not models:
        around: Around = _AnyName(Path())
    else:
        around = Around(folder, names=models)
    recipes = arranged(documents, around)
    called: dict[str, str] = {}
    for recipe in recipes:
        for key, why in _OF_FOLDERS.items():
            if getattr(recipe, key) is not None:
                hint = f"{why}: `stockpot merge` writes such a folder, which a pool can name"
                raise BadInput(f"'{key}' is not supported in a suite", place=recipe.place((key,)), hint=hint)
        for part in recipe.slices:
            for each in part.inputs:
                if each.model.stage is None:
                    called[each.model.text] = _name_of(each.model, folder, models, recipe.place(each.at))
    return PooledRecipe(documents=[document.value for document in documents], models=called)


class _AnyName(Around):
    """Takes every name that is no stage for a model's."""

    def reference(self, text: str, place: str) -> Reference:
        return Reference(text, None, text if text in self.stages else None)


def _name_of(model: Reference, folder: Path | None, models: Mapping[str, str], place: str) -> str:
    """What the pool calls a model."""
    if model.adapter is not None:
        hint = "a pool can name the folder of an adapter as a member: name that member here"
        raise BadInput(f"'{model.text}' is an adapter", place=place, hint=hint)
    return name_of(model.text, folder, models, place)


@dataclass(frozen=True)
class Held:
    """A model in memory, or read from the store tensor by tensor."""

    weights: Weights
    config: Mapping[str, Any]
    """Of transformers; empty for other networks."""


@dataclass(frozen=True)
class _View:
    """A model as planning sees it: a tensor's place is the model's name, and only what is merged is there."""

    text: str
    held: Held

    @property
    def config(self) -> Mapping[str, Any]:
        return self.held.config

    @property
    def tensors(self) -> dict[str, TensorAt]:
        return {
            name: TensorAt(Path(self.text), name, CODES[tensor.dtype], tuple(tensor.shape), 0, tensor.nbytes)
            for name, tensor in self.held.weights.items()
            if tensor.is_floating_point()
        }


def merge_held(recipes: Sequence[Recipe], models: Mapping[str, Held], seed: int) -> tuple[Weights, Planned]:
    """The tensors of the last merge, and what its configuration needs; one tensor of each model at a time is wide.

    Args:
        recipes: as ``document.read`` has them.
        models: by what the recipes call them.
        seed: of the rules that draw at random.
    """
    known = dict(models)
    for recipe in recipes:
        planned = plan(recipe, {model.text: _View(model.text, known[model.text]) for model in recipe.models}, seed)
        made = Results()
        for step in planned.plan.steps:
            made[step.name] = _made(step, known)
        tensors = made.done()
        if recipe.name is not None:
            known[recipe.name] = Held(tensors, known[planned.donor].config)
    return tensors, planned


def _made(step: Step, models: Mapping[str, Held]) -> Tensor:
    sources = [models[str(source.path)].weights[source.name] for source in step.sources if isinstance(source, TensorAt)]
    if step.rule == "copy":
        return cast(sources[0], TORCH[step.dtype], step.name)
    widest = reduce(torch.promote_types, (source.dtype for source in sources), torch.float32)
    return cast(combine(step, [source.to(widest) for source in sources]), TORCH[step.dtype], step.name)
