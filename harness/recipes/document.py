"""mergekit's recipes: which models are merged how, layer by layer, in one stage or several.

Source: mergekit 0.1.5, ``mergekit/config.py`` and ``mergekit/scripts/multimerge.py``. What mergekit takes no notice of
(unknown keys, parameters that a method lacks) is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from harness.errors import BadInput
from harness.recipes.contracts import check_inputs, rule_of
from harness.recipes.parameters import Settings, read_settings
from harness.recipes.references import Around, Reference
from harness.recipes.token_sources import TokenizerSource, read_tokenizer
from harness.streaming.rules import RULES, Rule
from harness.strict import yaml
from harness.strict.fields import Strict
from harness.strict.model import read_model

Vocabulary = Literal["refuse", "intersect", "union"]

TYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}
"""Names of types in a recipe, each with safetensors' name."""

_PARAMETERS = {parameter.name for rule in RULES.values() for parameter in rule.parameters}

_MOE = "this is a recipe of mergekit-moe: name it in a suite, as a variant of the method 'recipe'"

_REFUSED = {
    "modules": "merge such a network with 'models': all its parts are merged alike",
    "residual_weight": "mergekit does nothing with it: remove it",
    **dict.fromkeys(("experts", "gate_mode", "experts_per_token", "shared_experts"), _MOE),
    "suite": "this is a suite: `stockpot run` runs it",
}


class ModelKeys(Strict):
    """One of ``models``."""

    model: str
    parameters: dict[str, Any] | None = None


class SourceKeys(ModelKeys):
    """One of a slice's ``sources``."""

    layer_range: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]


class SliceKeys(Strict):
    """One of ``slices``."""

    sources: Annotated[list[SourceKeys], Field(min_length=1)]
    base_model: str | None = None
    parameters: dict[str, Any] | None = None


class Keys(Strict):
    """The keys of a recipe."""

    name: Annotated[str, Field(min_length=1)] | None = None
    merge_method: str
    base_model: str | None = None
    models: Annotated[list[ModelKeys], Field(min_length=1)] | None = None
    slices: Annotated[list[SliceKeys], Field(min_length=1)] | None = None
    parameters: dict[str, Any] | None = None
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer_source: str | None = None
    tokenizer: dict[str, Any] | None = None
    chat_template: str | None = None
    vocabulary: Vocabulary | None = None


@dataclass(frozen=True)
class Input:
    """A model in a slice."""

    model: Reference
    layers: tuple[int, int] | None
    """From the first one to before the last; None for all."""
    parameters: Settings
    at: yaml.Position
    """Where the recipe names it."""


@dataclass(frozen=True)
class Slice:
    """Layers that are merged with one another, and follow those of the slice before."""

    inputs: tuple[Input, ...]
    base: Reference | None
    parameters: Settings
    at: yaml.Position


@dataclass(frozen=True)
class Recipe:
    """One merge."""

    name: str | None
    """By which later stages name it."""
    rule: Rule
    base: Reference | None
    slices: tuple[Slice, ...]
    """One, with all layers, where the recipe has ``models``; the base is its last input where it is none of them."""
    parameters: Settings
    dtype: str | None
    """safetensors' name of the result's type; None for that of the models."""
    tokenizer: TokenizerSource | None
    chat_template: str | None
    vocabulary: Vocabulary | None
    """What becomes of tokens that not all models have; a key that mergekit lacks."""
    document: yaml.Document

    @property
    def models(self) -> tuple[Reference, ...]:
        """Those that it reads, each once, in the order in which it first names them; last the base where no slice
        merges it, which gives its config all the same."""
        found = {each.model.text: each.model for part in self.slices for each in part.inputs}
        if self.base is not None:
            found.setdefault(self.base.text, self.base)
        return tuple(found.values())

    @property
    def donor(self) -> Reference:
        """The one whose config and tokenizer the result gets: the base, else the first."""
        return self.base or self.slices[0].inputs[0].model

    @property
    def stages(self) -> frozenset[str]:
        """The stages of the same file that it needs."""
        tokenizer = [self.tokenizer.source] if self.tokenizer else []
        tokens = [row.model for row in self.tokenizer.tokens.values()] if self.tokenizer else []
        named = (each for each in (*self.models, *tokenizer, *tokens) if isinstance(each, Reference))
        return frozenset(each.stage for each in named if each.stage is not None)

    def place(self, at: yaml.Position) -> str:
        """``file:line`` of a key, for messages."""
        return self.document.place(at)


def read(path: Path) -> tuple[Recipe, ...]:
    """The merges of a recipe's file, in an order in which they can be run; the last one is the result.

    That is the one without a name, else the one that stands last. The others are its stages: merges whose names stand
    in place of models.

    Raises:
        BadInput: the first fault, with its line: unknown methods, keys and parameters, models that are no folders,
            stages that need one another or that nothing needs.
    """
    return arranged(yaml.read_all(path), Around(path.parent))


def arranged(documents: Sequence[yaml.Document], around: Around) -> tuple[Recipe, ...]:
    """The merges of these documents, as ``read`` has them."""
    names = _names(documents)
    # The name of the only merge names no stage: a folder may be called the same.
    around = replace(around, stages=[name for name in names if name is not None] if len(names) > 1 else ())
    recipes = {name: _recipe(document, around) for name, document in zip(names, documents, strict=True)}
    return _ordered(recipes, None if None in recipes else names[-1])


def _names(documents: Sequence[yaml.Document]) -> list[str | None]:
    names: list[str | None] = []
    for document in documents:
        name = document.value.get("name") if isinstance(document.value, dict) else None
        if name in names:
            place = document.place(("name",) if name is not None else ())
            problem = f"two merges are named '{name}'" if name is not None else "two merges have no name"
            raise BadInput(problem, place=place, hint="all but the last one need a 'name' of their own")
        names.append(name if isinstance(name, str) else None)
    return names


def _recipe(document: yaml.Document, around: Around) -> Recipe:
    if isinstance(document.value, dict):
        _refuse_keys(document, document.value, ())
    keys = read_model(Keys, document, "a recipe", {"models": "there are no models", "slices": "there are no slices"})
    rule = rule_of(keys.merge_method, document.place(("merge_method",)))
    if (keys.models is None) == (keys.slices is None):
        problem = "neither 'models' nor 'slices'" if keys.models is None else "both 'models' and 'slices'"
        raise BadInput(problem, place=document.place(("slices",)), hint="a recipe has one of them")
    base = around.reference(keys.base_model, document.place(("base_model",))) if keys.base_model is not None else None
    slices = _slices(keys, document, rule, base, around)
    for part in slices:
        check_inputs(
            rule,
            [(each.model.text, document.place(each.at)) for each in part.inputs],
            part.base.text if part.base else None,
            document.place(part.at),
        )
    return Recipe(
        name=keys.name,
        rule=rule,
        base=base,
        slices=slices,
        parameters=read_settings(document, ("parameters",), rule) if keys.parameters else {},
        dtype=_type(document, "out_dtype") or _type(document, "dtype"),
        tokenizer=read_tokenizer(document, around),
        chat_template=keys.chat_template,
        vocabulary=keys.vocabulary,
        document=document,
    )


def _slices(
    keys: Keys, document: yaml.Document, rule: Rule, base: Reference | None, around: Around
) -> tuple[Slice, ...]:
    if keys.models is not None:
        inputs = [_input(each, document, ("models", k), rule, around) for k, each in enumerate(keys.models)]
        if base is not None and base.text not in [each.model.text for each in inputs]:
            inputs.append(Input(base, None, {}, ("base_model",)))
        return (Slice(tuple(inputs), base, {}, ("models",)),)
    slices = []
    for k, part in enumerate(keys.slices or ()):
        at = ("slices", k)
        inputs = [_input(each, document, (*at, "sources", j), rule, around) for j, each in enumerate(part.sources)]
        own = around.reference(part.base_model, document.place((*at, "base_model"))) if part.base_model else base
        parameters = read_settings(document, (*at, "parameters"), rule) if part.parameters else {}
        _check_lengths(part, document, at)
        slices.append(Slice(tuple(inputs), own, parameters, at))
    return tuple(slices)


def _input(keys: ModelKeys, document: yaml.Document, at: yaml.Position, rule: Rule, around: Around) -> Input:
    model = around.reference(keys.model, document.place((*at, "model")))
    layers = None
    if isinstance(keys, SourceKeys):
        start, stop = keys.layer_range
        if start >= stop:
            place = document.place((*at, "layer_range"))
            hint = "it goes from the first layer, counted from 0, to before the last number"
            raise BadInput(f"the layer_range [{start}, {stop}] holds no layer", place=place, hint=hint)
        layers = (start, stop)
    parameters = read_settings(document, (*at, "parameters"), rule) if keys.parameters else {}
    return Input(model, layers, parameters, at)


def _check_lengths(part: SliceKeys, document: yaml.Document, at: yaml.Position) -> None:
    lengths = [each.layer_range[1] - each.layer_range[0] for each in part.sources]
    for j, length in enumerate(lengths):
        if length != lengths[0]:
            one, other = part.sources[0].model, part.sources[j].model
            problem = f"the layer_range of '{other}' has the length {length}, that of '{one}' {lengths[0]}"
            raise BadInput(problem, place=document.place((*at, "sources", j, "layer_range")))


def _refuse_keys(document: yaml.Document, value: Mapping[str, Any], at: yaml.Position) -> None:
    """Keys that are another program's, mergekit's without a use, or parameters in a place where none is looked for."""
    for key, said in value.items():
        if key in _REFUSED and said is not None:
            raise BadInput(f"'{key}' is not supported", place=document.place((*at, key)), hint=_REFUSED[key])
        if key in _PARAMETERS:
            hint = "write it below 'parameters'"
            raise BadInput(f"'{key}' is a parameter", place=document.place((*at, key)), hint=hint)
        if key in ("models", "slices", "sources") and isinstance(said, list):
            for index, each in enumerate(said):
                place = (*at, key, index)
                if isinstance(each, dict):
                    _refuse_keys(document, each, place)
                elif isinstance(each, str):
                    hint = f"write '- model: {each}'"
                    raise BadInput(f"bad value {each!r} for '{key}'", place=document.place(place), hint=hint)


def _type(document: yaml.Document, key: str) -> str | None:
    said = document.value.get(key)
    if said is None:
        return None
    name = said.removeprefix("torch.")
    if name not in TYPES:
        raise BadInput(f"unknown type '{said}'", place=document.place((key,)), given=name, choices=TYPES)
    return TYPES[name]


def _ordered(recipes: Mapping[str | None, Recipe], result: str | None) -> tuple[Recipe, ...]:
    """Each merge after the stages that it needs."""
    done: dict[str | None, Recipe] = {}

    def add(name: str | None, above: tuple[str | None, ...]) -> None:
        if name in above:
            circle = " -> ".join(f"'{each}'" for each in (*above[above.index(name) :], name))
            raise BadInput(f"stages need one another: {circle}", place=recipes[name].place(("name",)))
        for stage in sorted(recipes[name].stages):
            if stage not in done:
                add(stage, (*above, name))
        done[name] = recipes[name]

    add(result, ())
    for name, recipe in recipes.items():
        if name not in done:
            end = "the merge without a name" if result is None else f"'{result}'"
            hint = f"the result is {end}"
            raise BadInput(f"nothing needs the stage '{name}'", place=recipe.place(("name",)), hint=hint)
    return tuple(done.values())
