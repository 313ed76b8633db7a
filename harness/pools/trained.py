"""Recipes of pools: which members a pool has, how each is trained or where it lies, and what it is called.

A recipe is planned before anything is trained, so that a run knows all its keys, and what it can reuse, at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from harness.models.architectures import build, code_of
from harness.models.training import Schedule, TrainingLog, train
from harness.models.weights import LazyWeights, check_finite, load_module, save_weights, without_ties
from harness.pools.folders import FolderModel
from harness.store import Key, Store, digest, read_json, write_json
from harness.types import Architecture, Member, Pool, Split, UndeclaredInput


class FolderPool(Protocol):
    """What a suite says of a pool of folders (``suite.HfPool``)."""

    @property
    def base(self) -> str | None: ...
    @property
    def members(self) -> list[str]: ...


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
    def examples(self) -> int | None: ...
    @property
    def base(self) -> str | None: ...
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
    groups: tuple[str, ...] = ()
    """The groups that it sees (``Task.groups``); the whole training split if empty."""
    examples: int | None = None
    """Of these, how many inputs it sees at most, spread evenly; all of them if None."""

    def key(self) -> Key:
        fields = asdict(self)
        fields["architecture"] = str(self.architecture)
        del fields["name"]
        return Key.of("training", code=(__name__, *code_of(self.architecture)), **fields)

    @property
    def initialisation(self) -> str:
        """What names the start of this run: members that share it may be averaged."""
        return self.start or digest([str(self.architecture), self.seed])

    @property
    def digests(self) -> tuple[str, ...]:
        """The digests of the members it leaves, in time order, before it has run."""
        return tuple(_member_digest(self, self.schedule.epochs - i) for i in reversed(range(self.checkpoints)))

    def describe(self) -> dict[str, Any]:
        """How it is trained, for the report."""
        words = f"rate {self.schedule.lr:g}, {self.schedule.epochs} epochs"
        words += f", noise {self.schedule.augment:g}" if self.schedule.augment else ""
        words += f", on {' and '.join(self.groups)}" if self.groups else ""
        words += f", at most {self.examples} examples" if self.examples else ""
        words += ", on a bootstrap resample" if self.bootstrap else ""
        words += ", bfloat16 matrix products" if self.schedule.precision == "bfloat16" else ""
        settings = {key: getattr(self.schedule, key) for key in ("epochs", "lr", "augment", "precision")}
        return {"how": words, "seed": self.seed, "groups": list(self.groups), **settings}


@dataclass(frozen=True)
class FolderPlan:
    """A model that is there already, in a Hugging Face folder."""

    name: str
    model: FolderModel
    identity: str
    """Digest of its weights."""
    start: str | None = None
    """Digest of the base that the suite says it was fine-tuned from."""
    checkpoints: int = 1

    @property
    def architecture(self) -> Architecture:
        return self.model.architecture

    @property
    def digests(self) -> tuple[str, ...]:
        return (self.identity,)

    def describe(self) -> dict[str, Any]:
        """Where it comes from, for the report."""
        return {"how": f"{'adapter' if self.model.is_adapter else 'folder'} {self.model.folder}", "seed": None}






def plan_folders(name: str, recipe: FolderPool) -> PoolPlan:
    """The members of a pool of folders; ``BadInput`` where a folder is no model."""
    base = _folder_plan("base", recipe.base, None) if recipe.base else None
    members = [_folder_plan(f"m{i}", folder, base) for i, folder in enumerate(recipe.members)]
    return PoolPlan(name, "fine_tunes" if base else "independent", tuple(members), base)


def _folder_plan(name: str, folder: str, base: FolderPlan | None) -> FolderPlan:
    model = FolderModel(folder, base.model.folder if base else None)
    model.check()
    return FolderPlan(name, model, model.digest, base.identity if base else None)


def plan_pool(
    name: str, recipe: TrainedPool, *, data: str, shape: Mapping[str, int], seed: int, defaults: Schedule | None = None
) -> PoolPlan:
    """The training runs of a recipe.

    Args:
        name: the pool's name in the suite.
        recipe: what the suite says.
        data: digest of the training split.
        shape: the options every architecture needs (``side``, ``classes``).
        seed: the suite's seed; every run in the pool gets its own, derived from it. Two pools share a training run,
            and its artefact, where they describe the same one.
        defaults: batch size and precision for this kind of data.
    """
    usual = defaults or Schedule(1)
    names = recipe.architecture if isinstance(recipe.architecture, list) else [recipe.architecture]
    architectures = [Architecture(n, tuple(sorted({**shape, **recipe.options}.items()))) for n in names]
    base: Source | None = None
    if recipe.base is not None:
        base = _folder_plan("base", recipe.base, None)
        architectures = [base.architecture]
    elif recipe.start == "shared_base":
        schedule = replace(usual, epochs=recipe.base_epochs)
        base = TrainingPlan("base", architectures[0], schedule, seed_of(seed, "base", 0), data)
    choices = [dict(zip(recipe.varied, values, strict=True)) for values in itertools.product(*recipe.varied.values())]
    runs = 1 if recipe.checkpoints else recipe.members
    members = []
    for index in range(runs):
        chosen = dict(choices[index % len(choices)])
        groups = chosen.pop("groups")
        schedule = replace(usual, **chosen)
        members.append(
            TrainingPlan(
                f"m{index}",
                architectures[index % len(architectures)],
                schedule,
                seed_of(seed, recipe.kind, index),
                data,
                start=_start_digest(base),
                bootstrap=recipe.bootstrap,
                checkpoints=recipe.checkpoints or 1,
                groups=(groups,) if groups else (),
                examples=recipe.examples,
            )
        )
    return PoolPlan(name, recipe.kind, tuple(members), base)


def _start_digest(base: Source | None) -> str | None:
    if base is None:
        return None
    return base.identity if isinstance(base, FolderPlan) else base.key().digest




def train_planned(plan: TrainingPlan, split: Split, store: Store, start: Member | None, device: torch.device) -> None:
    """Train as planned and store the weights and what it cost; the plan's key is the artefact."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        module = load_module(start) if start else build(plan.architecture)
    rows = _rows(plan, split)
    kept: list[int] = []
    with store.write(plan.key()) as folder:

        def keep(epoch: int) -> None:
            if epoch > plan.schedule.epochs - plan.checkpoints:
                save_weights(without_ties(module), folder / f"epoch-{epoch:03d}.safetensors")
                kept.append(epoch)

        log = train(module.to(device), split, plan.schedule, seed=plan.seed, rows=rows, after_epoch=keep)
        resample = rows if plan.bootstrap else None
        write_json(folder / "training.json", {"rows": resample, "epochs": kept, **asdict(log)})


def _rows(plan: TrainingPlan, split: Split) -> list[int]:
    """The inputs that a run sees, in the split's order, or as they were drawn for a bootstrap resample."""
    rows = torch.arange(len(split.inputs))
    if plan.groups:
        rows = torch.tensor([row for row, group in enumerate(split.groups) if group in plan.groups])
    if plan.examples and plan.examples < len(rows):
        rows = rows[torch.arange(plan.examples) * len(rows) // plan.examples]
    if plan.bootstrap:
        generator = torch.Generator().manual_seed(plan.seed)
        rows = rows[torch.randint(len(rows), (len(rows),), generator=generator)]
    return rows.tolist()


def member_of(plan: Source, store: Store, checkpoint: int = -1, name: str | None = None) -> Member:
    """The member (its last checkpoint, unless another position is asked for); weights stay on disk."""
    if isinstance(plan, FolderPlan):
        weights, start = plan.model.weights(), plan.start or plan.identity
        provenance = {"folder": plan.model.folder}
        return Member(
            plan.name, plan.architecture, weights, start, 0, provenance, plan.identity, plan.model.tokenizer
        )
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


def examined_keys(plan: Source) -> list[Key]:
    """For each member that a source leaves, the key of what was found when it was read whole for the first time."""
    code = (__name__, "harness.systems.systems", *code_of(plan.architecture))
    return [Key.of("member", code=code, member=member) for member in plan.digests]


def examine(plan: Source, member: Member, module: nn.Module, store: Store, key: Key) -> None:
    """Look a member's network through, once, and keep what a reader of its scores should know.

    Raises:
        BadInput: NaN or infinite weights; a folder's model that is no causal language model.
    """
    check_finite(member.name, module)
    notes = plan.model.examine(module) if isinstance(plan, FolderPlan) else []
    with store.write(key) as folder:
        write_json(folder / "member.json", {"notes": notes})


def notes_of(plan: Source, store: Store) -> list[str]:
    """What ``examine`` kept."""
    found = [read_json(store.path(key) / "member.json")["notes"] for key in examined_keys(plan) if store.has(key)]
    return list(dict.fromkeys(note for notes in found for note in notes))


def _member_digest(plan: TrainingPlan, epoch: int) -> str:
    return digest([plan.key().digest, epoch])








def _unread(plan: Source, identity: str, name: str) -> Member:
    if isinstance(plan, FolderPlan):
        start, seed, tokenizer = plan.start or plan.identity, 0, plan.model.tokenizer
    else:
        start, seed, tokenizer = plan.initialisation, plan.seed, None
    return Member(name, plan.architecture, _Unread(), start, seed, {}, identity, tokenizer)


class _Unread(Mapping[str, Tensor]):
    """The weights of a member that its reader said it would not touch."""

    def _refuse(self, *_: Any) -> NoReturn:
        raise UndeclaredInput("the method touches a member that its parameters do not name ('uses' says which they do)")

    __getitem__ = __iter__ = __len__ = _refuse


def training_log(plan: Source, store: Store) -> TrainingLog:
    """What training this cost; nothing, where it was there already."""
    if isinstance(plan, FolderPlan) or not store.has(plan.key()):
        return TrainingLog(0.0, 0)
    record = read_json(store.path(plan.key()) / "training.json")
    return TrainingLog(record["seconds"], record["examples"])


Source = TrainingPlan | FolderPlan


@dataclass(frozen=True)
class PoolPlan:
    """Where a pool's members come from."""

    name: str
    kind: str
    members: tuple[Source, ...]
    base: Source | None

    @property
    def groups(self) -> tuple[str, ...]:
        """What its members were trained on, each once, where that is not the whole training split."""
        trained = [member for member in self.members if isinstance(member, TrainingPlan)]
        return tuple(dict.fromkeys(group for member in trained for group in member.groups))


def seed_of(seed: int, *what: Any) -> int:
    """A seed for one thing, derived from the suite's: the same whatever else the suite holds."""
    return int(digest([seed, *what])[:12], 16)


@cache
def member_digests(plan: PoolPlan) -> tuple[str, ...]:
    """The digests of a pool's members, in order, before anything is trained."""
    return tuple(itertools.chain.from_iterable(source.digests for source in plan.members))


@cache
def base_digest(plan: PoolPlan) -> str | None:
    """The digest of a pool's base, before it is trained; None for a pool without one."""
    return plan.base.digests[-1] if plan.base else None


def load_pool(
    plan: PoolPlan, store: Store, used: Collection[int] | None = None, with_base: bool = True
) -> Pool:
    """The pool whose training runs are all in the store.

    Args:
        plan: of the pool.
        store: where what was trained is.
        used: the positions of the members that will be read, so that the others need not be there: these are known by
            what their plan says, and to touch their weights raises. All of them if None.
        with_base: whether the base is read.
    """
    digests = member_digests(plan)
    wanted = set(digests) if used is None else {digests[position] for position in used}
    by_position = [(source, i) for source in plan.members for i in range(source.checkpoints)]
    names = [f"c{i}" if plan.kind == "checkpoints" else source.name for source, i in by_position]
    members = [
        member_of(source, store, i, name) if identity in wanted else _unread(source, identity, name)
        for (source, i), identity, name in zip(by_position, digests, names, strict=True)
    ]
    base = member_of(plan.base, store) if plan.base and with_base else None
    return Pool(plan.name, plan.kind, tuple(members), base)
