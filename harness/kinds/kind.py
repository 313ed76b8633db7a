"""The interface of a kind of task: what a batch is, how a model is run on it, and how a combination is scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
import pandas as pd
import pydantic
from torch import nn

from harness.errors import BadInput
from harness.evaluate.predictions import CachedPredictions
from harness.keys import named
from harness.models import forward
from harness.models.heads import CAUSAL, Head
from harness.models.training import plain_schedule
from harness.registry import KINDS, module_of
from harness.says import Says
from harness.store import Store
from harness.tasks.task import Documents, Task, TaskReference
from harness.types import Architecture, Combination, Unscored

if TYPE_CHECKING:
    from harness.tasks.answers import Aggregate


LACKING = "lacking"
"""The key of an evaluation's record under which stand the tasks that a system is not applicable to, each with why."""


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
    """Other values by name: one for each document, or for each of one task (``acc/sciq``); NaN where there is none."""
    aggregates: Mapping[str, Aggregate] = field(default_factory=dict)
    """Scores of whole tasks that are no means over documents, by name."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Scores as another harness gives them, by name: none may be NaN."""
    says: Says | None = None
    """What its log-probabilities mean; None: what they do wherever the combination is run (``Combination.says``)."""
    intermediate: pd.DataFrame | None = None
    """What each stage of a pipeline said of each example (``evaluate.by_stage``)."""


Reference = TypeVar("Reference", bound=TaskReference)
AnyTask = TypeVar("AnyTask", bound=Task)


class Kind(ABC, Generic[Reference, AnyTask]):
    """One kind of task; ``kind(...)`` registers an instance. Its references and tasks are of one class each.

    What networks say must not depend on how tasks are read or scored, or a change there would make all predictions
    anew: ``networks``, ``logits`` and ``schedule`` are functions of modules of their own, and keys name these.
    """

    name: ClassVar[str]
    """Also the ``kind`` of its references, and of the splits of its tasks."""
    models: ClassVar[str]
    """What one of its models is called in messages: "a network for images"."""
    key: ClassVar[str | None] = None
    """The key that says under ``task:`` of a suite that a task is of this kind; None where tasks have names only."""
    spec: ClassVar[type[pydantic.BaseModel] | None] = None
    """What a suite may say there, ``key`` included; its docstring says what it is."""
    head: ClassVar[Head] = CAUSAL
    """What models in folders end in that are for it."""
    preload: ClassVar[tuple[str, ...]] = ()
    """Modules that workers need and that take seconds to import."""
    seconds_per_input: ClassVar[float]
    """About how long training takes for one input."""
    in_one_pass: ClassVar[bool] = False
    """Whether combinations are scored together, one pass over the models that they share, and not each by itself."""
    inputs_are_scored: ClassVar[bool] = True
    """Whether test's inputs are the documents that are scored, so that what one costs is what an answer costs."""
    scored_by: ClassVar[str] = "test split"
    """Where its scores come from, for the source that results give."""

    why_no_costs: ClassVar[str | None] = None
    """Why nothing that running its models takes is counted or measured; None where it is."""

    logits = staticmethod(forward.plain)
    """``logits(module, batch)``: logits [N, C] of a batch [B, ...] on the module's device, a row for each label."""
    schedule = staticmethod(plain_schedule)
    """``schedule(epochs)``: rate, batch size and precision of training, where a suite says nothing of them."""

    @property
    def tasks(self) -> Mapping[str, str]:
        """The tasks that come with it: title and source, by the name that a suite gives."""
        return {}

    @property
    @abstractmethod
    def networks(self) -> Mapping[str, Callable[..., nn.Module]]:
        """The networks that a suite may have trained: functions of options, which say what they take, by name."""

    @property
    def loaded(self) -> Mapping[str, Callable[..., nn.Module]]:
        """Networks that only come in files, by the name of their architecture.

        A kind that has ``own_networks.own_network`` among them takes networks that functions of users' build.
        """
        return {}

    @property
    def families(self) -> Mapping[str, Callable[..., nn.Module]]:
        """All of its networks."""
        return {**self.networks, **self.loaded}

    @property
    def code(self) -> tuple[str, ...]:
        """What builds, runs and trains its networks: keys of predictions and of what is built name it."""
        functions: list[Callable[..., Any]] = [network for _, network in sorted(self.families.items())]
        functions += [self.logits, self.schedule]
        return tuple(map(named, functions))

    @abstractmethod
    def refer(self, given: Any, suite: str, folder: Path, tokenizer: str | None) -> Reference:
        """What a suite says of its task, checked: a name of ``tasks``, or an instance of ``spec``.

        Args:
            given: what stands under ``task:``.
            suite: the suite's name.
            folder: that paths are relative to.
            tokenizer: the folder whose tokenizer the models of the suite's main pool share, where they lie in one.
        """

    def folded(self, reference: Reference, fold: int) -> Reference:
        """The reference to another split of the same data: fold 0 is the split of the reference itself.

        All folds have splits of the same sizes, or near these where rows of one cluster stay together; those of one
        fold are disjoint, and over many folds every example is as often test as any other. A kind whose tasks have one
        split only, as is the default, refuses with ``BadInput``.

        Args:
            reference: as ``refer`` or ``rendered`` gives it.
            fold: from 0.
        """
        hint = "drop 'split', or say 'shared'"
        raise BadInput(f"the task '{reference.name}' has one split, which all seeds share", hint=hint)

    def rendered(self, reference: Reference, store: Store, limit: int | None, allow_code: bool) -> Reference:
        """The reference as a run is planned for it, with all that is known only once the task is fetched or rendered.

        Args:
            reference: as the suite has it.
            store: where what takes long is kept.
            limit: as in ``load``.
            allow_code: whether what the task's files name may be run.
        """
        return reference

    @abstractmethod
    def load(self, reference: Reference, store: Store, limit: int | None) -> AnyTask:
        """The task; ``limit`` keeps only the first documents (a trial run, never a verdict)."""

    def documents(self, reference: Reference, store: Store) -> Documents | None:
        """What is scored, where that is known without loading the task."""
        return None

    def why_not(self, architecture: Architecture, task: AnyTask) -> str | None:
        """Why a network that was trained elsewhere does not fit a task; None if it does."""
        options = dict(architecture.options)
        if all(options.get(key) == size for key, size in task.shape.items()):
            return None
        shapes = [", ".join(f"{key} {of.get(key)}" for key in task.shape) for of in (options, task.shape)]
        return f"the network has {shapes[0]}; the task '{task.name}' has {shapes[1]}"

    def remarks(self, architecture: Architecture, task: AnyTask) -> list[str]:
        """What a reader should know of how such a network is given the task's test examples; for most, nothing."""
        return []

    @abstractmethod
    def evaluate(
        self, combinations: Sequence[Combination], task: AnyTask, seen: AnyTask, cached: CachedPredictions
    ) -> list[Evaluation | Unscored]:
        """Score combinations on test: each, or the reason why it has no scores, in the order given.

        Args:
            combinations: all of one pool.
            task: what is scored.
            seen: the task as the pool's members were trained on it (``Task.of_groups``).
            cached: predictions of parts, made once.

        Raises:
            Exception: what is wrong with the task itself, or with the one combination that was given.
        """


def kind(declared: Kind[Any, Any]) -> Kind[Any, Any]:
    """Register a kind of task; ``ValueError`` where another has a network, a task or a key of the same name."""
    for other in KINDS.declared().values():
        if other.name == declared.name:
            continue
        for what, ours, theirs in (
            ("network", declared.families, other.families),
            ("task", declared.tasks, other.tasks),
            ("key", [declared.key or ""], [other.key] if other.key else []),
        ):
            if both := set(ours) & set(theirs):
                raise ValueError(f"the {what} '{min(both)}' is declared by the kinds '{other.name}', '{declared.name}'")
    KINDS.add(declared)
    return declared


def load_task(reference: TaskReference, store: Store, limit: int | None = None) -> Task:
    """The task that a suite names, of any kind."""
    declared = KINDS.get(reference.kind)
    task: Task = declared.load(reference, store, limit)
    if strays := [split.name for split in (task.train, task.heldout, task.test) if split.kind != declared.name]:
        raise ValueError(f"{module_of(declared)}: the split '{strays[0]}' does not name its kind, '{declared.name}'")
    return task
