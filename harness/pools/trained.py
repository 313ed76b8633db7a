"""The source ``train``: pools that are trained here, which members they have and how each is trained."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from harness.errors import BadInput
from harness.models.architectures import check_options, trainable
from harness.models.pretrained import AS_CAUSAL, ZEROS, ReadAs
from harness.models.settings import LARGEST
from harness.models.training import Decay, Schedule, usual_schedule
from harness.pools.folder_plan import FolderPlan, plan_folder, read_for
from harness.pools.pool import seed_of
from harness.pools.source import MemberPlan, PoolPlan, PoolSource, source
from harness.pools.training import TrainingPlan
from harness.registry import KINDS
from harness.strict.fields import Count, Name, Positive, Strict, without_usual
from harness.tasks import pretrained
from harness.tasks.task import Task
from harness.types import Architecture


class Vary(Strict):
    """What differs between the members of a trained pool; they take the combinations in turn."""

    lr: Annotated[list[Positive], Field(min_length=1)] = [1e-3]
    augment: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)] = [0.0]
    epochs: Annotated[list[Count], Field(min_length=1)] | None = None
    data: Annotated[list[str], Field(min_length=1)] | None = None
    """What each is trained on: a domain of text, or a view of examples; by default the whole training split."""


class TrainPool(Strict):
    """A pool that is trained here."""

    architecture: Name | Annotated[list[Name], Field(min_length=2)] = "small_cnn"
    start: Literal["shared_base", "independent"]
    base: str | None = None
    """The folder of the shared base (or ``archive:NAME``): it is trained only where ``base_epochs`` is given.

    Classifiers with ``start: independent`` are trained from it too, each with a head of its own."""
    members: Count = 1
    epochs: Count = 6
    decay: Decay | None = None
    """The course of the members' rates (``Schedule.decay``); the usual one for this kind of data if None."""
    base_epochs: Count = 2
    base_lr: Positive | None = None
    """The base's rate, and the course of it; the usual ones if None."""
    base_decay: Decay | None = None
    examples: Count | None = None
    """Training inputs of a member at most, spread over its data; all of them if None. A base is trained on all."""
    vary: Vary = Vary()
    bootstrap: bool = False
    checkpoints: Annotated[int, Field(ge=2)] | None = None
    options: dict[str, int | float] = {}

    @pydantic.model_serializer(mode="wrap")
    def _as_before(self, handler: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_usual(self, handler(self), ("decay", "base_lr", "base_decay"))

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
    def architectures(self) -> list[str]:
        return self.architecture if isinstance(self.architecture, list) else [self.architecture]

    @property
    def varied(self) -> Mapping[str, list[Any]]:
        """The varied settings by name, in a fixed order."""
        epochs = self.vary.epochs or [self.epochs]
        return {"groups": self.vary.data or [None], "lr": self.vary.lr, "augment": self.vary.augment, "epochs": epochs}

    def contradiction(self) -> tuple[str, str] | None:
        """The key and the sentence of a setting that contradicts another."""
        if self.start != "shared_base" or (self.base is not None and "base_epochs" not in self.model_fields_set):
            for given in ("base_epochs", "base_lr", "base_decay"):
                if given in self.model_fields_set:
                    return given, "no base is trained here"
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


class Trained(PoolSource):
    """Members that are trained here, each from its own initialisation or from a shared base."""

    name = "train"
    spec = TrainPool

    def size(self, spec: TrainPool) -> int:
        return spec.checkpoints or spec.members

    def check(self, spec: TrainPool, place: Callable[..., str]) -> None:
        for name in spec.architectures:
            if name not in (known := trainable()):
                problem = f"unknown architecture '{name}'"
                raise BadInput(problem, place=place("architecture"), given=name, choices=known)
        if fault := spec.contradiction():
            raise BadInput(fault[1], place=place(fault[0]))
        for key, value in spec.options.items():
            if abs(value) > LARGEST:
                hint = f"no memory holds such a network: it may be {LARGEST:,} at most"
                raise BadInput(f"the option '{key}' is {value:,}", place=place("options", key), hint=hint)
        if spec.base:
            pretrained.model_of(spec.base, place("base"))

    def base(self, spec: TrainPool) -> str | None:
        return spec.base

    def beside(self, spec: TrainPool, folder: Path) -> TrainPool:
        return spec.model_copy(update={"base": pretrained.beside(folder, spec.base) if spec.base else None})

    def fetched(self, spec: TrainPool) -> TrainPool:
        return spec.model_copy(update={"base": pretrained.folder_of(spec.base) if spec.base else None})

    def plan(self, name: str, spec: TrainPool, task: Task, seed: int) -> PoolPlan:
        _check_for(task, name, spec)
        planned = plan_pool(
            name, spec, data=task.train.digest, shape=task.shape, seed=seed, defaults=usual_schedule(task.train),
            read_as=read_for(task, fresh=seed_of(seed, "head") % 2**31),
        )  # fmt: skip
        for made in sorted({member.architecture for member in planned.members}, key=str):
            try:
                check_options(made, by_name=not spec.options)  # to build a language model takes seconds of imports
            except BadInput as fault:
                raise BadInput(f"pool '{name}': {fault.problem}", hint=fault.hint) from None
        return planned


source(Trained())


def _check_for(task: Task, name: str, spec: TrainPool) -> None:
    """``BadInput`` where a task has no such networks or data."""
    known = KINDS.get(task.test.kind).networks
    for architecture in spec.architectures:
        if spec.base is None and architecture not in known:
            raise BadInput(f"pool '{name}': architecture '{architecture}' is not for {task.test.kind}", choices=known)
    for group in spec.vary.data or []:
        if group not in task.groups:
            raise BadInput(f"pool '{name}': unknown data '{group}'", given=group, choices=task.groups)
    if any(spec.vary.augment) and not task.train.inputs.is_floating_point():
        fault = f"noise ('augment') is added to numbers, and the inputs of '{task.name}' are none"
        raise BadInput(f"pool '{name}': {fault}")
    if spec.base and spec.start == "independent" and not KINDS.get(task.test.kind).head.labelled:
        raise BadInput(f"pool '{name}': a pool with a base has start: shared_base, unless they are classifiers")
    if spec.bootstrap and not set(spec.vary.data or []) <= set(task.train.groups):
        problem = f"pool '{name}': resamples are of the training split, and views are not parts of it"
        raise BadInput(problem, hint="drop 'bootstrap' or 'data'")


def plan_pool(
    name: str, spec: TrainPool, *, data: str, shape: Mapping[str, int], seed: int, defaults: Schedule | None = None,
    read_as: ReadAs = AS_CAUSAL,
) -> PoolPlan:
    """The training runs of a pool.

    Args:
        name: the pool's name in the suite.
        spec: what the suite says.
        data: digest of the training split.
        shape: the options every architecture needs (``side``, ``classes``).
        seed: the suite's seed; every run in the pool gets its own, derived from it. Two pools share a training run,
            and its artefact, where they describe the same one.
        defaults: batch size and precision for this kind of data.
        read_as: how the base's folder is read.
    """
    usual = defaults or Schedule(1)
    architectures = [Architecture(n, tuple(sorted({**shape, **spec.options}.items()))) for n in spec.architectures]
    base: MemberPlan | None = None
    if spec.base is not None:
        alone = spec.start == "independent"
        base = plan_folder("base", spec.base, read_as=replace(read_as, fresh=ZEROS) if alone else read_as)
        architectures = [base.architecture]
    if spec.start == "shared_base" and (base is None or "base_epochs" in spec.model_fields_set):
        rate, course = spec.base_lr or usual.lr, spec.base_decay or usual.decay
        schedule = replace(usual, epochs=spec.base_epochs, lr=rate, decay=course)
        base = TrainingPlan("base", architectures[0], schedule, data, seed=seed_of(seed, "base", 0), base=base)
    turns = zip(range(1 if spec.checkpoints else spec.members), itertools.cycle(_choices(spec)), strict=False)
    members = [
        TrainingPlan(
            f"m{index}",
            architectures[index % len(architectures)],
            replace(usual, decay=spec.decay or usual.decay, **chosen),
            data,
            spec.bootstrap,
            spec.checkpoints or 1,
            spec.examples,
            seed=seed_of(seed, spec.kind, index),
            base=_start_of(f"m{index}", base, seed_of(seed, "head", index)) if spec.start == "independent" else base,
            groups=groups,
        )
        for index, (groups, chosen) in turns
    ]
    return PoolPlan(name, spec.kind, tuple(members), base)


def _start_of(member: str, base: MemberPlan | None, seed: int) -> MemberPlan | None:
    """A member's start from a base: with a head drawn for it alone, where the base has none for the labels."""
    if not isinstance(base, FolderPlan) or not base.model.has_own_head:
        return base
    model = replace(base.model, read_as=replace(base.model.read_as, fresh=seed % 2**31))
    return replace(base, name=f"{base.name} of {member}", model=model, identity=model.digest, own_head=True)


def _choices(spec: TrainPool) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """The groups and the schedule's settings of each combination of what varies."""
    for values in itertools.product(*spec.varied.values()):
        chosen = dict(zip(spec.varied, values, strict=True))
        group = chosen.pop("groups")
        yield (group,) if group else (), chosen
