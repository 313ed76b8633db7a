"""What all stages of a run share: where artefacts are, what is asked, how much of it, and where it is computed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from harness import tasks
from harness.store import Store
from harness.tasks import Documents, Task, TaskReference
from harness.tasks.asked import read_documents


@dataclass(frozen=True)
class Setting:
    """What all stages of a run share."""

    folder: Path
    """Of the store."""
    task: TaskReference
    limit: int | None
    device: str
    machine: str
    """The digest of the driver's machine, which is in the keys of costs: workers do not make it anew."""

    @property
    def store(self) -> Store:
        return Store(self.folder)


@dataclass(frozen=True)
class Data:
    """The digests of the splits and of what is scored, and how many inputs are run at once."""

    train: str
    heldout: str
    test: str
    scored: str
    batch: int

    @classmethod
    def of(cls, task: Task) -> Data:
        return cls(task.train.digest, task.heldout.digest, task.test.digest, task.digest, task.test.batch)


@lru_cache(maxsize=8)
def task_of(setting: Setting, groups: tuple[str, ...] = ()) -> Task:
    """The task, or that of a pool whose members were trained on these groups; kept by each process."""
    if groups:
        return task_of(setting).of_groups(groups)
    return tasks.load(setting.task, setting.store, setting.limit)


@lru_cache(maxsize=2)
def documents_of(setting: Setting) -> Documents:
    """What is scored, kept by each process; of lm-eval's tasks what planning left, since lm-eval takes seconds."""
    kept = read_documents(setting.task.asked, setting.store) if setting.task.asked else None
    return kept or task_of(setting).documents
