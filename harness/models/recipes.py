"""Recipes of trained pools: which members a pool has, how each is trained, and what its artefact is called.

A recipe is planned before anything is trained, so that a run knows all its keys, and what it can reuse, at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Protocol

import torch

from harness.models.architectures import build
from harness.models.training import Schedule, TrainingLog, train
from harness.models.weights import LazyWeights, load_module, save_weights
from harness.store import Key, Store, digest, read_json, write_json
from harness.types import Architecture, Member, Pool, Split


class TrainedPool(Protocol):
    """What a suite says of a trained pool (``suite.TrainPool``)."""

    @property
    def architecture(self) -> str | list[str]: ...
    @property
    def start(self) -> str: ...
    @property
    def members(self) -> int: ...
    @property
    def epochs(self) -> int: ...
    @property
    def base_epochs(self) -> int: ...
    @property
    def bootstrap(self) -> bool: ...
    @property
    def checkpoints(self) -> int | None: ...
    @property
    def options(self) -> Mapping[str, Any]: ...
    @property
    def kind(self) -> str: ...
    @property
    def varied(self) -> Mapping[str, list[Any]]: ...


@dataclass(frozen=True)
class TrainingPlan:
    """One training run: it leaves one member, or its last ``checkpoints`` ones."""

    name: str
    architecture: Architecture
    schedule: Schedule
    seed: int
    data: str
    """Digest of the training split."""
    start: str | None = None
    """Digest of the plan of the model it starts from; None for a fresh initialisation."""
    bootstrap: bool = False
    checkpoints: int = 1

    def key(self) -> Key:
        fields = asdict(self)
        fields["architecture"] = str(self.architecture)
        del fields["name"]
        return Key.of("training", code=__name__, **fields)

    @property
    def initialisation(self) -> str:
        """What names the start of this run: members that share it may be averaged."""
        return self.start or digest([str(self.architecture), self.seed])


@dataclass(frozen=True)
class PoolPlan:
    """The training runs that make a pool."""

    name: str
    kind: str
    members: tuple[TrainingPlan, ...]
    base: TrainingPlan | None


def plan_pool(
    name: str, recipe: TrainedPool, *, data: str, shape: Mapping[str, int], seed: int
) -> PoolPlan:
    """The training runs of a recipe.

    Args:
        name: the pool's name in the suite.
        recipe: what the suite says.
        data: digest of the training split.
        shape: the options every architecture needs (``side``, ``classes``).
        seed: the suite's seed; every run in the pool gets its own, derived from it. Two pools share a training run,
            and its artefact, where they describe the same one.
    """
    names = recipe.architecture if isinstance(recipe.architecture, list) else [recipe.architecture]
    architectures = [Architecture(n, tuple(sorted({**shape, **recipe.options}.items()))) for n in names]
    base = None
    if recipe.start == "shared_base":
        schedule = Schedule(recipe.base_epochs)
        base = TrainingPlan("base", architectures[0], schedule, seed_of(seed, "base", 0), data)
    choices = [dict(zip(recipe.varied, values, strict=True)) for values in itertools.product(*recipe.varied.values())]
    runs = 1 if recipe.checkpoints else recipe.members
    members = []
    for index in range(runs):
        schedule = replace(Schedule(recipe.epochs), **choices[index % len(choices)])
        members.append(
            TrainingPlan(
                f"m{index}",
                architectures[index % len(architectures)],
                schedule,
                seed_of(seed, recipe.kind, index),
                data,
                start=base.key().digest if base else None,
                bootstrap=recipe.bootstrap,
                checkpoints=recipe.checkpoints or 1,
            )
        )
    return PoolPlan(name, recipe.kind, tuple(members), base)


def seed_of(seed: int, *what: Any) -> int:
    """A seed for one thing, derived from the suite's: the same whatever else the suite holds."""
    return int(digest([seed, *what])[:12], 16)


def train_planned(plan: TrainingPlan, split: Split, store: Store, start: Member | None, device: torch.device) -> None:
    """Train as planned and store the weights and what it cost; the plan's key is the artefact."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        module = load_module(start) if start else build(plan.architecture)
    rows = None
    if plan.bootstrap:
        generator = torch.Generator().manual_seed(plan.seed)
        rows = torch.randint(len(split), (len(split),), generator=generator).tolist()
    kept: list[int] = []
    with store.write(plan.key()) as folder:

        def keep(epoch: int) -> None:
            if epoch > plan.schedule.epochs - plan.checkpoints:
                save_weights(module.state_dict(), folder / f"epoch-{epoch:03d}.safetensors")
                kept.append(epoch)

        log = train(module.to(device), split, plan.schedule, seed=plan.seed, rows=rows, after_epoch=keep)
        write_json(folder / "training.json", {"rows": rows, "epochs": kept, **asdict(log)})


def member_of(plan: TrainingPlan, store: Store, checkpoint: int = -1, name: str | None = None) -> Member:
    """The trained member (its last checkpoint, unless another position is asked for); weights stay on disk."""
    folder = store.path(plan.key())
    record = read_json(folder / "training.json")
    epoch = record["epochs"][checkpoint]
    schedule = asdict(plan.schedule)
    provenance = {"epochs": epoch, "lr": schedule["lr"], "augment": schedule["augment"], "rows": record["rows"]}
    return Member(
        name or plan.name,
        plan.architecture,
        LazyWeights(folder / f"epoch-{epoch:03d}.safetensors"),
        plan.initialisation,
        plan.seed,
        provenance,
        _member_digest(plan, epoch),
    )


def _member_digest(plan: TrainingPlan, epoch: int) -> str:
    return digest([plan.key().digest, epoch])


@cache
def member_digests(plan: PoolPlan) -> tuple[str, ...]:
    """The digests of a pool's members, in order, before anything is trained."""
    return tuple(
        _member_digest(run, run.schedule.epochs - run.checkpoints + 1 + i)
        for run in plan.members
        for i in range(run.checkpoints)
    )


@cache
def base_digest(plan: PoolPlan) -> str | None:
    """The digest of a pool's base, before it is trained; None for a pool without one."""
    return _member_digest(plan.base, plan.base.schedule.epochs) if plan.base else None


def load_pool(plan: PoolPlan, store: Store) -> Pool:
    """The pool whose training runs are all in the store."""
    base = member_of(plan.base, store) if plan.base else None
    if plan.kind == "checkpoints":
        run = plan.members[0]
        members = [member_of(run, store, i, f"c{i}") for i in range(run.checkpoints)]
    else:
        members = [member_of(run, store) for run in plan.members]
    return Pool(plan.name, plan.kind, tuple(members), base)


def training_log(plan: TrainingPlan, store: Store) -> TrainingLog:
    """What training this cost."""
    record = read_json(store.path(plan.key()) / "training.json")
    return TrainingLog(record["seconds"], record["examples"])


