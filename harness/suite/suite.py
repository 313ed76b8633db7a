"""A suite file: read strictly, checked against the registry, expanded into variants."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.keys import digest
from harness.methods.method import FILE, Method, describe_type
from harness.pools.source import AskedPool
from harness.registry import METHODS
from harness.results.columns import paired
from harness.strict import yaml
from harness.strict.beside import Beside
from harness.strict.model import read_model
from harness.suite.bounds import Counted, check_members
from harness.suite.file import MAIN, REFERENCE, SuiteFile, asked_pool, suite_model
from harness.suite.task import KEY, read_task
from harness.tasks import TaskReference

PLAIN = r"[\w.:+-]*"
"""What a value looks like that is a part of a variant's name; of another one, a text, DIGITS of its digest are."""
DIGITS = 8


@dataclass(frozen=True)
class Variant:
    """One row of the results: a method with its parameters on chosen members of one pool."""

    name: str
    method: str
    pool: str
    members: tuple[int, ...] | None
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Suite:
    """A checked suite file and the variants it asks for."""

    path: str
    text: str
    digest: str
    file: SuiteFile
    task: TaskReference
    pools: Mapping[str, AskedPool]
    variants: tuple[Variant, ...]

    def place_of(self, pool: str, *path: str | int) -> str:
        """``file:line`` of what a suite says to the source of a pool, for messages."""
        above: yaml.Position = ("pool",) if pool == MAIN else ("pools", pool)
        return yaml.load(self.text, self.path).place((*above, self.pools[pool].source.name, *path))

    def reference_of(self, pool: str) -> str:
        """The variant that those of a pool are compared with: training differs between pools, not the combination."""
        own = next((each.pool for each in self.variants if each.name == self.file.reference), pool)
        return self.file.reference if own == pool else _reference(pool).name


def suite_files(folder: Path) -> list[Path]:
    """The suite files of a folder; policies of a gate, ``*.policy.yaml``, lie beside them."""
    return sorted(path for path in folder.glob("*.yaml") if not path.name.endswith(".policy.yaml"))


def read_suite(path: Path) -> Suite:
    """Read a suite file; every fault is one line with its place, the known choices and the nearest of them."""
    document = yaml.read(path)
    file = read_model(suite_model(), document, "a suite file", empty={"members": "the pool is empty: 'members' is 0"})
    given = read_task(file.task, document)
    if MAIN in file.pools:
        raise BadInput(f"the name '{MAIN}' is taken by 'pool'", place=document.place(("pools", MAIN)))
    pools: dict[str, AskedPool] = {}
    for name, spec in {MAIN: file.pool, **file.pools}.items():
        place: yaml.Position = ("pool",) if name == MAIN else ("pools", name)
        asked = asked_pool(spec, document.place(place))
        asked.source.check(asked.spec, partial(_place, document, (*place, asked.source.name)))
        pools[name] = asked.beside(path.parent)
    check_members(pools, file.seeds, document)
    if len(set(file.seeds)) < len(file.seeds):
        raise BadInput("a seed is named twice", place=document.place(("seeds",)))
    variants = tuple(_variants(file, document, pools))
    _known("reference", file.reference, [v.name for v in variants], document.place(("reference",)))
    variants = (*variants, *_missing_references(file, variants))
    for key, names in (("score", file.scores), ("equivalence", file.equivalence)):
        for name in names:
            _known("score", name, list(paired()), document.place((key,)))
    if len(set(file.scores)) < len(file.scores):
        raise BadInput("a score is named twice", place=document.place(("score",)))
    for name in file.correlate.pools if file.correlate else []:
        _known("pool", name, pools, document.place(("correlate", "pools")))
    main = pools[MAIN]
    try:
        task = given.kind.refer(given.value, file.suite, path.parent, main.source.tokenizer(main.spec))
    except BadInput as fault:
        raise fault.at(document.place(KEY)) from None
    if file.split == "per_seed":
        try:
            given.kind.folded(task, 0)
        except BadInput as fault:
            raise fault.at(document.place(("split",))) from None
    identity = digest({**file.model_dump(mode="json"), "task": given.as_json()})
    return Suite(str(path), document.text, identity, file, task, pools, variants)


def _place(document: yaml.Document, above: yaml.Position, *path: str | int) -> str:
    return document.place((*above, *path))


def _known(what: str, name: Any, choices: Collection[str], place: str) -> None:
    if not isinstance(name, str) or name not in choices:
        raise BadInput(f"unknown {what} '{name}'", place=place, given=str(name), choices=choices)


def _variants(
    file: SuiteFile, document: yaml.Document, pools: Mapping[str, AskedPool]
) -> Iterator[Variant]:
    seen: dict[str, str] = {}
    counted = Counted(file.seeds)
    folder = Path(document.source).parent
    beside = {name: Beside(folder, pool.folders) for name, pool in pools.items()}
    for index, item in enumerate(file.methods):
        path: yaml.Position = ("methods", index)
        place = document.place(path)
        if isinstance(item, str):
            item = {item: None}
        if len(item) != 1:
            raise BadInput("an item of 'methods' is one method", place=place, hint="start each with '- '")
        (name, options), *_ = item.items()
        method = METHODS.get(name, place)
        given = dict(options or {})
        for key, value in given.items():
            if value == []:
                raise BadInput(f"'{key}' is an empty list", place=document.place((*path, name, key)))
        chosen_pools = _as_list(given.pop("pool", MAIN))
        for pool in chosen_pools:
            _known("pool", pool, pools, document.place((*path, name, "pool")))
        member_sets = _member_sets(given.pop("members", "all"), document.place((*path, name, "members")))
        counted.add(given, len(chosen_pools) * len(member_sets), place)
        for pool, members, parameters in itertools.product(chosen_pools, member_sets, _combinations(given)):
            where = document.place((*path, name, next(iter(parameters), "")))
            full = _validated(method, parameters, where, beside[pool])
            variant = Variant(variant_name(method, full, pool, members), name, pool, members, full)
            if members is not None and max(members) >= pools[pool].size:
                raise BadInput(f"pool '{pool}' has {pools[pool].size} members, counted from 0", place=where)
            if variant.name in seen:
                problem = f"variant '{variant.name}' is asked for twice (first: {seen[variant.name]})"
                raise BadInput(problem, place=where)
            seen[variant.name] = where
            yield variant


def _reference(pool: str) -> Variant:
    """The usual reference of a pool."""
    method = METHODS.get(REFERENCE)
    parameters = method.validate({}, pool)
    return Variant(variant_name(method, parameters, pool, None), REFERENCE, pool, None, parameters)


def _missing_references(file: SuiteFile, variants: Sequence[Variant]) -> Iterator[Variant]:
    """The references of pools that the suite does not list itself."""
    own = next(each.pool for each in variants if each.name == file.reference)
    pools = dict.fromkeys(each.pool for each in variants if each.pool != own)
    known = {each.name for each in variants}
    yield from (each for each in map(_reference, pools) if each.name not in known)


def _validated(method: Method, parameters: Mapping[str, Any], place: str, beside: Beside) -> dict[str, Any]:
    try:
        return method.validate(parameters, place, beside)
    except BadInput as fault:
        fields = method.parameters.model_fields
        numbers = [key for key, value in parameters.items() if isinstance(value, int | float) and key in fields]
        if any("list[" in describe_type(fields[key]) for key in numbers):
            hint = f"{fault.hint}; a list means one variant each: write a value that is a list as [[0.5, 0.5]]"
            raise BadInput(fault.problem, place=fault.place, hint=hint) from None
        raise


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _member_sets(value: Any, place: str) -> list[tuple[int, ...] | None]:
    if value == "all":
        return [None]
    sets = value if isinstance(value, list) and value and all(isinstance(v, list) for v in value) else [value]
    for chosen in sets:
        positions = isinstance(chosen, list) and all(type(i) is int and i >= 0 for i in chosen)
        if not positions or not chosen or len(set(chosen)) < len(chosen):
            raise BadInput(f"bad members {chosen!r}", place=place, hint="it takes all, or different positions from 0")
    return [tuple(chosen) for chosen in sets]


def _combinations(given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One set of parameters for each combination of the listed values, in the file's order."""
    for values in itertools.product(*(_as_list(value) for value in given.values())):
        yield dict(zip(given, values, strict=True))


def variant_name(
    method: Method, parameters: Mapping[str, Any], pool: str, members: Sequence[int] | None
) -> str:
    """``pool:method/parameter=value,...`` with only the parameters that differ from their defaults, sorted."""
    shown = {key: _word(value) for key, value in method.variant_parameters(parameters).items()}
    if members is not None:
        shown["members"] = "+".join(map(str, members))
    prefix = "" if pool == MAIN else f"{pool}:"
    return prefix + method.name + ("/" if shown else "") + ",".join(f"{k}={v}" for k, v in sorted(shown.items()))


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ":".join(_word(item) for item in value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, Mapping):
        return _word(value[FILE]) if value.get(FILE) else digest(value)[:DIGITS]
    word = "none" if value is None else str(value)
    return word if re.fullmatch(PLAIN, word) else digest(word)[:DIGITS]
