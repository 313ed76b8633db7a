"""Tasks of lm-eval: their documents, the requests they make of a model, and what they say of its answers."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2.exceptions import SecurityError

from harness.errors import BadInput
from harness.store import digest, file_digest
from harness.tasks.task import Documents
from harness.tasks.trust import check_code, sandbox_templates

CHOICES = "multiple_choice"
ROLLING = "loglikelihood_rolling"


@dataclass(frozen=True)
class Rolling:
    """Log-likelihoods of whole documents of one task."""

    task: str
    ids: tuple[str, ...]
    nats: np.ndarray
    """[N] of each document."""
    bytes: np.ndarray
    """[N] in UTF-8."""


@dataclass(frozen=True)
class Answers:
    """What one system said, as lm-eval's tasks read it."""

    log_probs: np.ndarray
    """[N, C] over the choices of every multiple-choice document, ``-inf`` where a document has fewer choices."""
    metrics: dict[str, np.ndarray]
    """lm-eval's own per-document values, by "metric/task"."""
    rolling: tuple[Rolling, ...]


class Questions:
    """Several tasks of lm-eval on the first ``limit`` documents of each.

    Args:
        names: as lm-eval knows them, or as YAML files below ``include_path`` do.
        include_path: a folder of task files.
        limit: documents of each task; None for all.
        allow_code: whether what task files name may be run.

    Raises:
        BadInput: unknown names, tasks that only generate, tasks whose data cannot be had, or that would run code.
    """

    def __init__(
        self, names: Sequence[str], include_path: str | None, limit: int | None = None, *, allow_code: bool = False
    ) -> None:
        self.tasks = _build(names, include_path, limit, allow_code)

    @property
    def instances(self) -> list[Any]:
        """Every request in a fixed order, as lm-eval's instances."""
        return [instance for task in self.tasks.values() for instance in task.instances]

    @cached_property
    def documents(self) -> Documents:
        """The multiple-choice documents of all tasks, in order."""
        ids, names, labels, classes = [], [], [], 0
        for name, task in self._of_kind(CHOICES):
            for number, (doc, requests) in enumerate(_by_document(task)):
                label = task.doc_to_target(doc)
                labels.append(task.doc_to_choice(doc).index(label) if isinstance(label, str) else int(label))
                ids.append(f"{name}/{doc.get('id', number)}")
                names.append(name)
                classes = max(classes, len(requests))
        return Documents(ids, names, torch.tensor(labels), classes)

    def answers(self, log_likelihoods: Sequence[float], greedy: Sequence[bool]) -> Answers:
        """What the tasks make of the answers to all ``instances``, in their order."""
        given = iter(zip(log_likelihoods, greedy, strict=True))
        said = {id(i): next(given) for i in self.instances}
        log_probs = np.full((len(self.documents.ids), self.documents.classes), -np.inf)
        row = 0
        metrics: dict[str, np.ndarray] = {}
        for name, task in self._of_kind(CHOICES):
            values: dict[str, list[float]] = {}
            for doc, requests in _by_document(task):
                pairs = [(float(said[id(r)][0]), bool(said[id(r)][1])) for r in requests]
                log_probs[row, : len(pairs)] = _normalised([pair[0] for pair in pairs])
                row += 1
                for metric, value in task.process_results(doc, pairs).items():
                    values.setdefault(metric, []).append(float(value))
            metrics |= {f"{metric}/{name}": np.array(found) for metric, found in values.items()}
        rolling = tuple(self._rolling(name, task, said) for name, task in self._of_kind(ROLLING))
        return Answers(log_probs, metrics, rolling)

    def _rolling(self, name: str, task: Any, said: dict[int, tuple[float, bool]]) -> Rolling:
        ids, nats, sizes = [], [], []
        for number, (doc, (request,)) in enumerate(_by_document(task)):
            ids.append(f"{name}/{doc.get('id', number)}")
            nats.append(float(said[id(request)][0]))
            sizes.append(len(task.doc_to_target(doc).encode("utf-8")))
        return Rolling(name, tuple(ids), np.array(nats), np.array(sizes))

    def _of_kind(self, kind: str) -> Iterable[tuple[str, Any]]:
        return ((name, task) for name, task in self.tasks.items() if kind == task.OUTPUT_TYPE)


def _normalised(log_likelihoods: Sequence[float]) -> np.ndarray:
    """Log-probabilities over the choices, from their log-likelihoods."""
    values = np.asarray(log_likelihoods, np.float64)
    return values - np.logaddexp.reduce(values)


def _by_document(task: Any) -> list[tuple[Any, list[Any]]]:
    """The documents of a task with their requests in order."""
    found: dict[int, tuple[Any, list[Any]]] = {}
    for instance in task.instances:
        found.setdefault(instance.doc_id, (instance.doc, []))[1].append(instance)
    return [(doc, sorted(requests, key=lambda r: r.idx)) for doc, requests in found.values()]


def _build(names: Sequence[str], include_path: str | None, limit: int | None, allow_code: bool) -> dict[str, Any]:
    from lm_eval.tasks import TaskManager

    sandbox_templates()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    place = include_path or "lm-eval's own tasks"
    manager = TaskManager(include_path=include_path, include_defaults=False)
    if unknown := [name for name in names if name not in manager.all_tasks]:
        local = sorted(manager.all_tasks)
        manager = TaskManager(include_path=include_path)  # five seconds, so only where a task is lm-eval's own
        if unknown := [name for name in names if name not in manager.all_tasks]:
            raise BadInput(f"unknown task '{unknown[0]}'", place=place, given=unknown[0], choices=local)
    if not allow_code:
        check_code(manager.task_index, names)
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        try:
            built: dict[str, Any] = manager.load(list(names))["tasks"]
            for task in built.values():
                task.build_all_requests(limit=limit, rank=0, world_size=1)
        except BadInput:
            raise
        except SecurityError as error:
            raise BadInput(str(error), place=place, hint="templates are rendered in a sandbox") from None
        except Exception as error:
            hint = "a task of the hub needs network; those of suites/tasks do not"
            raise BadInput(f"the tasks cannot be loaded: {type(error).__name__}: {error}", hint=hint) from error
    for name, task in built.items():
        if task.OUTPUT_TYPE not in (CHOICES, ROLLING):
            hint = "score it with 'stockpot lm-eval'"
            raise BadInput(f"task '{name}' is of type {task.OUTPUT_TYPE}: a suite takes {CHOICES} and {ROLLING}",
                           hint=hint)  # fmt: skip
    if not any(task.OUTPUT_TYPE == CHOICES for task in built.values()):
        raise BadInput("a suite needs a multiple-choice task among its lm_eval tasks")
    return built


def questions_digest(names: Sequence[str], include_path: str | None, limit: int | None) -> str:
    """What the tasks are, without loading them: their names and files, and lm-eval's version."""
    from importlib.metadata import version

    folder = Path(include_path) if include_path else None
    files = {p.name: file_digest(p) for p in sorted(folder.glob("*")) if p.is_file()} if folder else {}
    return digest([list(names), files, limit, version("lm_eval")])
