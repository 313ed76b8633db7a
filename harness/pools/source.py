"""The interface of a source of members: where models come from, and what is known of them before anything has run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pydantic
import torch

from harness.registry import SOURCES
from harness.store import Key, Store
from harness.tasks.task import Task
from harness.types import Architecture, Member


class MemberPlan(ABC):
    """One model, or the checkpoints of one training run, planned: its names, keys and cost are known beforehand.

    Instances can be hashed and pickled.
    """

    name: str
    verb: ClassVar[str] = "read"
    """What preparing it does, for the names of jobs."""

    @property
    @abstractmethod
    def architecture(self) -> Architecture: ...

    @property
    @abstractmethod
    def digests(self) -> tuple[str, ...]:
        """What each member that it leaves says and reads, in time order, before it is there."""

    @property
    def base(self) -> MemberPlan | None:
        """What has to be prepared before it."""
        return None

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of the task (``Task.groups``) that it was trained on; all of it if empty."""
        return ()

    def keys(self) -> tuple[Key, ...]:
        """The artefacts that preparing it leaves, besides its predictions."""
        return ()

    def seconds(self, task: Task) -> float:
        """About how long preparing it takes."""
        return 1.0

    def check(self, task: Task) -> None:
        """``BadInput`` where it is no model for this task."""

    def prepare(self, task: Task, store: Store, device: torch.device) -> None:
        """Make it, unless it is there (``keys``); the task is that of its groups."""

    @abstractmethod
    def member(self, store: Store, position: int = -1, name: str | None = None) -> Member:
        """One of the members that it leaves; weights stay on disk until they are touched."""

    def notes(self, member: Member, module: torch.nn.Module) -> list[str]:
        """What a reader of its scores should know, from its network."""
        return []

    def spent(self, store: Store) -> float:
        """The seconds that training it took; 0 where it was there already."""
        return 0.0

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Where it comes from, for the report: ``how`` in words, ``seed``, and settings."""


@dataclass(frozen=True)
class PoolPlan:
    """The planned members of one pool."""

    name: str
    kind: str
    """How they differ (``types.Pool.kind``)."""
    members: tuple[MemberPlan, ...]
    base: MemberPlan | None


class PoolSource(ABC):
    """One source of members; ``source(...)`` registers an instance."""

    name: ClassVar[str]
    """Also its key under ``pool:`` of a suite."""
    spec: ClassVar[type[pydantic.BaseModel]]
    """What a suite says there."""

    @abstractmethod
    def size(self, spec: Any) -> int:
        """How many members the pool has."""

    @abstractmethod
    def plan(self, name: str, spec: Any, task: Task, seed: int) -> PoolPlan:
        """The members, planned.

        Args:
            name: the pool's name in the suite.
            spec: an instance of ``spec``.
            task: what they are for.
            seed: the suite's seed.

        Raises:
            BadInput: where there are no such members, or they are not for the task.
        """

    def contradiction(self, spec: Any) -> tuple[str, str] | None:
        """The key and the sentence of a setting that contradicts another; None where none does."""
        return None

    def beside(self, spec: Any, folder: Path) -> Any:
        """The spec with its paths, which are relative to the suite file, as seen from here."""
        return spec

    def fetched(self, spec: Any) -> Any:
        """The spec with folders in the place of archives' names; what is not there yet is fetched."""
        return spec


def source(declared: PoolSource) -> PoolSource:
    """Register a source of members under its name, which suites then take under ``pool:``."""
    SOURCES.add(declared)
    return declared

