"""The models of a recipe as planning sees them: their tensors under the same names, and what their configs say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from harness.errors import BadInput
from harness.recipes.document import Recipe
from harness.recipes.layers import is_computed, layer_of, spelled_alike, stacks
from harness.streaming.plan import Source


class Folder(Protocol):
    """A model in a folder."""

    @property
    def tensors(self) -> Mapping[str, Source]:
        """By name, in the order of its files."""

    @property
    def config(self) -> Mapping[str, Any]:
        """What its config.json says."""


@dataclass(frozen=True)
class View:
    """A model among the others of a recipe."""

    tensors: Mapping[str, Source]
    """By the names that all models of the recipe use; without those that its network computes itself."""
    stacks: Mapping[str, int]
    """The number of layers of each stack."""
    may_tie: bool
    """Whether it may use its embeddings as its output matrix: its config does not say that it does not."""


def views_of(recipe: Recipe, folders: Mapping[str, Folder]) -> dict[str, View]:
    """The models by the recipe's texts.

    Raises:
        BadInput: models of different types, or a stack in which a layer is missing.
    """
    texts = [model.text for model in recipe.models]
    _check_types(recipe, folders)
    kept: dict[str, dict[str, Source]] = {}
    for text in texts:
        tensors = folders[text].tensors
        kept[text] = {name: tensor for name, tensor in tensors.items() if not is_computed(name, tensors)}
    views = {}
    for text, tensors in spelled_alike(kept).items():
        depths = stacks(tensors)
        _check_layers(text, tensors, depths, _place(recipe, text))
        views[text] = View(tensors, depths, _may_tie(folders[text].config))
    return views


def _check_types(recipe: Recipe, folders: Mapping[str, Folder]) -> None:
    first = recipe.donor.text
    kind = folders[first].config.get("model_type")
    for text in (model.text for model in recipe.models):
        other = folders[text].config.get("model_type")
        if other != kind:
            problem = f"'{text}' is a model of type '{other}', '{first}' of type '{kind}'"
            raise BadInput(problem, place=_place(recipe, text), hint="only models of one type can be merged")


def _check_layers(text: str, names: Mapping[str, Source], depths: Mapping[str, int], place: str) -> None:
    there = {(layer.stack, layer.index) for layer in map(layer_of, names) if layer}
    for stack, depth in depths.items():
        lacking = next((index for index in range(depth) if (stack, index) not in there), None)
        if lacking is not None:
            raise BadInput(f"'{text}' has layer {depth - 1} of '{stack}' and no layer {lacking}", place=place)


def _may_tie(config: Mapping[str, Any]) -> bool:
    inner = config.get("text_config") or {}
    return config.get("tie_word_embeddings", inner.get("tie_word_embeddings")) is not False


def _place(recipe: Recipe, text: str) -> str:
    named = (each.at for part in recipe.slices for each in part.inputs if each.model.text == text)
    return recipe.place(next(named, ("base_model",)))
