"""Which recipes can have an adapter as their result: those of one folder, and adapters on it."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import BadInput
from harness.recipes.document import Input, Recipe
from harness.recipes.references import Reference

_OF_FOLDERS = ("tokenizer_source", "tokenizer", "chat_template", "vocabulary")
"""Keys that say something of a whole model's folder."""
_HINT = "leave --adapter-rank out for a whole model"


def base_of(recipes: Sequence[Recipe]) -> Reference:
    """The folder that all models of a recipe are, or are adapters on.

    Raises:
        BadInput: with the line, for several stages, slices, keys that an adapter has no place for, models that are
            neither an adapter nor the base, adapters on different bases, or none.
    """
    recipe = recipes[-1]
    if len(recipes) > 1:
        place = recipes[0].place(("name",))
        raise BadInput("an adapter is made in one stage", place=place, hint=f"a stage is a whole model; {_HINT}")
    said = recipe.document.value
    if said.get("slices") is not None:
        hint = f"an adapter has its base's layers: name the models under 'models'; {_HINT}"
        raise BadInput("slices make no adapter", place=recipe.place(("slices",)), hint=hint)
    for key in _OF_FOLDERS:
        if said.get(key) is not None:
            problem = f"'{key}' is for whole models: an adapter has its base's tokens"
            raise BadInput(problem, place=recipe.place((key,)), hint=f"remove it, or {_HINT}")
    inputs = recipe.slices[0].inputs
    first = next((each for each in inputs if each.model.adapter is not None), None)
    if first is None:
        hint = f"write FOLDER+ADAPTER, or {_HINT}"
        raise BadInput("no model is an adapter", place=recipe.place(("models",)), hint=hint)
    for each in inputs:
        _check_base(recipe, each, first)
    return Reference(first.model.text.partition("+")[0], first.model.folder)


def _check_base(recipe: Recipe, one: Input, first: Input) -> None:
    own, base = one.model.folder, first.model.folder
    assert own is not None
    assert base is not None
    if own.resolve() == base.resolve():
        return
    text = first.model.text
    if one.model.adapter is None:
        problem = f"'{one.model.text}' is neither an adapter nor the base of '{text}'"
    else:
        problem = f"'{one.model.text}' is on another base than '{text}'"
    hint = f"an adapter is merged from adapters on one folder; {_HINT}"
    raise BadInput(problem, place=recipe.place(one.at), hint=hint)
