"""Tasks of lm-eval: their documents, and the requests they make of a model."""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import logging
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jinja2.exceptions import SecurityError

from harness.errors import BadInput
from harness.tasks.data_files import read_by_content
from harness.tasks.task import Documents
from harness.tasks.trust import check_code, sandbox_templates

CHOICES = "multiple_choice"
ROLLING = "loglikelihood_rolling"
WRITTEN = "generate_until"
RIGHT = 1
"""The class of a written answer that is right; the other one, 0, is wrong."""
BITS = "bits_per_byte"
CLUSTER = "cluster"
"""The column of a task's documents that says which of them belong together."""


@dataclass(frozen=True)
class Question:
    """One document of a task, and what is asked about it."""

    id: str
    """Unique among all tasks: the task's name with the document's own ``id``, or its position."""
    doc: Any
    requests: list[Any]
    """lm-eval's instances in order."""


class Questions:
    """Several tasks of lm-eval on the first ``limit`` documents of each, as ``simple_evaluate`` asks them.

    Args:
        names: as lm-eval knows them, or as YAML files below ``include_path`` do.
        include_path: a folder of task files.
        limit: documents of each task; None for all.
        allow_code: whether what task files name may be run.

    Raises:
        BadInput: unknown names, tasks whose data cannot be had or that would run code, documents without one right
            choice.
    """

    def __init__(
        self, names: Sequence[str], include_path: str | None, limit: int | None = None, *, allow_code: bool = False
    ) -> None:
        with as_lm_eval():
            loaded = _build(names, include_path, limit, allow_code)
            self.tasks: dict[str, Any] = loaded["tasks"]
            self.groups: dict[str, Any] = loaded["groups"]
            self.local: bool = loaded["local"]
            """Whether all of it was found below ``include_path``, without lm-eval's own tasks."""
            self.of = {name: _questions(name, task, limit) for name, task in self.tasks.items()}
            self.choices = {
                name: [_choices(task, question) for question in self.of[name]] for name, task in self.of_kind(CHOICES)
            }
            """The choices of every document of each multiple-choice task."""
            self.documents = self._written() if self.prompts and not self.choices else self._documents()
            """The multiple-choice documents of all tasks, in order; where no task has choices, those that are answered
            in writing."""

    @property
    def instances(self) -> list[Any]:
        """Every request that is answered by log-likelihoods in a fixed order, as lm-eval's instances."""
        asked = (task for task in self.tasks.values() if task.OUTPUT_TYPE != WRITTEN)
        return [instance for task in asked for instance in task.instances]

    @property
    def prompts(self) -> list[Any]:
        """Every request that is answered in writing, one for each document in order, as lm-eval's instances."""
        return [question.requests[0] for name, _ in self.of_kind(WRITTEN) for question in self.of[name]]

    def _written(self) -> Documents:
        """Documents of which it is only known whether an answer is right: their label is ``RIGHT``."""
        asked = [(name, question) for name, _ in self.of_kind(WRITTEN) for question in self.of[name]]
        questions = [question for _, question in asked]
        notes = [
            "answers are written: one is right where the first metric of its task, under the task's first filter, is "
            "1, and accuracy is the share of these",
            "what a model runs to write an answer is counted as one call, at the cost of one window of text; the "
            "tokens that were generated are in scores.parquet (generated_tokens)",
        ]
        passages = [question for name, _ in self.of_kind(ROLLING) for question in self.of[name]]
        measured = {BITS: _clusters(passages)} if passages else {}
        labels = torch.full((len(asked),), RIGHT, dtype=torch.int64)
        ids, names = [question.id for question in questions], [name for name, _ in asked]
        return Documents(ids, names, labels, RIGHT + 1, notes, _clusters(questions), measured, written=True)

    def _documents(self) -> Documents:
        ids, names, labels, classes = [], [], [], 0
        for name, _ in self.of_kind(CHOICES):
            for question, choices in zip(self.of[name], self.choices[name], strict=True):
                labels.append(_label(self.tasks[name], question, choices))
                ids.append(question.id)
                names.append(name)
                classes = max(classes, len(choices))
        own = [name for name, task in self.of_kind(CHOICES) if callable(task.get_config("process_results"))]
        notes = [
            f"{name} is scored by a function of its own, in the metrics named after it; accuracy and NLL are of its "
            "most likely choice and its doc_to_target"
            for name in own
        ]
        asked = [question for name, _ in self.of_kind(CHOICES) for question in self.of[name]]
        passages = [question for name, _ in self.of_kind(ROLLING) for question in self.of[name]]
        measured = {BITS: _clusters(passages)} if passages else {}
        truth = torch.tensor(labels, dtype=torch.int64)
        return Documents(ids, names, truth, classes, notes, _clusters(asked), measured)

    def of_kind(self, kind: str) -> Iterable[tuple[str, Any]]:
        """The tasks of an output type, by name."""
        return ((name, task) for name, task in self.tasks.items() if kind == task.OUTPUT_TYPE)


def _clusters(questions: Sequence[Question]) -> list[str]:
    """What the column ``cluster`` of their documents says; a document without counts as one. Empty if none has it."""
    said = [cluster_of(question) for question in questions]
    return [each or question.id for question, each in zip(questions, said, strict=True)] if any(said) else []


def cluster_of(question: Question) -> str | None:
    """The cluster that a document names; None where it names none."""
    said = question.doc.get(CLUSTER) if isinstance(question.doc, dict) else None
    return None if said is None else f"{CLUSTER} {said}"


@contextlib.contextmanager
def as_lm_eval() -> Iterator[None]:
    """The random states that ``simple_evaluate`` starts from; those from before come back afterwards.

    What tasks print, and the bars of what they read, is nobody's business: the data of a command are on stdout.
    """
    from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

    plain, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(DEFAULT_RANDOM_SEED)
        np.random.seed(DEFAULT_OTHER_SEED)
        torch.default_generator.manual_seed(DEFAULT_OTHER_SEED)
        try:
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                yield
        finally:
            random.setstate(plain)
            np.random.set_state(arrays)


def canonical(value: Any) -> str:
    """A document as text: equal texts are equal documents, also where these hold NaN."""

    def plain(item: Any) -> Any:
        if isinstance(item, bytes):
            return item.hex()
        if hasattr(item, "tolist"):
            return item.tolist()
        return item.isoformat() if hasattr(item, "isoformat") else type(item).__name__

    return json.dumps(value, sort_keys=True, default=plain)


def _build(names: Sequence[str], include_path: str | None, limit: int | None, allow_code: bool) -> dict[str, Any]:
    """Load the tasks and render their requests: nothing else reads a task file or calls a function that it names."""
    sandbox_templates()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    place = include_path or "lm-eval's own tasks"
    manager, local = _manager(names, include_path)
    if not allow_code:
        check_code(manager.task_index, names)
    try:
        with read_by_content():
            loaded: dict[str, Any] = dict(manager.load(list(names)))
        for task in loaded["tasks"].values():
            _check_kind(task)
            _prepare(task)
        for task in loaded["tasks"].values():
            task.build_all_requests(limit=limit, rank=0, world_size=1)
    except BadInput:
        raise
    except SecurityError as error:
        raise BadInput(str(error), place=place, hint="templates are rendered in a sandbox") from None
    except (Exception, SystemExit) as error:  # functions of tasks, where they may run, are others' code
        hint = "are its data on the hub? That needs network" if isinstance(error, OSError) else None
        what = f"the tasks cannot be loaded: {type(error).__name__}: {error}"
        raise BadInput(what, place=place, hint=hint) from error
    return {**loaded, "local": local}


def _manager(names: Sequence[str], include_path: str | None) -> tuple[Any, bool]:
    """lm-eval's index of tasks, and whether it is of ``include_path`` only.

    Its own tasks take five seconds to index. They are left out where every name is a task of the folder: the members of
    a group or a tag may be among them.
    """
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import Kind

    manager = TaskManager(include_path=include_path, include_defaults=False)
    index = manager.task_index
    if all(name in index and index[name].kind in (Kind.TASK, Kind.PY_TASK) for name in names):
        return manager, True
    manager = TaskManager(include_path=include_path)
    if unknown := [name for name in names if name not in manager.all_tasks]:
        place = include_path or "lm-eval's own tasks"
        near = difflib.get_close_matches(unknown[0], manager.all_tasks, n=3)  # all are 14,000
        raise BadInput(f"unknown task '{unknown[0]}'", place=place, given=unknown[0], choices={*index, *near})
    return manager, False


def _check_kind(task: Any) -> None:
    """``BadInput`` for a task that a suite cannot take whatever its documents are."""
    place = f"task '{task.task_name}'"
    if task.OUTPUT_TYPE not in (CHOICES, ROLLING, WRITTEN):
        raise BadInput(f"{place} is of type {task.OUTPUT_TYPE}: a suite takes {CHOICES}, {ROLLING} and {WRITTEN}",
                       hint="score it with 'stockpot lm-eval'")  # fmt: skip
    if getattr(task, "MULTIMODAL", False):
        raise BadInput(f"{place} asks about images or sound: a suite takes text")
    if getattr(task, "UNSAFE_CODE", False):
        raise BadInput(f"{place} is marked as unsafe: it runs code that a model wrote")
    if task.OUTPUT_TYPE == CHOICES and not hasattr(task, "doc_to_choice"):
        raise BadInput(f"{place} is a Python class that does not say its choices")


def _prepare(task: Any) -> None:
    """What ``simple_evaluate`` sets of every task: the number of examples, and the seed they are drawn with."""
    from lm_eval.defaults import DEFAULT_OTHER_SEED

    if task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)


def _questions(name: str, task: Any, limit: int | None) -> list[Question]:
    """The documents of a task with their requests, in order.

    lm-eval reads the documents again when it scores the answers. Where that gives others, its scores are of no answer
    to them: such a task is refused.
    """
    requests: dict[int, list[Any]] = {}
    for instance in task.instances:
        requests.setdefault(instance.doc_id, []).append(instance)
    docs = list(task.doc_iterator(rank=0, limit=limit, world_size=1))
    for number, doc in docs:
        if number not in requests:
            raise BadInput(f"task '{name}': document {number} has no choices")
        if task.OUTPUT_TYPE == WRITTEN and len(requests[number]) > 1:
            raise BadInput(f"task '{name}': document {number} is asked {len(requests[number])} things to be written")
        if canonical(doc) != canonical(requests[number][0].doc):
            raise BadInput(f"task '{name}': its documents are others each time they are read",
                           hint="does process_docs draw at random?")  # fmt: skip
    own = [str(doc["id"]) if isinstance(doc, Mapping) and "id" in doc else None for _, doc in docs]
    unique = None not in own and len(set(own)) == len(own)
    return [
        Question(f"{name}/{own[position] if unique else number}", doc, sorted(requests[number], key=lambda r: r.idx))
        for position, (number, doc) in enumerate(docs)
    ]


def _choices(task: Any, question: Question) -> list[str]:
    """The choices of a document; those that ``acc_mutual_info`` asks again without the context are not counted."""
    choices: list[str] = task.doc_to_choice(question.doc)
    asked = len(question.requests)
    if asked not in (len(choices), 2 * len(choices)):
        raise BadInput(f"document '{question.id}' has {asked} requests for {len(choices)} choices")
    return choices


def _label(task: Any, question: Question, choices: Sequence[str]) -> int:
    """The position of the right choice, as lm-eval's own ``process_results`` reads it."""
    gold = task.doc_to_text(question.doc) if task.multiple_input else task.doc_to_target(question.doc)
    if isinstance(gold, list) and len(gold) == 1 and task.multiple_target:
        gold = gold[0]
    if isinstance(gold, list):
        raise BadInput(f"document '{question.id}' has {len(gold)} right choices: a suite takes one")
    place = choices.index(gold) if isinstance(gold, str) and gold in choices else gold
    if not isinstance(place, int) or not 0 <= place < len(choices):
        raise BadInput(f"document '{question.id}' has the label {gold!r}, which is none of its {len(choices)} choices",
                       hint="labels count from 0, or are a choice's text")  # fmt: skip
    return int(place)
