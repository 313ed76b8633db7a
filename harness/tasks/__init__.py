"""Tasks: real data in three fixed splits, and what is scored on it."""

from harness.tasks.task import Documents, Task, TaskReference

__all__ = ["Documents", "Task", "TaskReference"]
