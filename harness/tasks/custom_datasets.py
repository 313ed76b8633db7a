"""The documents of the tasks in suites/tasks, as lm-eval wants a ``custom_dataset``: one test split."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from harness.tasks import documents


def cloze(domain: str, count: int = 500, **_: Any) -> dict[str, Dataset]:
    """Which of four continuations follows a passage?"""
    return {"test": Dataset.from_list(documents.cloze(domain, count=count))}


def passages(domain: str, count: int = 40, **_: Any) -> dict[str, Dataset]:
    """Passages for bits per byte."""
    return {"test": Dataset.from_list(documents.passages(domain, count=count))}


def standard(name: str, count: int | None = None, **_: Any) -> dict[str, Dataset]:
    """A standard set's validation rows, or ``count`` of them, from the data archive."""
    return {"test": Dataset.from_list(documents.standard(name, count))}
