"""Tasks: real data in three fixed splits, and what is scored on it."""

from dataclasses import replace

from harness.store import Store
from harness.tasks import asked, images, text
from harness.tasks.images import TASKS
from harness.tasks.task import Documents, Task, TaskReference

__all__ = ["TASKS", "Documents", "Task", "TaskReference", "load", "rendered"]


def load(reference: TaskReference, store: Store, limit: int | None = None) -> Task:
    """The task that a suite names; ``limit`` keeps only the first documents (a trial run, never a verdict)."""
    if reference.kind == "text":
        return text.load(reference, store, limit)
    return images.load(reference.name, store, limit)


def rendered(reference: TaskReference, store: Store, limit: int | None = None) -> TaskReference:
    """The reference with the digest of what its tasks of lm-eval ask; ``BadInput`` where a suite cannot take them."""
    if reference.kind == "images":
        return reference
    names, folder, allow_code = reference.lm_eval, reference.include_path, reference.allow_code
    return replace(reference, asked=asked.asked(names, folder, limit, store, allow_code=allow_code))
