"""A suite file: read strictly, checked against the registry, expanded into variants."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pydantic
from pydantic import Field

from harness import registry, strict_yaml
from harness.errors import BadInput
from harness.formats import read_bytes
from harness.store import digest
from harness.strict_model import STRICT, read_model
from harness.tasks import TaskReference, pretrained

MAIN = "main"
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class _Strict(pydantic.BaseModel):
    model_config = STRICT


class Vary(_Strict):
    """What differs between the members of a trained pool; they take the combinations in turn."""

    lr: Annotated[list[Positive], Field(min_length=1)] = [1e-3]
    augment: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)] = [0.0]
    epochs: Annotated[list[Count], Field(min_length=1)] | None = None
    data: Annotated[list[str], Field(min_length=1)] | None = None
    """What each is trained on: a domain of text, or a view of images; by default the whole training split."""


class HfPool(_Strict):
    """A pool of Hugging Face folders, or of adapters on the base; paths are relative to the suite file.

    In the place of a folder, ``archive:NAME`` is a pretrained model that comes as a data archive.
    """

    base: str | None = None
    members: Annotated[list[str], Field(min_length=1)]

    kind: ClassVar[str] = "fine_tunes"


class TrainPool(_Strict):
    """A pool that is trained here."""

    architecture: Name | Annotated[list[Name], Field(min_length=2)] = "small_cnn"
    start: Literal["shared_base", "independent"]
    base: str | None = None
    """The folder of the shared base (or ``archive:NAME``), which is then not trained."""
    members: Count = 1
    epochs: Count = 6
    base_epochs: Count = 2
    examples: Count | None = None
    """Training inputs of a member at most, spread over its data; all of them if None. A base is trained on all."""
    vary: Vary = Vary()
    bootstrap: bool = False
    checkpoints: Annotated[int, Field(ge=2)] | None = None
    options: dict[str, int | float] = {}

    @property
    def kind(self) -> str:
        """How the members differ, as ``types.Pool.kind``."""
        if self.checkpoints:
            return "checkpoints"
        if self.bootstrap:
            return "bootstrap"
        if isinstance(self.architecture, list):
            return "architectures"
        return "fine_tunes" if self.start == "shared_base" else "independent"

    @property
    def varied(self) -> Mapping[str, list[Any]]:
        """The varied settings by name, in a fixed order."""
        epochs = self.vary.epochs or [self.epochs]
        return {"groups": self.vary.data or [None], "lr": self.vary.lr, "augment": self.vary.augment, "epochs": epochs}

    def contradiction(self) -> tuple[str, str] | None:
        """The key and the sentence of a setting that contradicts another."""
        if self.base is not None and self.start != "shared_base":
            return "base", "a pool with a base has start: shared_base"
        if self.start == "shared_base" and isinstance(self.architecture, list):
            return "architecture", "members of several architectures cannot start from one shared base"
        if self.checkpoints and self.bootstrap:
            return "bootstrap", "'checkpoints' are of one run on all training examples: drop 'bootstrap'"
        if self.checkpoints and self.members != 1:
            return "members", "'checkpoints' are of one run: drop 'members'"
        if self.checkpoints and isinstance(self.architecture, list):
            return "architecture", "'checkpoints' are of one run: name one architecture"
        if isinstance(self.architecture, list) and len(self.architecture) > self.members:
            return "architecture", f"a pool of {self.members} has no member for some of these architectures"
        epochs = self.varied["epochs"][0]  # one run takes the first of everything that varies
        if self.checkpoints and self.checkpoints > epochs:
            return "checkpoints", f"the last {self.checkpoints} checkpoints of a run of {epochs} epochs"
        return None


class PoolSpec(_Strict):
    """Where a pool's members come from: one of the two."""

    train: TrainPool | None = None
    hf: HfPool | None = None

    @property
    def chosen(self) -> TrainPool | HfPool:
        found = self.train or self.hf
        assert found is not None
        return found


class LmEval(_Strict):
    """Tasks of lm-eval by name, and a folder of task files, relative to the suite file."""

    lm_eval: Annotated[list[str], Field(min_length=1)]
    include_path: str | None = None


class Subsets(_Strict):
    """Which subsets of a pool the correlation study takes: all of these sizes, or a fixed draw of ``at_most``."""

    sizes: Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1)]
    at_most: Annotated[int, Field(ge=3)] = 60


class Correlate(_Strict):
    """The ensemble-versus-average study."""

    rule: Literal["linear", "log_linear"] = "linear"
    average: Literal["uniform_soup"] = "uniform_soup"
    pools: list[Name] = [MAIN]
    subsets: Subsets


class CostSpec(_Strict):
    """Which costs are measured beyond those that can be counted."""

    latency: bool = True
    memory: bool = True
    energy: bool = True
    """Measured where the device has a counter; elsewhere it takes no time."""
    memory_budget: Annotated[int, pydantic.BeforeValidator(read_bytes)] | None = None
    """What batches and ensembles should fit in, such as 24GB; by default all memory of the device."""
    price_per_gpu_hour: Positive | None = None
    """In any currency, for the money that a million examples cost on a GPU."""


class SuiteFile(_Strict):
    """The keys of a suite file."""

    suite: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
    question: str = ""
    task: str | LmEval
    pool: PoolSpec
    pools: dict[Name, PoolSpec] = {}
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    reference: str = "best_single"
    methods: Annotated[list[str | dict[str, dict[str, Any] | None]], Field(min_length=1)]
    correlate: Correlate | None = None
    cost: CostSpec = CostSpec()


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
    pools: Mapping[str, TrainPool | HfPool]
    variants: tuple[Variant, ...]


def suite_files(folder: Path) -> list[Path]:
    """The suite files of a folder; policies of a gate, ``*.policy.yaml``, lie beside them."""
    return sorted(path for path in folder.glob("*.yaml") if not path.name.endswith(".policy.yaml"))


def read_suite(path: Path, tasks: Collection[str], architectures: Collection[str]) -> Suite:
    """Read a suite file; every fault is one line with its place, the known choices and the nearest of them."""
    document = strict_yaml.read(path)
    file = read_model(SuiteFile, document, "a suite file", empty={"members": "the pool is empty: 'members' is 0"})
    if isinstance(file.task, str):
        _known("task", file.task, tasks, document.place(("task",)))
    if MAIN in file.pools:
        raise BadInput(f"the name '{MAIN}' is taken by 'pool'", place=document.place(("pools", MAIN)))
    pools: dict[str, TrainPool | HfPool] = {}
    for name, spec in {MAIN: file.pool, **file.pools}.items():
        place: strict_yaml.Position = ("pool",) if name == MAIN else ("pools", name)
        if (spec.train is None) == (spec.hf is None):
            raise BadInput("a pool is trained here or lies in folders", place=document.place(place),
                           hint="give it one of: train, hf")  # fmt: skip
        if spec.train:
            _check_pool(spec.train, (*place, "train"), document, architectures)
        _check_archives(spec.chosen, (*place, "train" if spec.train else "hf"), document)
        pools[name] = located(spec.chosen, path.parent)
    if len(set(file.seeds)) < len(file.seeds):
        raise BadInput("a seed is named twice", place=document.place(("seeds",)))
    variants = tuple(_variants(file, document, pools))
    _known("reference", file.reference, [v.name for v in variants], document.place(("reference",)))
    for name in file.correlate.pools if file.correlate else []:
        _known("pool", name, pools, document.place(("correlate", "pools")))
    task = _task(file, pools[MAIN], path.parent)
    return Suite(str(path), document.text, digest(file.model_dump(mode="json")), file, task, pools, variants)


def _task(file: SuiteFile, pool: TrainPool | HfPool, folder: Path) -> TaskReference:
    if isinstance(file.task, str):
        return TaskReference(file.task)
    tokenizer = pool.base or (pool.members[0] if isinstance(pool, HfPool) else None)
    include_path = _beside(folder, file.task.include_path) if file.task.include_path else None
    return TaskReference(file.suite, tuple(file.task.lm_eval), include_path, tokenizer)


def located(pool: TrainPool | HfPool, folder: Path) -> TrainPool | HfPool:
    """The pool with its folders as seen from here."""
    return _with_folders(pool, lambda name: _beside(folder, name))


def fetched(pool: TrainPool | HfPool) -> TrainPool | HfPool:
    """The pool with folders in the place of archives' names; what is not there yet is fetched and converted."""
    return _with_folders(pool, pretrained.folder_of)


def _with_folders(pool: TrainPool | HfPool, change: Callable[[str], str]) -> TrainPool | HfPool:
    changes: dict[str, Any] = {"base": change(pool.base) if pool.base else None}
    if isinstance(pool, HfPool):
        changes["members"] = [change(member) for member in pool.members]
    return pool.model_copy(update=changes)


def _beside(folder: Path, name: str) -> str:
    """A path of a suite file, which is relative to that file; an archive's name stays as it is."""
    return name if name.startswith(pretrained.PREFIX) else str(folder / Path(name).expanduser())


def _check_archives(pool: TrainPool | HfPool, path: strict_yaml.Position, document: strict_yaml.Document) -> None:
    if pool.base:
        pretrained.model_of(pool.base, document.place((*path, "base")))
    for index, member in enumerate(pool.members if isinstance(pool, HfPool) else []):
        pretrained.model_of(member, document.place((*path, "members", index)))


def _check_pool(
    pool: TrainPool, path: strict_yaml.Position, document: strict_yaml.Document, architectures: Collection[str]
) -> None:
    for name in pool.architecture if isinstance(pool.architecture, list) else [pool.architecture]:
        _known("architecture", name, architectures, document.place((*path, "architecture")))
    if fault := pool.contradiction():
        raise BadInput(fault[1], place=document.place((*path, fault[0])))


def _known(what: str, name: Any, choices: Collection[str], place: str) -> None:
    if not isinstance(name, str) or name not in choices:
        raise BadInput(f"unknown {what} '{name}'", place=place, given=str(name), choices=choices)


def _variants(
    file: SuiteFile, document: strict_yaml.Document, pools: Mapping[str, TrainPool | HfPool]
) -> Iterator[Variant]:
    seen: dict[str, str] = {}
    for index, item in enumerate(file.methods):
        path: strict_yaml.Position = ("methods", index)
        place = document.place(path)
        if isinstance(item, str):
            item = {item: None}
        if len(item) != 1:
            raise BadInput("an item of 'methods' is one method", place=place, hint="start each with '- '")
        (name, options), *_ = item.items()
        method = registry.get(name, place)
        given = dict(options or {})
        for key, value in given.items():
            if value == []:
                raise BadInput(f"'{key}' is an empty list", place=document.place((*path, name, key)))
        chosen_pools = _as_list(given.pop("pool", MAIN))
        for pool in chosen_pools:
            _known("pool", pool, pools, document.place((*path, name, "pool")))
        member_sets = _member_sets(given.pop("members", "all"), document.place((*path, name, "members")))
        for pool, members, parameters in itertools.product(chosen_pools, member_sets, _combinations(given)):
            where = document.place((*path, name, next(iter(parameters), "")))
            full = _validated(method, parameters, where)
            variant = Variant(variant_name(method, full, pool, members), name, pool, members, full)
            if members is not None and max(members) >= _size(pools[pool]):
                raise BadInput(f"pool '{pool}' has {_size(pools[pool])} members, counted from 0", place=where)
            if variant.name in seen:
                problem = f"variant '{variant.name}' is asked for twice (first: {seen[variant.name]})"
                raise BadInput(problem, place=where)
            seen[variant.name] = where
            yield variant


def _validated(method: registry.Method, parameters: Mapping[str, Any], place: str) -> dict[str, Any]:
    try:
        return method.validate(parameters, place)
    except BadInput as fault:
        fields = method.parameters.model_fields
        numbers = [key for key, value in parameters.items() if isinstance(value, int | float) and key in fields]
        if any("list[" in registry.describe_type(fields[key]) for key in numbers):
            hint = f"{fault.hint}; a list means one variant each: write a value that is a list as [[0.5, 0.5]]"
            raise BadInput(fault.problem, place=fault.place, hint=hint) from None
        raise


def _size(pool: TrainPool | HfPool) -> int:
    return len(pool.members) if isinstance(pool, HfPool) else pool.checkpoints or pool.members


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
    method: registry.Method, parameters: Mapping[str, Any], pool: str, members: Sequence[int] | None
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
    return "none" if value is None else str(value)


def json_schema(tasks: Collection[str], architectures: Collection[str]) -> dict[str, Any]:
    """The JSON schema of a suite file, for editors: the methods' parameters are those of the registry."""
    schema = SuiteFile.model_json_schema()
    schema["properties"]["task"]["anyOf"][0]["enum"] = sorted(tasks)
    schema["$defs"]["TrainPool"]["properties"]["architecture"]["examples"] = sorted(architectures)
    items: list[dict[str, Any]] = [{"enum": list(registry.methods())}]
    for name, method in registry.methods().items():
        fields = method.parameters.model_json_schema()["properties"]
        choices: dict[str, Any] = {
            key: {"anyOf": [field, {"type": "array", "items": field}]} for key, field in fields.items()
        }
        choices["pool"] = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
        choices["members"] = {"description": "all, or positions from 0, or several lists of positions"}
        body = {"type": ["object", "null"], "properties": choices, "additionalProperties": False}
        described = {"description": method.summary, "type": "object", "properties": {name: body}, "required": [name]}
        items.append({**described, "additionalProperties": False})
    schema["properties"]["methods"]["items"] = {"anyOf": items}
    schema["title"] = "Stockpot suite"
    return schema
