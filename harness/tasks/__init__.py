"""Tasks: real labelled data in three fixed splits."""

from harness.tasks.images import TASKS, Task, load

__all__ = ["TASKS", "Task", "load"]
