"""Parameters of a merge: a number for all tensors, gradients over the layers, filters by names of tensors.

Source: mergekit 0.1.5, ``mergekit/config.py`` (``evaluate_setting``) and ``mergekit/parameter_resolver.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pydantic
from pydantic import Field

from harness.errors import BadInput
from harness.streaming.rules import REQUIRED, Parameter, Rule
from harness.strict import yaml
from harness.strict.fields import Strict
from harness.strict.model import read_part

SCALARS = (bool, int, float, str)

KINDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}


class Conditional(Strict):
    """A value for the tensors whose names hold a piece of text."""

    filter: str | None = None
    """That text; "*" or nothing is every tensor."""
    value: Any = Field(description="a value, or a list of values over the layers")


@dataclass(frozen=True)
class Case:
    """Values over the layers, for the tensors whose names hold ``filter``; for all where it is None."""

    values: tuple[Any, ...]
    filter: str | None = None

    def holds(self, tensor: str) -> bool:
        return self.filter is None or self.filter == "*" or self.filter in tensor


Setting = tuple[Case, ...]
"""What a recipe says of a parameter at one level: the first case that holds for a tensor counts."""

Settings = Mapping[str, Setting]
"""By parameter."""


class Unset(Exception):
    """A parameter without a default is set for a tensor at no level."""


def evaluate(setting: Setting, parameter: Parameter, tensor: str, t: float) -> Any:
    """The value for a tensor; None where no case holds for it.

    Args:
        setting: what one level says.
        parameter: whose values are meant. Numbers are interpolated linearly over the list, truth values and text are
            picked from it.
        tensor: its name in the model that the value is for.
        t: where its layer lies in its slice, from 0 (the first) to 1 (the last); 0 outside of the layers.

    Raises:
        BadInput: a number between two whole ones, of a parameter that must be whole.
    """
    case = next((case for case in setting if case.holds(tensor)), None)
    if case is None or not case.values:
        return None
    values = case.values
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return values[int(t * (len(values) - 1))]
    place = t * (len(values) - 1)
    left = int(place)
    right = min(len(values) - 1, left + 1)
    fraction = place - left
    return convert(parameter, (1 - fraction) * values[left] + fraction * values[right])


def resolve(parameter: Parameter, levels: Iterable[Settings | None], tensor: str, t: float) -> Any:
    """The value for a tensor of the first level that has one, else the default.

    Args:
        parameter: what is asked for.
        levels: from the one that counts most (a model's own) to the one that counts least (the whole recipe's).
        tensor: as in ``evaluate``.
        t: as in ``evaluate``.

    Raises:
        Unset: no level has one, and there is no default.
    """
    for settings in levels:
        if settings and parameter.name in settings:
            value = evaluate(settings[parameter.name], parameter, tensor, t)
            if value is not None:
                return value
    if parameter.default is REQUIRED:
        raise Unset(parameter.name)
    return parameter.default


def convert(parameter: Parameter, value: Any) -> Any:
    """A scalar of a recipe as the parameter's type: "1e-5" is a number, "on" and 1 are true.

    Raises:
        BadInput: it cannot be read as one, or is not finite.
    """
    try:
        return _reader(parameter.kind).validate_python(value)
    except pydantic.ValidationError:
        problem = f"bad value {value!r} for '{parameter.name}'"
        raise BadInput(problem, hint=f"it should be {KINDS[parameter.kind]}") from None


@cache
def _reader(kind: type) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(kind, config=pydantic.ConfigDict(allow_inf_nan=False))


def read_settings(document: yaml.Document, at: yaml.Position, rule: Rule) -> Settings:
    """The parameters that stand at a place of a recipe.

    Raises:
        BadInput: a parameter that the method does not have (mergekit takes no notice of it), or a value that is none;
            with its line.
    """
    said = document.value
    for part in at:
        said = said[part]
    known = {parameter.name: parameter for parameter in rule.parameters}
    settings = {}
    for name, value in (said or {}).items():
        place = (*at, name)
        if name not in known:
            hint = "mergekit takes no notice of it: remove it"
            problem = f"the method '{rule.name}' has no parameter '{name}'"
            raise BadInput(problem, place=document.place(place), given=name, choices=known, hint=hint)
        settings[name] = _read_setting(value, document, place, known[name])
    return settings


def _read_setting(value: Any, document: yaml.Document, at: yaml.Position, parameter: Parameter) -> Setting:
    if isinstance(value, dict):
        return (_read_case(document, at, parameter),)
    if isinstance(value, list) and any(isinstance(each, dict) for each in value):
        for index, each in enumerate(value):
            if not isinstance(each, dict):
                hint = "either all items have a 'value', most of them with a 'filter', or none has"
                raise BadInput(
                    f"values with and without 'filter' in one list of '{at[-1]}'",
                    place=document.place((*at, index)),
                    hint=hint,
                )
        return tuple(_read_case(document, (*at, index), parameter) for index in range(len(value)))
    return (Case(_read_values(value, document, at, parameter)),)


def _read_case(document: yaml.Document, at: yaml.Position, parameter: Parameter) -> Case:
    conditional = read_part(Conditional, document, at)
    return Case(_read_values(conditional.value, document, (*at, "value"), parameter), conditional.filter)


def _read_values(value: Any, document: yaml.Document, at: yaml.Position, parameter: Parameter) -> tuple[Any, ...]:
    if value == []:
        raise BadInput(f"'{parameter.name}' is empty", place=document.place(at))
    places = [((*at, index), each) for index, each in enumerate(value)] if isinstance(value, list) else [(at, value)]
    values = []
    for place, each in places:
        try:
            if not isinstance(each, SCALARS):
                hint = f"it should be {KINDS[parameter.kind]}, a list of such, or cases with 'filter' and 'value'"
                raise BadInput(f"bad value {each!r} for '{parameter.name}'", hint=hint)
            values.append(convert(parameter, each))
        except BadInput as fault:
            raise fault.at(document.place(place)) from None
    return tuple(values)
