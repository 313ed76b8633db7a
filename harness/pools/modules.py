"""The source ``module``: networks that a function of the user's builds, with weights in safetensors files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr

from harness.errors import BadInput
from harness.models.checkpoint import INDEX
from harness.models.own_checks import check_is_safetensors
from harness.models.own_code import Code, code_in, code_named
from harness.models.own_networks import OWN, family_for
from harness.models.readers import reader_in
from harness.models.weights import ARCHITECTURE, WEIGHTS, saved_architecture
from harness.pools.module_plan import ModulePlan, identity_of
from harness.pools.source import PoolPlan, PoolSource, source
from harness.registry import KINDS
from harness.strict.fields import Strict
from harness.tasks.task import Task
from harness.types import Architecture, Reader

Value = int | float | str | bool | None
Options = dict[str, Value | list[Value]]


class ModuleMember(Strict):
    """A member whose network is built with options of its own, besides those of the pool."""

    weights: str
    options: Options = {}


class ModulePool(Strict):
    """Networks that a function of yours builds; paths are relative to the suite file. Runs with --allow-code only."""

    build: str
    """``package.module:function``, of the suite's folder or installed, or ``path/to/file.py:function``."""
    options: Options = {}
    """What the function is called with, besides what it takes of the task's ``classes``, ``side`` and ``features``."""
    base: str | None = None
    members: Annotated[list[str | ModuleMember], Field(min_length=1)]
    """Safetensors files, or folders that export wrote."""
    reads: str | None = None
    """A folder with the tokenizer or image processor whose inputs the networks take, for texts and images."""
    _folder: Path = PrivateAttr(Path())

    def said_of(self, member: str | ModuleMember) -> tuple[str, dict[str, Any]]:
        """The file or folder of a member, and the options that the suite gives it."""
        if isinstance(member, str):
            return member, dict(self.options)
        return member.weights, {**self.options, **member.options}


class Modules(PoolSource):
    """Members whose networks only the user's own code can build."""

    name = "module"
    spec = ModulePool

    def size(self, spec: ModulePool) -> int:
        return len(spec.members)

    def check(self, spec: ModulePool, place: Callable[..., str]) -> None:
        where, _, function = spec.build.rpartition(":")
        dotted = where.endswith(".py") or all(part.isidentifier() for part in where.split("."))
        if not dotted or not all(part.isidentifier() for part in function.split(".")):
            hint = "write package.module:function, or path/to/file.py:function"
            raise BadInput(f"'{spec.build}' names no function", place=place("build"), hint=hint)
        given: list[tuple[Options, tuple[str | int, ...]]] = [(spec.options, ("options",))]
        given += [(each.options, ("members", index, "options"))
                  for index, each in enumerate(spec.members) if isinstance(each, ModuleMember)]  # fmt: skip
        for options, at in given:
            for name in sorted(options.keys() & set(OWN)):
                raise BadInput(f"'{name}' cannot be an option: it has a meaning of its own", place=place(*at, name))

    def tokenizer(self, spec: ModulePool) -> str | None:
        return None

    def runs(self, spec: ModulePool) -> str | None:
        return spec.build

    def beside(self, spec: ModulePool, folder: Path) -> ModulePool:
        members = [str(folder / Path(each).expanduser()) if isinstance(each, str) else
                   each.model_copy(update={"weights": str(folder / Path(each.weights).expanduser())})
                   for each in spec.members]  # fmt: skip
        paths = {name: str(folder / Path(path).expanduser()) if (path := getattr(spec, name)) else None
                 for name in ("base", "reads")}  # fmt: skip
        moved = spec.model_copy(update={"members": members, **paths})
        moved._folder = folder
        return moved

    def candidate(self, spec: ModulePool, path: Path) -> ModulePool:
        return spec.model_copy(update={"members": [str(path)], "base": None})

    def plan(self, name: str, spec: ModulePool, task: Task, seed: int) -> PoolPlan:
        family = family_for(KINDS.get(task.test.kind))
        if family is None:
            problem = f"pool '{name}' holds networks that a function builds, which the task '{task.name}' is not for"
            takes = ", ".join(kind.name for kind in KINDS if family_for(kind))
            raise BadInput(problem, hint=f"they are for tasks of these kinds: {takes}")
        code, reader = code_named(spec.build, spec._folder), _reader(spec, task)

        def planned(member: str, path: str, said: Mapping[str, Any], base: ModulePlan | None = None) -> ModulePlan:
            file, own = _weights_at(Path(path))
            architecture = _architecture(family, code, {**said, **own}, task, reader)
            check_is_safetensors(file)
            start = base.digests[-1] if base else None
            return ModulePlan(member, architecture, str(file), identity_of(architecture, file), start)

        base = planned("base", spec.base, spec.options) if spec.base else None
        members = [planned(f"m{index}", *spec.said_of(member), base) for index, member in enumerate(spec.members)]
        return PoolPlan(name, "fine_tunes" if base else "independent", tuple(members), base)


source(Modules())


def _reader(spec: ModulePool, task: Task) -> Reader | None:
    """What turns raw examples into the networks' inputs."""
    head = KINDS.get(task.test.kind).head
    if not head.labelled:
        if spec.reads:
            problem = f"the examples of '{task.name}' are tensors, which nothing has to read: drop 'reads'"
            raise BadInput(problem, place=spec.reads)
        return None
    if spec.reads is None:
        hint = "reads: a folder with the tokenizer or image processor"
        raise BadInput(f"the pool does not say what reads the examples of '{task.name}' for its networks", hint=hint)
    if not Path(spec.reads).is_dir():
        raise BadInput("there is no such folder", place=spec.reads)
    return reader_in(Path(spec.reads), head)


def _architecture(
    family: str, code: Code, options: Mapping[str, Any], task: Task, reader: Reader | None
) -> Architecture:
    shape = {"classes": task.documents.classes, **getattr(task, "shape", {})}
    if both := sorted(options.keys() & shape.keys()):
        problem = f"'{both[0]}' is no option: '{code.function}' is given that of the task, where it takes it"
        raise BadInput(problem, hint="drop it")
    known = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    given = {**known, "build": code, "shape": tuple(sorted(shape.items())), **({"reader": reader} if reader else {})}
    return Architecture(family, tuple(sorted(given.items())))


def _weights_at(path: Path) -> tuple[Path, dict[str, Any]]:
    """The file of a member's weights, and the options that the folder which export wrote says its network has."""
    if not path.is_dir():
        return path, {}
    if (path / INDEX).is_file() or not (path / ARCHITECTURE).is_file():
        hint = "name a safetensors file, or a folder that export wrote"
        raise BadInput(f"the folder has no {ARCHITECTURE}", place=str(path), hint=hint)
    try:
        saved = saved_architecture(path)
    except (ValueError, TypeError, AttributeError):
        raise BadInput(f"{ARCHITECTURE} is not a name and its options", place=str(path)) from None
    if code_in(saved) is None:
        raise BadInput(f"it is a '{saved.name}', which no function of yours builds", place=str(path),
                       hint="name it under hf: members")  # fmt: skip
    return path / WEIGHTS, {name: value for name, value in saved.options if name not in OWN}
