"""The interface of a kind of task: what a batch is, how a model is run on it, and how a combination is scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pydantic
from torch import Tensor, nn

from harness.evaluate.predictions import CachedPredictions
from harness.registry import KINDS
from harness.store import Store
from harness.tasks.task import Task, TaskReference
from harness.types import Combination


class Unscored(Exception):
    """Why a combination has no scores; those that are evaluated beside it have theirs."""


@dataclass(frozen=True)
class Evaluation:
    """What a combination says on test."""

    log_probs: np.ndarray
    """[N, C] of what is scored."""
    calls: np.ndarray
    """[N, parts]: how often each of its parts ran for each of these, as ``Combination.run`` says."""
    record: Mapping[str, Any]
    """What evaluating found out besides, as JSON values."""
    measures: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Other values [N], one for each document or NaN, by name."""
    aggregates: Mapping[str, Any] = field(default_factory=dict)
    """Scores of whole tasks that are no means over documents (``tasks.answers.Aggregate``), by name."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Scores as another harness gives them, by name: none may be NaN."""


class Kind(ABC):
    """One kind of task; ``kind(...)`` registers an instance."""

    name: ClassVar[str]
    models: ClassVar[str]
    """What its models are called in messages: "a network for images"."""
    key: ClassVar[str | None] = None
    """The key that says under ``task:`` of a suite that a task is of this kind; None where tasks have names only."""
    spec: ClassVar[type[pydantic.BaseModel] | None] = None
    """What a suite may say there."""
    preload: ClassVar[tuple[str, ...]] = ()
    """Modules that workers need and that take seconds to import."""
    seconds_per_input: ClassVar[float]
    """About how long training takes for one input."""
    in_one_pass: ClassVar[bool] = False
    """Whether combinations are scored together, one pass over the models that they share, and not each by itself."""

    @property
    def tasks(self) -> Mapping[str, str]:
        """The tasks that come with it: titles by the name that a suite gives."""
        return {}

    @property
    @abstractmethod
    def networks(self) -> Mapping[str, Callable[..., nn.Module]]:
        """The networks that a suite may have trained: functions of options, which say what they take, by name."""

    @abstractmethod
    def refer(self, given: Any, suite: str, folder: Path) -> TaskReference:
        """What a suite says of its task, checked: a name of ``tasks``, or an instance of ``spec``.

        Args:
            given: what stands under ``task:``.
            suite: the suite's name.
            folder: that paths are relative to.
        """

    def rendered(self, reference: TaskReference, store: Store, limit: int | None) -> TaskReference:
        """The reference with the digest of what is asked, where only rendering it tells."""
        return reference

    @abstractmethod
    def load(self, reference: TaskReference, store: Store, limit: int | None) -> Task:
        """The task; ``limit`` keeps only the first documents (a trial run, never a verdict)."""

    @abstractmethod
    def logits(self, module: nn.Module, batch: Tensor) -> Tensor:
        """Logits [N, C] of a batch [B, ...] on the module's device."""

    @abstractmethod
    def evaluate(
        self, combinations: Sequence[Combination], task: Task, seen: Task, cached: CachedPredictions
    ) -> list[Evaluation | Unscored]:
        """Score combinations on test.

        Args:
            combinations: all of one pool.
            task: what is scored.
            seen: the task as the pool's members were trained on it (``Task.of_groups``).
            cached: predictions of parts, made once.
        """


def kind(declared: Kind) -> Kind:
    """Register a kind of task."""
    KINDS.add(declared)
    return declared
