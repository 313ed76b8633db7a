"""One tensor of a merge's result: which models have it, whether it can be merged, and with which parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import BadInput
from harness.recipes.alignment import Aligned
from harness.recipes.document import Recipe
from harness.recipes.layers import of_vocabulary, twin
from harness.recipes.parameters import Unset, resolve
from harness.recipes.views import View
from harness.streaming.checking import check
from harness.streaming.plan import Source, Step, TensorAt
from harness.streaming.rules import Parameter

_CHUNK = 1 << 20


def step_of(recipe: Recipe, wanted: Aligned, views: Mapping[str, View], seed: int) -> Step | None:
    """The step that makes a tensor; None where it is left out.

    Raises:
        BadInput: a tensor that some models lack, that differs in shape, or that is no matrix of numbers to merge;
            parameters without a value.
    """
    inputs = wanted.part.inputs
    held = [_find(recipe, wanted, views, j) for j in range(len(inputs))]
    sources = {j: source for j, source in enumerate(held) if source is not None}
    base = _base(recipe, wanted)
    if len(sources) < len(inputs):
        kept = _lone(recipe, wanted, sources, base)
        if kept is None:
            return None
        if len(kept) == 1:
            return _copy(recipe, wanted.name, *kept.values())
    if not all(source.is_float for source in sources.values()):
        _check_equal(recipe, wanted, sources)
        return _copy(recipe, wanted.name, next(iter(sources.values())))
    _check_shapes(recipe, wanted, sources)
    return _merge(recipe, wanted, sources, base, seed)


def _find(recipe: Recipe, wanted: Aligned, views: Mapping[str, View], j: int) -> Source | None:
    """The tensor of one model; where it ties it to another one, that one."""
    text, name = wanted.part.inputs[j].model.text, wanted.names[j]
    view = views[text]
    if name in view.tensors or (other := twin(name, view.tensors)) is None:
        return view.tensors.get(name)
    if not view.may_tie:
        problem = f"'{text}' has no tensor '{name}', and its config says that '{other}' does not stand for it"
        hint = "its config.json has tie_word_embeddings: false"
        raise BadInput(problem, place=_place(recipe, wanted, j), hint=hint)
    return view.tensors[other]


def _base(recipe: Recipe, wanted: Aligned) -> int | None:
    """Which input is the base."""
    base = wanted.part.base
    if base is None or recipe.rule.base == "ignored":
        return None
    return next(j for j, each in enumerate(wanted.part.inputs) if each.model.text == base.text)


def _lone(
    recipe: Recipe, wanted: Aligned, sources: Mapping[int, Source], base: int | None
) -> Mapping[int, Source] | None:
    """The models that a tensor is made of that not all have; None where it is left out."""
    rule = recipe.rule
    if wanted.name.endswith("position_ids"):  # old files hold them, and every network counts by itself
        return None
    alone = len(sources) == 1
    if rule.lone == "base_or_skip" and len(sources) < rule.fewest:
        return sources if list(sources) == [base] else None
    if alone and (rule.lone == "copy" or (rule.lone == "copy_base" and list(sources) == [base])):
        return sources
    if rule.lone == "base_or_skip" and base in sources:
        return sources
    lacks = next(j for j in range(len(wanted.names)) if j not in sources)
    has = wanted.part.inputs[next(iter(sources))].model.text
    text = wanted.part.inputs[lacks].model.text
    problem = f"'{text}' has no tensor '{wanted.names[lacks]}', which '{has}' has"
    raise BadInput(problem, place=_place(recipe, wanted, lacks), hint="the networks must be the same")


def _copy(recipe: Recipe, name: str, source: Source) -> Step:
    dtype = (recipe.dtype or source.dtype) if source.is_float else source.dtype
    return Step(name, dtype, source.shape, (source,), "copy")


def _merge(recipe: Recipe, wanted: Aligned, sources: Mapping[int, Source], base: int | None, seed: int) -> Step | None:
    rule, part = recipe.rule, wanted.part
    shared_levels = (part.parameters, recipe.parameters)
    shared: dict[str, Any] = {}
    each: dict[str, tuple[Any, ...]] = {}
    for parameter in rule.parameters:
        if parameter.scope == "shared":
            shared[parameter.name] = _value(recipe, wanted, parameter, None, shared_levels)
            continue
        each[parameter.name] = tuple(
            None
            if parameter.scope == "fine_tune" and j == base
            else _value(recipe, wanted, parameter, j, (part.inputs[j].parameters, *shared_levels))
            for j in sources
        )
    tensors = tuple(sources.values())
    if rule.name == "passthrough" and each["scale"] == (None,):
        return _copy(recipe, wanted.name, tensors[0])
    place = list(sources).index(base) if base is not None else None
    own = tensors[place or 0]
    # A model's draws are told apart by its path as the recipe has it, and not by its place in the list: they stay the
    # same where models are added or change places, or the file and its folders move together, and those of different
    # models of different stages are independent of one another.
    draws = tuple(part.inputs[j].model.text for j in sources) if rule.random else ()
    step = Step(wanted.name, recipe.dtype or own.dtype, own.shape, tensors, rule.name, place, shared, each, draws, seed)
    try:
        check(step)
    except BadInput as fault:
        problem = f"for the tensor '{step.name}' {fault.problem}"
        raise BadInput(problem, place=_place(recipe, wanted, None), hint=fault.hint) from None
    return step


def _value(recipe: Recipe, wanted: Aligned, parameter: Parameter, j: int | None, levels: Sequence[Any]) -> Any:
    """The value of a parameter, of all models (``j`` None) or of one."""
    tensor = wanted.name if j is None else wanted.names[j]
    try:
        return resolve(parameter, levels, tensor, wanted.t)
    except Unset:
        whose = "" if j is None else f" for '{wanted.part.inputs[j].model.text}'"
        problem = f"the method '{recipe.rule.name}' needs '{parameter.name}'{whose} for the tensor '{tensor}'"
        hint = f"give '{parameter.name}' below 'parameters'"
        if any(settings and parameter.name in settings for settings in levels):
            hint = "no 'filter' fits it: add a 'value' without one, for all other tensors"
        raise BadInput(problem, place=_place(recipe, wanted, j), hint=hint) from None
    except BadInput as fault:
        raise fault.at(_place(recipe, wanted, j)) from None


def _check_shapes(recipe: Recipe, wanted: Aligned, sources: Mapping[int, Source]) -> None:
    (first, one), *others = sources.items()
    for j, other in others:
        if other.shape != one.shape:
            a, b = wanted.part.inputs[first].model.text, wanted.part.inputs[j].model.text
            shapes = f"{list(other.shape)} in '{b}' and {list(one.shape)} in '{a}'"
            hint = "the networks must be the same"
            if of_vocabulary(wanted.name):
                hint = "the vocabularies differ: give a 'tokenizer_source', or 'vocabulary: intersect' or 'union'"
            raise BadInput(
                f"the tensor '{wanted.name}' has the shape {shapes}", place=_place(recipe, wanted, j), hint=hint
            )


def _check_equal(recipe: Recipe, wanted: Aligned, sources: Mapping[int, Source]) -> None:
    """Of what is not merged, such as counters: the models must agree on it."""
    (first, one), *others = sources.items()
    for j, other in others:
        if not _equal(one, other):
            a, b = wanted.part.inputs[first].model.text, wanted.part.inputs[j].model.text
            types = one.dtype if one.dtype == other.dtype else f"{other.dtype} and {one.dtype}"
            problem = f"the tensor '{wanted.name}' ({types}) cannot be merged, and '{b}' and '{a}' differ in it"
            hint = "of quantised models, merge those that they were made from"
            raise BadInput(problem, place=_place(recipe, wanted, j), hint=hint)


def _equal(one: Source, other: Source) -> bool:
    if not isinstance(one, TensorAt) or not isinstance(other, TensorAt):
        return False
    if (one.dtype, one.shape, one.nbytes) != (other.dtype, other.shape, other.nbytes):
        return False
    with one.path.open("rb") as left, other.path.open("rb") as right:
        left.seek(one.offset)
        right.seek(other.offset)
        for start in range(0, one.nbytes, _CHUNK):
            size = min(_CHUNK, one.nbytes - start)
            if left.read(size) != right.read(size):
                return False
    return True


def _place(recipe: Recipe, wanted: Aligned, j: int | None) -> str:
    return recipe.place(wanted.part.at if j is None else wanted.part.inputs[j].at)
