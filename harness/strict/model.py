"""A YAML document read into a pydantic model: nothing is converted, and a fault is one line with its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

import pydantic

from harness.errors import BadInput
from harness.strict import yaml

STRICT = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
"""Of models whose fields take exactly what they say, and no other keys."""

WHOLE = 2**63
"""Whole numbers are smaller than this, of either sign: what they count, or seed, has no more bits."""

Model = TypeVar("Model", bound=pydantic.BaseModel)


def read_model(
    model: type[Model], document: yaml.Document, what: str, empty: Mapping[str, str] | None = None
) -> Model:
    """The document as an instance of ``model``.

    Args:
        model: of the whole document.
        document: as parsed.
        what: the document in words ("a suite file"), for messages.
        empty: what to say of a key whose value is empty or 0, by key.

    Raises:
        BadInput: the fault that stands first in the file; a missing key comes last, since it may only be misspelled.
    """
    if not isinstance(document.value, dict):
        raise BadInput(f"{what} holds keys and values", place=document.place(()))
    _check_numbers(document, document.value, ())
    try:
        return model.model_validate(document.value)
    except pydantic.ValidationError as error:
        raise _first_fault(model, error, document, what, empty or {}) from None


def read_part(model: type[Model], document: yaml.Document, at: yaml.Position) -> Model:
    """What stands at a place of the document as an instance of ``model``; ``BadInput`` as in ``read_model``."""
    value = document.value
    for part in at:
        value = value[part]
    _check_numbers(document, value, at)
    try:
        return model.model_validate(value)
    except pydantic.ValidationError as error:
        raise _first_fault(model, error, document, str(at[-1]), {}, at) from None


def _check_numbers(document: yaml.Document, value: Any, at: yaml.Position) -> None:
    """``BadInput`` for a whole number that no count has: arithmetic with it would end in an error, or never."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            _check_numbers(document, inner, (*at, key))
    elif isinstance(value, int) and abs(value) >= WHOLE:
        raise BadInput(f"a number of {len(str(abs(value)))} digits is too long", place=document.place(at))


def _first_fault(
    model: type[pydantic.BaseModel],
    error: pydantic.ValidationError,
    document: yaml.Document,
    what: str,
    empty: Mapping[str, str],
    at: yaml.Position = (),
) -> BadInput:
    def rank(fault: Any) -> tuple[bool, int, int]:
        line = document.line(_path((*at, *fault["loc"]), document))
        return fault["type"] == "missing", line, -len(fault["loc"])

    fault = min(error.errors(), key=rank)
    path = _path((*at, *fault["loc"]), document)
    place = document.place(path)
    # An item of a list is named by the list's key.
    name = next((part for part in reversed(path) if isinstance(part, str)), str(path[-1]) if path else what)
    if fault["type"] == "extra_forbidden":
        return BadInput(f"unknown key '{name}'", place=place, given=name, choices=_keys_at(model, path[len(at) : -1]))
    if fault["type"] == "missing":
        missing = str(fault["loc"][-1])
        return BadInput(f"the key '{missing}' is missing", place=document.place(path[:-1]))
    if fault["type"] == "too_short" and not fault["input"]:
        return BadInput(empty.get(name, f"'{name}' is empty"), place=place)
    message = fault["msg"].replace("Input should", "it should")
    problem = f"bad value {fault['input']!r} for '{name}'"
    if fault["type"] in ("too_short", "too_long"):
        few, most = (fault["ctx"].get(f"{bound}_length") for bound in ("min", "max"))
        message = f"it should have {f'{few} items or more' if most is None else f'{most} items or fewer'}"
    if name in empty and fault["input"] == 0:
        problem = empty[name]
    return BadInput(problem, place=place, hint=message)


def _path(location: Sequence[Any], document: yaml.Document) -> yaml.Position:
    """A pydantic location without the parts that name a branch of a union and not a key of the file."""
    path: yaml.Position = ()
    value = document.value
    for i, part in enumerate(location):
        inside = isinstance(value, dict) and part in value
        if isinstance(value, list) and isinstance(part, int) and part < len(value):
            inside = True
        if inside:
            value = value[part]
            path = (*path, part)
        elif i == len(location) - 1 and isinstance(value, dict) and isinstance(part, str) and "[" not in part:
            path = (*path, part)
    return path


def _keys_at(model: type[pydantic.BaseModel], path: yaml.Position) -> list[str]:
    """The keys that a place in a document of this model knows; names of a mapping and list positions lead nowhere."""
    for part in path:
        field = model.model_fields.get(str(part))
        model = next(_models_in(field.annotation), model) if field else model
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
