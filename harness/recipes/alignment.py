"""Which tensors of a recipe's models become one of the result: the same one, of the layers that stand side by side.

Tensors outside of the layers are taken from the first slice's models where they come before the layers (embeddings),
and from the last slice's where they come after them. Source: mergekit 0.1.5, ``mergekit/plan.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.errors import BadInput
from harness.recipes.document import Recipe, Slice
from harness.recipes.layers import at_layer, comes_before, layer_of
from harness.recipes.views import View

Ranges = tuple[Mapping[str, tuple[int, int]], ...]
"""For each model of a slice its layers, from the first one to before the last, by stack."""


@dataclass(frozen=True)
class Aligned:
    """A tensor of the result."""

    name: str
    part: Slice
    """The slice that it is of."""
    names: tuple[str, ...]
    """Its name in each of the slice's models; not all need have it."""
    t: float
    """Where its layer lies in the slice: 0 for the first, 1 for the last and for the only one; 0 outside of layers."""


def aligned(recipe: Recipe, views: Mapping[str, View]) -> Iterator[Aligned]:
    """All tensors that the result may have, in the order of the files of each slice's first model.

    Raises:
        BadInput: models of different depths, slices of models that are no single stack, or layers that a model lacks.
    """
    offset = 0
    for part in recipe.slices:
        ranges = ranges_of(recipe, part, views)
        seen: set[str] = set()
        for each in _of_slice(part, ranges, views, offset, part is recipe.slices[0], part is recipe.slices[-1]):
            if each.name not in seen:
                seen.add(each.name)
                yield each
        if part.inputs[0].layers is not None:
            offset += part.inputs[0].layers[1] - part.inputs[0].layers[0]


def ranges_of(recipe: Recipe, part: Slice, views: Mapping[str, View]) -> Ranges:
    """The layers that a slice takes of each of its models; ``BadInput`` as in ``aligned``."""
    ranges = []
    first = part.inputs[0]
    for each in part.inputs:
        depths = views[each.model.text].stacks
        place = recipe.place((*each.at, "layer_range") if each.layers is not None else each.at)
        if each.layers is None:
            _check_depths(each.model.text, depths, first.model.text, views[first.model.text].stacks, place)
            ranges.append({stack: (0, depth) for stack, depth in depths.items()})
            continue
        if len(depths) != 1:
            problem = f"'{each.model.text}' has {len(depths) or 'no'} stacks of layers: slices are of models with one"
            raise BadInput(problem, place=place, hint="merge it with 'models'")
        ((stack, depth),) = depths.items()
        if each.layers[1] > depth:
            problem = f"'{each.model.text}' has {depth} layers, not {each.layers[1]}"
            raise BadInput(problem, place=place, hint=f"its layers are 0 to {depth - 1}: the range ends with {depth}")
        ranges.append({stack: each.layers})
    return tuple(ranges)


def _check_depths(model: str, depths: Mapping[str, int], first: str, its_depths: Mapping[str, int], place: str) -> None:
    for stack in {**its_depths, **depths}:
        one, other = its_depths.get(stack, 0), depths.get(stack, 0)
        if one != other:
            problem = f"'{model}' has {other} layers '{stack}', '{first}' has {one}"
            raise BadInput(problem, place=place, hint="models of other depths are merged with 'slices'")


def _of_slice(
    part: Slice, ranges: Ranges, views: Mapping[str, View], offset: int, first: bool, last: bool
) -> Iterator[Aligned]:
    for each, own in zip(part.inputs, ranges, strict=True):
        for name in views[each.model.text].tensors:
            layer = layer_of(name)
            if layer is None:
                if first if comes_before(name) else last:
                    yield Aligned(name, part, (name,) * len(ranges), 0.0)
                continue
            start, stop = own[layer.stack]
            if start <= layer.index < stop:
                k = layer.index - start
                names = tuple(at_layer(name, other.get(layer.stack, (0, 0))[0] + k) for other in ranges)
                t = k / (stop - start - 1) if stop - start > 1 else 1.0
                yield Aligned(at_layer(name, offset + k), part, names, t)
