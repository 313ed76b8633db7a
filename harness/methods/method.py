"""The interface of a method: one decorated function in one file (``harness.types`` has what it takes and gives)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from typing import Any, get_args, get_type_hints

import pydantic

from harness.display.formats import counted
from harness.errors import BadInput
from harness.registry import METHODS
from harness.says import LACKS, Says, says_enough
from harness.strict.beside import Beside
from harness.types import Combination, Family, Ingredients, Need, NotApplicable

Law = Callable[[Mapping[str, Any]], bool]
"""Whether a law holds for these (full) parameters."""
Uses = Callable[[Mapping[str, Any]], Sequence[int] | None]
"""The positions of the members that these (full) parameters name, where no other is touched; None: all of them."""
Reads = Callable[[Mapping[str, Any]], Says]

FILE = "file"
"""The key of a value that was read from a file, with that file's name."""

POOLS = {
    "fine_tunes": "fine-tunes",
    "independent": "independently trained models",
    "architectures": "different networks",
    "bootstrap": "models trained on bootstrap resamples",
    "checkpoints": "checkpoints of one run",
    "predictions": "models known by their predictions",
}
"""What the members of each kind of pool (``types.Pool.kind``) are called in prose."""


@dataclass(frozen=True)
class Method:
    """One registered method: what it is called, what it needs, and what laws it claims to obey."""

    name: str
    family: Family
    summary: str
    paper: str
    needs: frozenset[str]
    build: Callable[..., Combination]
    parameters: type[pydantic.BaseModel]
    pool: str
    """The kind of pool the method is about: "any", "bootstrap" or "checkpoints" (see ``types.Pool``)."""
    order_sensitive: Law
    """Whether the result depends on the order of the members (a position is a parameter, or time matters)."""
    identical_members_unchanged: Law
    """Whether a pool of copies of one member must give that member's probabilities."""
    small: tuple[Mapping[str, Any], ...]
    """Parameter sets that the contract tests run; together they reach every branch, and are quick."""
    module: str
    uses: Uses
    reads: Reads
    """What has to be known of the members' answers, where it combines these, with these (full) parameters."""
    seconds: float
    """About how long building takes on a small pool, where nothing is trained: the long ones are started first."""
    words: str = ""
    """What prose calls what it makes, without an article: "linear ensemble of {members}{weights}". ``{members}`` are
    those that it was given; any other name is a parameter, said as ``told`` has it, or as it is where that has nothing
    of this parameter. Empty: the registry name."""
    told: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)
    """Words for values of parameters in ``words``; those of None are for every value without words of its own, which
    follows in brackets unless it is the default."""
    writes: bool = False
    """Whether it may make a system that answers in writing only (``systems.written``): where no task asks for that it
    does not apply, so that building it depends on what is scored."""

    def validate(
        self, given: Mapping[str, Any], place: str | None = None, beside: Beside | None = None
    ) -> dict[str, Any]:
        """The full set of parameters, defaults filled in; ``BadInput`` names the parameter that is wrong.

        What is in a file that a parameter names stands in the place of its name, so that it is a part of keys.

        Args:
            given: the parameters that the suite has, or a full set.
            place: ``file:line``, for messages.
            beside: what a parameter may name by a path.
        """
        known = list(self.parameters.model_fields)
        for key in given:
            if key not in known:
                problem = f"method '{self.name}' has no parameter '{key}'"
                raise BadInput(problem, place=place, given=str(key), choices=known)
        try:
            return self.parameters.model_validate(dict(given), context=beside).model_dump()
        except BadInput as fault:  # a parameter that names something else that is declared
            raise fault.at(place or "") from None
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else "?"
            expects = describe_type(self.parameters.model_fields[name]) if name in known else ""
            problem = f"method '{self.name}': bad value {first['input']!r} for '{name}'"
            if first["type"] == "missing":
                problem = f"method '{self.name}' needs the parameter '{name}'"
            hint = str(first["ctx"]["error"]) if first["type"] == "value_error" else f"it takes {expects}"
            raise BadInput(problem, place=place, hint=hint) from None

    def apply(self, ingredients: Ingredients, parameters: Mapping[str, Any]) -> Combination:
        """Run it on ingredients with validated parameters; ``NotApplicable`` on a pool of another kind than its own."""
        pool = ingredients.pool_
        if self.pool != "any" and self.pool != pool.kind:
            holds, wanted = (POOLS.get(kind, kind) for kind in (pool.kind, self.pool))
            raise NotApplicable(f"pool '{pool.name}' holds {holds}, not {wanted}")
        if self.family in ("single", "output", "staged"):
            self._check_what_members_say(ingredients, parameters)
        elif text := [member.name for member in pool.members if member.says == "text"]:
            raise NotApplicable(f"member {text[0]} {LACKS['text']}, and so would what {self.name} makes of it")
        return self.build(ingredients, **parameters)

    def _check_what_members_say(self, ingredients: Ingredients, parameters: Mapping[str, Any]) -> None:
        members, named = ingredients.pool_.members, self.uses(parameters)
        used = members if named is None else [members[position] for position in named if position < len(members)]
        needed = self.reads(parameters)
        for member in used:
            if not says_enough(member.says, needed):
                raise NotApplicable(f"member {member.name} {LACKS[member.says]}, and {self.name} needs {needed}")

    def variant_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Only the parameters that differ from the default (or have none): the ones that name a variant."""
        fields = self.parameters.model_fields
        return {k: v for k, v in sorted(parameters.items()) if fields[k].is_required() or fields[k].default != v}

    def phrase(self, parameters: Mapping[str, Any], members: str) -> str:
        """What it makes with these (full) parameters, in words: "linear ensemble of eight fine-tunes".

        Parameters that differ from the default, and that ``words`` does not say, follow in brackets.

        Args:
            parameters: of a run, which may be of another version: what is not known here is said as it is.
            members: what it was given, in words.
        """
        pattern = self.words or self.name.replace("_", " ")
        placed = {name for _, name, _, _ in Formatter().parse(pattern) if name and name != "members"}
        unsaid = {k for k in placed if k not in parameters or (k in self.told and not self._is_told(k, parameters[k]))}
        said = {k: self.told[k][parameters[k]] if k in self.told else counted(parameters[k]) for k in placed - unsaid}
        others = {k: self.told.get(k, {}).get(None, "") for k in unsaid}
        words = pattern.format_map({**others, **said, "members": "{members}"}).strip()
        fields = self.parameters.model_fields
        rest = [f"{k.replace('_', ' ')} {_plain(v)}" for k, v in sorted(parameters.items())
                if k not in said and not (k in fields and fields[k].default == v)]  # fmt: skip
        return words.replace("{members}", members) + (f" ({', '.join(rest)})" if rest else "")

    def _is_told(self, name: str, value: Any) -> bool:
        return isinstance(value, (str, int, float)) and value in self.told[name]


def _plain(value: Any) -> str:
    """A parameter's value as variants' names have it; what was read from a file by the file's name."""
    if isinstance(value, Mapping):
        return str(value.get(FILE) or "in the suite")
    if isinstance(value, list):
        return ":".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def describe_type(field: pydantic.fields.FieldInfo) -> str:
    """One parameter's type in words, for messages and tables: "uniform | learned | list[float]"."""

    def words(kind: Any) -> str:
        if kind is type(None):
            return "null"
        args = get_args(kind)
        if not args:
            return getattr(kind, "__name__", str(kind))
        if getattr(kind, "__origin__", None) is list:
            return f"list[{words(args[0])}]"
        if getattr(kind, "__origin__", None) is dict:
            return f"dict[{words(args[0])}, {words(args[1])}]"
        if hasattr(kind, "__metadata__"):
            return _bounded(words(args[0]), kind.__metadata__)
        return " | ".join(words(a) if isinstance(a, type) or get_args(a) else str(a) for a in args)

    return _bounded(words(field.annotation), field.metadata)


_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def _bounded(word: str, metadata: Iterable[Any]) -> str:
    """A type's word with the bounds that stand in its annotation: "float > 0, <= 1"."""
    limits = [limit for entry in metadata for limit in getattr(entry, "metadata", [entry])]
    bounds = [f"{s} {getattr(limit, key):g}" for limit in limits for key, s in _SIGNS.items() if hasattr(limit, key)]
    return f"{word} {', '.join(bounds)}" if bounds else word


def method(
    name: str,
    *,
    family: Family,
    summary: str,
    paper: str,
    needs: set[Need],
    pool: str = "any",
    order_sensitive: bool | Law = False,
    identical_members_unchanged: bool | Law = False,
    small: tuple[Mapping[str, Any], ...] = ({},),
    uses: Uses = lambda parameters: None,
    reads: Says | Reads = "probabilities",
    seconds: float = 0.5,
    words: str = "",
    told: Mapping[str, Mapping[Any, str]] | None = None,
    writes: bool = False,
) -> Callable[[Callable[..., Combination]], Callable[..., Combination]]:
    """Register ``function(ingredients, **parameters) -> Combination``; its signature holds parameters and defaults.

    Parameters are keyword-only, annotated (``Literal`` for words, ``Annotated[float, Field(gt=0)]`` for ranges);
    unknown or ill-typed ones are refused before anything runs.
    """

    def register(function: Callable[..., Combination]) -> Callable[..., Combination]:
        METHODS.add(
            Method(
                name=name,
                family=family,
                summary=summary,
                paper=paper,
                needs=frozenset(needs),
                build=function,
                parameters=_parameter_model(name, function),
                pool=pool,
                order_sensitive=_law(order_sensitive),
                identical_members_unchanged=_law(identical_members_unchanged),
                small=small,
                module=function.__module__,
                uses=uses,
                reads=reads if callable(reads) else lambda parameters: reads,
                seconds=seconds,
                words=words,
                told=told or {},
                writes=writes,
            )
        )
        return function

    return register


def _law(declared: bool | Law) -> Law:
    return declared if callable(declared) else lambda parameters: declared


def _parameter_model(name: str, function: Callable[..., Combination]) -> type[pydantic.BaseModel]:
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise TypeError(f"method '{name}': parameter '{parameter.name}' must be keyword-only")
        if parameter.name not in hints:
            raise TypeError(f"method '{name}': parameter '{parameter.name}' has no type")
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], default)
    config = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    return pydantic.create_model(f"{name}_parameters", __config__=config, **fields)
