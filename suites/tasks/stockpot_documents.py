"""The documents of the tasks in this folder, as lm-eval wants them: one test split of a ``datasets`` dictionary."""

from datasets import Dataset

from harness.tasks import documents


def cloze(domain, count=500, **_):
    """Which of four continuations follows a passage?"""
    return {"test": Dataset.from_list(documents.cloze(domain, count=count))}


def passages(domain, count=40, **_):
    """Passages for bits per byte."""
    return {"test": Dataset.from_list(documents.passages(domain, count=count))}


def standard(name, count=None, **_):
    """A standard set's validation rows, or ``count`` of them, from the data archive."""
    return {"test": Dataset.from_list(documents.standard(name, count))}
