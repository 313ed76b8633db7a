"""Tasks: real data in three fixed splits, and what is scored on it."""

from harness.store import Store
from harness.tasks import images, text
from harness.tasks.images import TASKS
from harness.tasks.task import Documents, Task, TaskReference

__all__ = ["TASKS", "Documents", "Task", "TaskReference", "load"]


def load(reference: TaskReference, store: Store, limit: int | None = None) -> Task:
    """The task that a suite names; ``limit`` keeps only the first documents (a trial run, never a verdict)."""
    if reference.kind == "text":
        return text.load(reference, store, limit)
    return images.load(reference.name, store, limit)
