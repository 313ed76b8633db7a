"""A recipe and its models' files turned into a plan: each tensor of the result, and what it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.recipes.alignment import aligned, ranges_of
from harness.recipes.document import Recipe
from harness.recipes.layers import is_head
from harness.recipes.steps import step_of
from harness.recipes.views import Folder, views_of
from harness.streaming.plan import Plan


@dataclass(frozen=True)
class Planned:
    """A plan, and what the result's config and tokenizer need to know."""

    plan: Plan
    donor: str
    """The model whose config and tokenizer are carried over."""
    layers: int | None
    """Of the result; None where it has no stack of layers, or several."""
    taken: tuple[int, ...]
    """For each of them the layer of its slice's first model that it is made of, by which lists over the layers in a
    config are picked."""
    tied: bool
    """Whether the result has no output matrix of its own. Where it has one its config must not tie it."""
    models: tuple[str, ...]
    """All that it reads, each once."""


def plan(recipe: Recipe, folders: Mapping[str, Folder], seed: int = 0) -> Planned:
    """What is to be read, computed and written to run a recipe.

    Args:
        recipe: of one merge.
        folders: its models by their texts (``Recipe.models``), with adapters added and embeddings aligned.
        seed: of the rules that draw at random.

    Returns:
        Tensors in the order of the files of each slice's first model. Types are those that the recipe says, else those
        of the base, or of the first model where there is no base. Buffers that networks compute themselves are left
        out, and what holds no fractions is copied.

    Raises:
        BadInput: models that cannot be merged, each fault with the line of the model: see ``views_of``, ``aligned`` and
            ``step_of``.
    """
    views = views_of(recipe, folders)
    made = (step_of(recipe, wanted, views, seed) for wanted in aligned(recipe, views))
    steps = tuple(step for step in made if step is not None)
    taken: list[int] = []
    for part in recipe.slices:
        ranges = ranges_of(recipe, part, views)[0]
        if len(ranges) == 1:
            taken.extend(range(*next(iter(ranges.values()))))
    return Planned(
        plan=Plan(steps),
        donor=recipe.donor.text,
        layers=len(taken) or None,
        taken=tuple(taken),
        tied=not any(is_head(step.name) for step in steps),
        models=tuple(model.text for model in recipe.models),
    )
