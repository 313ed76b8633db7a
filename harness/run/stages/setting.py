"""What all stages of a run share: where artefacts are, what is asked, how much of it, and where it is computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.keys import digest
from harness.kinds.kind import Kind, load_task
from harness.registry import KINDS
from harness.store import Store
from harness.tasks import Documents, Task, TaskReference
from harness.types import Criterion


@dataclass(frozen=True)
class Setting:
    """What all stages of a seed share, and those of a run where all seeds have one split."""

    folder: Path
    """Of the store."""
    task: TaskReference
    """The split of its seed; of a whole run, that of the first."""
    limit: int | None
    device: str
    machine: str
    """The digest of the driver's machine, which is in the keys of costs: workers do not make it anew."""
    criterion: Criterion | None = None
    """What held-out choices go by, where the suite's score says it; None: what the kind of data has (``Split``)."""
    folds: tuple[tuple[int, TaskReference], ...] = ()
    """Where every seed of the suite has a split of its own: each seed with its split."""
    memory: int | None = None
    """Bytes that one worker may hold; None for the usual share of what is free."""
    shared: str | None = None
    """The URL of what machines without a common folder share artefacts through; None where they need not."""

    def of(self, seed: int) -> Setting:
        """That of a seed."""
        return replace(self, task=dict(self.folds)[seed]) if self.folds else self

    @property
    def store(self) -> Store:
        return Store(self.folder, self.shared)

    @property
    def kind(self) -> Kind[Any, Any]:
        """Of the task."""
        return KINDS.get(self.task.kind)


@dataclass(frozen=True)
class Data:
    """The digests of the splits and of what is scored, and how many inputs are run at once."""

    train: str
    heldout: str
    test: str
    scored: str
    batch: int
    kind: str
    settings: str = ""
    """The digest of how models that are made for the task write, where a file says that."""

    @classmethod
    def of(cls, task: Task) -> Data:
        train, heldout, test = task.train, task.heldout, task.test
        settings = getattr(task, "settings", "")
        return cls(train.digest, heldout.digest, test.digest, task.digest, test.batch, test.kind, settings)


@lru_cache(maxsize=8)
def task_of(setting: Setting, groups: tuple[str, ...] = ()) -> Task:
    """The task, or that of a pool whose members were trained on these groups; kept by each process."""
    task: Any
    if groups:
        task = task_of(replace(setting, criterion=None)).of_groups(groups)
    else:
        task = load_task(setting.task, setting.store, setting.limit)
    if setting.criterion in (None, task.heldout.criterion):
        return task
    chosen = digest([task.heldout.digest, setting.criterion])
    return replace(task, heldout=replace(task.heldout, criterion=setting.criterion, digest=chosen))


@lru_cache(maxsize=32)  # of a suite whose seeds have splits of their own, what puts seeds together asks for all
def documents_of(setting: Setting) -> Documents:
    """What is scored, kept by each process."""
    return setting.kind.documents(setting.task, setting.store) or task_of(setting).documents
