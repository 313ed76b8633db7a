"""Field types that the strict models of suites and policies share."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any

import pydantic
from pydantic import Field
from pydantic_core import PydanticCustomError, PydanticUndefined

from harness.strict.model import STRICT

Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]


Positive = Annotated[float, Field(gt=0)]


Count = Annotated[int, Field(ge=1)]


def said_as(words: str) -> pydantic.WrapValidator:
    """Of a field that takes values of several kinds: what it should be, in place of what each kind lacks."""

    def validate(value: Any, handler: pydantic.ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except pydantic.ValidationError:
            raise PydanticCustomError("kinds", "it should be {words}", {"words": words}) from None

    return pydantic.WrapValidator(validate)


class Strict(pydantic.BaseModel):
    """Takes exactly what its fields say, and no other keys."""

    model_config = STRICT


def described(model: type[pydantic.BaseModel]) -> Iterator[tuple[str, str]]:
    """The keys of a model that have descriptions, with these; a key whose value is a model has the keys of that."""
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, pydantic.BaseModel):
            yield from described(field.annotation)
        elif words := field.description:
            yield key, words if field.default in (PydanticUndefined, None) else f"{words} (default: {field.default})"


def without_usual(model: pydantic.BaseModel, said: Mapping[str, Any], younger: Collection[str]) -> dict[str, Any]:
    """What a model says, without keys that it did not have at first where they are as usual: a digest of it is then
    the same as before there were such keys."""
    usual = {key: type(model).model_fields[key].default for key in younger}
    return {key: value for key, value in said.items() if key not in usual or value != usual[key]}
