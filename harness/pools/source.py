"""The interface of a source of members: where models come from, and what is known of them before anything has run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import pydantic
import torch
from torch import Tensor

from harness.keys import Key, code_version, digest
from harness.models.weights import check_finite
from harness.registry import SOURCES
from harness.says import Says
from harness.store import Store
from harness.types import Architecture, Member, Part, Tokenizer

if TYPE_CHECKING:
    from harness.tasks.task import Task

Known = TypeVar("Known")


@dataclass(frozen=True)
class MemberPlan(ABC):
    """One model, or the checkpoints of one training run, planned: its names, keys and cost are known beforehand.

    Instances can be hashed and pickled. A source's own are frozen dataclasses of this one.
    """

    name: str
    architecture: Architecture
    seed: int = field(default=0, kw_only=True)
    base: MemberPlan | None = field(default=None, kw_only=True)
    """What it is made from, which has to be prepared before it."""
    groups: tuple[str, ...] = field(default=(), kw_only=True)
    """The groups of the task (``Task.groups``) that it is trained on; all of it if empty."""

    verb: ClassVar[str] = "read"
    """What preparing it does, for the names of jobs."""

    @property
    @abstractmethod
    def identities(self) -> tuple[str, ...]:
        """What identifies each member that it leaves, in time order, before it is there.

        All that the member's numbers depend on (settings, seed, files' digests), but for the code, which ``digests``
        have: draws that are random about it stay the same when code is changed (``Member.draws``).
        """

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """Of each member; the module of the plan is in it, since it makes and reads the member's weights."""
        code = code_version(type(self).__module__)
        return tuple(digest([code, identity]) for identity in self.identities)

    def __getstate__(self) -> dict[str, Any]:
        """What was said of it, and no digest: a worker names what it makes after the code that it has loaded itself."""
        return {of.name: getattr(self, of.name) for of in fields(self)}

    @property
    def start(self) -> str:
        """What names the initialisation: members that share it may be averaged. By default its base, or itself."""
        return (self.base or self).body

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Of a language model that brings its own."""
        return None

    @property
    def says(self) -> Says:
        """What is known of its answers."""
        return "probabilities"

    @property
    def why_no_weights(self) -> str | None:
        """Why there is nothing to average; None where it has weights."""
        return None

    @property
    def folder(self) -> Path | None:
        """The folder whose tokenizer and settings go along with the model when it is exported, where it has one."""
        return None

    @property
    def dtype(self) -> str | None:
        """The precision that its weights are stored in; None of a model that is made here, in float32."""
        return None

    @property
    def body(self) -> str:
        """What names it as a start: members that were trained from bodies of one name may be averaged."""
        return self.digests[-1]

    @property
    def preload(self) -> tuple[str, ...]:
        """Modules that workers need for it and that take seconds to import."""
        return self.base.preload if self.base else ()

    def keys(self) -> tuple[Key, ...]:
        """The artefacts that preparing it leaves, besides its predictions."""
        return ()

    def seconds(self, task: Task, per_input: float) -> float:
        """About how long preparing it takes.

        Args:
            task: that of its groups.
            per_input: seconds that training on one input takes.
        """
        return 1.0

    def check(self, task: Task, pool: str) -> None:
        """``BadInput`` where it is no model for this task; ``pool`` is the pool's name, for the message."""

    def reads(self, task: Task) -> bool:
        """Whether the inputs of the task say anything to it: token windows do not, in another tokenizer's tokens."""
        return True

    def prepare(self, task: Task, store: Store, device: torch.device) -> None:
        """Make it, unless it is there (``keys``); its base has been prepared. The task is that of its groups."""

    @abstractmethod
    def weights(self, store: Store, position: int) -> Mapping[str, Tensor]:
        """The tensors of one of its members by name, read from disk (or made) only as they are touched."""

    def provenance(self, store: Store, position: int) -> Mapping[str, Any]:
        """How it was made, as ``Member.provenance``."""
        return {}

    def member(self, store: Store, position: int = -1, name: str | None = None) -> Member:
        """One of the members that it leaves, by its position among them."""
        weights, provenance = self.weights(store, position), self.provenance(store, position)
        return Member(
            name or self.name,
            self.architecture,
            weights,
            self.start,
            self.seed,
            provenance,
            self.digests[position],
            self.tokenizer,
            self.identities[position],
            self.says,
        )

    def check_unchanged(self) -> None:
        """``BadInput`` where the files that it reads are not those that were planned. Cheap when it is called again."""
        if self.base:
            self.base.check_unchanged()

    def examine(self, part: Part) -> list[str]:
        """Look one of its members through, once; returns sentences that a reader of its scores should know.

        Raises:
            BadInput: where it cannot be used (NaN or infinite weights).
        """
        check_finite(part.name, part.module)
        return []

    def spent(self, store: Store) -> float:
        """The seconds that training it took; 0 where it was there already."""
        return 0.0

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Where it comes from, for the report: ``how`` in words, ``seed`` (or None), and settings."""


@dataclass(frozen=True)
class PoolPlan:
    """The planned members of one pool."""

    name: str
    kind: str
    """How they differ (``types.Pool.kind``)."""
    members: tuple[MemberPlan, ...]
    base: MemberPlan | None

    def __hash__(self) -> int:
        return self._hash  # of a thousand members, and asked for with every variant

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.kind, self.members, self.base))

    def __getstate__(self) -> dict[str, Any]:
        """What was said of it: hashes and digests are another process's own."""
        return {of.name: getattr(self, of.name) for of in fields(self)}

    @property
    def everyone(self) -> tuple[MemberPlan, ...]:
        """The base, where there is one, then the members."""
        return (self.base, *self.members) if self.base else self.members

    @cached_property
    def by_position(self) -> tuple[MemberPlan, ...]:
        """Of each member the plan that leaves it; a plan of several stands there as often."""
        return tuple(planned for planned in self.members for _ in planned.digests)

    def sources(self, positions: Iterable[int]) -> tuple[MemberPlan, ...]:
        """The plans that leave the members at these positions, each once."""
        return tuple({id(planned): planned for planned in map(self.by_position.__getitem__, positions)}.values())

    def once(self, what: Hashable, make: Callable[[], Known]) -> Known:
        """What ``make`` gives, made once: thousands of variants ask the same of a thousand members.

        Args:
            what: names it, and all that it depends on besides this plan, which keeps it.
            make: called the first time.
        """
        if what not in self._known:
            self._known[what] = make()
        found: Known = self._known[what]
        return found

    @cached_property
    def _known(self) -> dict[Hashable, Any]:
        return {}

    @property
    def groups(self) -> tuple[str, ...]:
        """What its members are trained on, each once, where that is not the whole training split."""
        return tuple(dict.fromkeys(group for member in self.members for group in member.groups))


class PoolSource(ABC):
    """One source of members; ``source(...)`` registers an instance."""

    name: ClassVar[str]
    """Also its key under ``pool:`` of a suite."""
    spec: ClassVar[type[pydantic.BaseModel]]
    """What a suite says there; strict (``model_config = harness.strict.model.STRICT``)."""

    @abstractmethod
    def size(self, spec: Any) -> int:
        """How many members the pool has."""

    @abstractmethod
    def plan(self, name: str, spec: Any, task: Task, seed: int) -> PoolPlan:
        """The members, planned; each is then checked against the task (``MemberPlan.check``).

        Args:
            name: the pool's name in the suite.
            spec: an instance of ``spec``.
            task: what they are for.
            seed: the suite's seed.

        Raises:
            BadInput: where there are no such members, or they are not for the task; by default its place is the suite.
        """

    def check(self, spec: Any, place: Callable[..., str]) -> None:
        """``BadInput`` for what is wrong by the suite alone: settings that contradict, unknown names.

        Args:
            spec: an instance of ``spec``.
            place: ``file:line`` of a key of it, for the message: ``place("members", 0)``.
        """

    def base(self, spec: Any) -> str | None:
        """The folder of the model that the members are fine-tuned from, where the suite names one."""
        return None

    def tokenizer(self, spec: Any) -> str | None:
        """The folder whose tokenizer the models share; None where the task's is for them."""
        return self.base(spec)

    def folders(self, spec: Any) -> Mapping[str, str]:
        """The folders of its models, by the names that the models get; none where it makes them."""
        return {}

    def beside(self, spec: Any, folder: Path) -> Any:
        """The spec with its paths, which are relative to the suite file, as seen from here."""
        return spec

    def candidate(self, spec: Any, path: Path) -> Any:
        """The spec of a pool of the one model that a candidate for a release is; None: it is a folder of weights."""
        return None

    def runs(self, spec: Any) -> str | None:
        """The code of the user's that planning and running it runs, as the suite names it; None where there is none.

        Without --allow-code the suite is refused before anything is planned.
        """
        return None

    def fetched(self, spec: Any) -> Any:
        """The spec with folders in the place of archives' names; what is not there yet is fetched."""
        return spec


@dataclass(frozen=True)
class AskedPool:
    """A pool as a suite asks for it: what it says, and the source that understands it."""

    source: PoolSource
    spec: Any

    @property
    def size(self) -> int:
        return self.source.size(self.spec)

    @property
    def folders(self) -> Mapping[str, str]:
        """As ``PoolSource.folders``."""
        return self.source.folders(self.spec)

    def plan(self, name: str, task: Task, seed: int) -> PoolPlan:
        """The members, planned and checked; arguments and errors as ``PoolSource.plan``."""
        planned = self.source.plan(name, self.spec, task, seed)
        for member in planned.everyone:
            member.check(task, name)
        return planned

    def beside(self, folder: Path) -> AskedPool:
        """As ``PoolSource.beside``."""
        return replace(self, spec=self.source.beside(self.spec, folder))

    def fetched(self) -> AskedPool:
        """As ``PoolSource.fetched``."""
        return replace(self, spec=self.source.fetched(self.spec))


def source(declared: PoolSource) -> PoolSource:
    """Register a source of members under its name, which suites then take under ``pool:``.

    Raises:
        TypeError: a name that no key can have, or a spec that would take whatever a suite says.
    """
    if not declared.name.isidentifier() or hasattr(pydantic.BaseModel, declared.name):
        raise TypeError(f"'{declared.name}' cannot be the name of a source of members")
    config = declared.spec.model_config
    if config.get("extra") != "forbid" or not config.get("strict"):
        hint = "give it model_config = harness.strict.model.STRICT"
        raise TypeError(f"the spec of the source '{declared.name}' takes whatever a suite says: {hint}")
    SOURCES.add(declared)
    return declared
