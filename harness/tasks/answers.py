"""What lm-eval's tasks say of a system's answers: its value of every document, and its score of every task."""

from __future__ import annotations

import contextlib
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from harness.errors import BadInput
from harness.tasks.questions import BITS, CHOICES, RIGHT, ROLLING, WRITTEN, Question, Questions, as_lm_eval, canonical

DRAWS = 1000
"""Resamples behind the interval of a score that is no mean: sklearn's F1 takes a millisecond for each."""
NONE = "none"
"""What lm-eval calls the filter of a task that names none."""


Texts = Sequence[str]
"""What is written in answer to one request: as many texts as the task asks for (lm-eval's ``repeats``)."""
Said = Mapping[int, tuple[float, bool] | Texts]
"""What one system says, by the instance: log-likelihood and whether it is its first choice, or texts."""


@dataclass(frozen=True)
class Rolling:
    """Log-likelihoods of whole documents of one task."""

    task: str
    ids: tuple[str, ...]
    nats: np.ndarray
    """[N] of each document."""
    bytes: np.ndarray
    """[N] in UTF-8, as the task counts them."""


@dataclass(frozen=True)
class Aggregate:
    """A score of many documents that is not the mean of a value of each, such as F1."""

    value: float
    draws: np.ndarray
    """[D] the same of documents drawn with replacement, the same ones for every system; NaN where it has no value."""
    n: int
    """Documents."""


@dataclass(frozen=True)
class Answers:
    """What one system said, as lm-eval's tasks read it. Names are "metric/task", or "metric,filter/task"."""

    log_probs: np.ndarray
    """[N, C] over the choices of every multiple-choice document, ``-inf`` where a document has fewer choices; of
    documents that are answered in writing [N, 2], all for right or all for wrong."""
    metrics: dict[str, np.ndarray]
    """Values of each document of a task, whose mean is lm-eval's score; NaN where the task says nothing of one."""
    aggregates: dict[str, Aggregate]
    """The scores of tasks that are no such mean, and those of groups."""
    rolling: list[Rolling]
    scores: dict[str, float]
    """lm-eval's score of every task and metric."""


@dataclass(frozen=True)
class _Values:
    """What a task says of its documents under one metric and filter."""

    metric: str
    filter: str
    items: dict[int, Any]
    """By the document's position; lm-eval's own values, of any type."""
    aggregation: Callable[[list[Any]], Any]

    @property
    def name(self) -> str:
        return self.metric if self.filter == NONE else f"{self.metric},{self.filter}"

    def aggregate(self, rows: Sequence[int] | None = None) -> float:
        """lm-eval's score of all documents that have a value, or of these, by position among them."""
        values = list(self.items.values())
        return float(self.aggregation(values if rows is None else [values[row] for row in rows]))


def answers_of(
    questions: Questions,
    log_likelihoods: Sequence[float | None],
    greedy: Sequence[bool | None],
    draws: int = DRAWS,
    *,
    written: Sequence[Texts] | None = None,
) -> Answers:
    """What the tasks make of a system's answers: lm-eval's filters, values and scores.

    Args:
        questions: what was asked.
        log_likelihoods: of all ``instances``, in their order; None of those of a task that the system does not answer,
            and which has no scores then.
        greedy: whether these are its first choice.
        draws: of a score that is no mean.
        written: texts for each of all ``prompts``, in their order; None of a system that does not write.

    Raises:
        BadInput: for a metric that lm-eval cannot compute, or whose score is not a number; for a written answer that is
            neither right nor wrong where that is all that is scored.
    """
    said: dict[int, tuple[float, bool] | Texts] = {}
    given = zip(questions.instances, log_likelihoods, greedy, strict=True)
    said |= {id(i): (float(value), bool(first)) for i, value, first in given if value is not None}
    if written is not None:
        said |= {id(prompt): list(texts) for prompt, texts in zip(questions.prompts, written, strict=True)}
    tasks = {name: task for name, task in questions.tasks.items() if id(questions.of[name][0].requests[0]) in said}
    is_written = questions.documents.written
    answers = Answers(np.empty((0, 2)) if is_written else _log_probs(questions, said), {}, {}, [], {})
    groups = [group for group in questions.groups.values() if group.has_aggregation]
    grouped = {task.task_name for group in groups for task in group.get_all_tasks()}
    groups = [group for group in groups if {task.task_name for task in group.get_all_tasks()} <= tasks.keys()]
    of_tasks: dict[str, dict[str, Any]] = {}
    right: list[bool] = []
    with as_lm_eval():
        for name, task in tasks.items():
            values = _values(name, task, questions.of[name], said)
            if is_written and task.OUTPUT_TYPE == WRITTEN:
                right += _right(name, values, len(questions.of[name]))
            if task.OUTPUT_TYPE == ROLLING:
                answers.rolling.append(_rolling(name, task, questions.of[name], said, values))
            of_tasks[name] = {"sample_len": max((len(each.items) for each in values), default=0)}
            for each in values:
                with _blaming(f"task '{name}': lm-eval's {each.metric} cannot be had"):
                    scored = _scored(answers, each, name, len(questions.of[name]), draws, name in grouped)
                of_tasks[name][f"{each.metric},{each.filter}"] = scored
    for group in groups:
        for key, scored, n in _of_group(group, of_tasks):
            metric, _, chosen = key.rpartition(",")
            place = f"{metric}/{group.name}" if chosen == NONE else f"{key}/{group.name}"
            answers.scores[place] = float(scored[0])
            answers.aggregates[place] = Aggregate(answers.scores[place], scored[1:], n)
    return replace(answers, log_probs=_certain(right)) if is_written else answers


def _right(name: str, values: Sequence[_Values], documents: int) -> list[bool]:
    """Which written answers are right, document by document: the first metric under the first filter says it."""
    first = values[0]
    known = [first.items.get(position) for position in range(documents)]
    for value in known:
        if not isinstance(value, bool | int | float | np.number) or value not in (0, 1):
            problem = f"task '{name}': a written answer is right or wrong by the first metric, and its {first.name} is"
            hint = "name exact_match first in its metric_list, or add a multiple-choice task to the suite"
            raise BadInput(f"{problem} {'not known' if value is None else value!r}", hint=hint)
    return [value == 1 for value in known]


def _certain(right: Sequence[bool]) -> np.ndarray:
    """Log-probabilities [N, 2] of answers that are known to be right (``RIGHT``) or wrong."""
    log_probs = np.full((len(right), RIGHT + 1), -np.inf)
    log_probs[np.arange(len(right)), np.where(right, RIGHT, 0)] = 0.0
    return log_probs


def _scored(found: Answers, values: _Values, task: str, documents: int, draws: int, grouped: bool) -> np.ndarray:
    """lm-eval's score and, where somebody asks for them, that of every draw [1 + D], after noting it in ``found``."""
    from lm_eval.api.metrics import nanmean

    place = f"{values.name}/{task}"
    score = values.aggregate()
    one = _value_of_one(values.aggregation)
    alone = one is None and not _is_bits(values)
    resampled = _resample(values, one, task, draws) if grouped or alone else np.empty(0)
    if one is not None and not (values.aggregation is nanmean and np.isnan(score)):  # then no document has a value
        found.metrics[place] = np.full(documents, np.nan)
        found.metrics[place][list(values.items)] = [one(item) for item in values.items.values()]
    if alone:
        found.aggregates[place] = Aggregate(score, resampled, len(values.items))
    if alone or place in found.metrics or _is_bits(values):
        found.scores[place] = score
    return np.concatenate([[score], resampled])


def extracted(questions: Questions, texts: Sequence[Texts]) -> list[list[str]]:
    """What the first filter of its task makes of every text alone, texts for each of all ``prompts``, in their order.

    Equal words are equal answers.
    """
    found: list[list[str]] = []
    with as_lm_eval():
        for name, task in questions.of_kind(WRITTEN):
            asked = questions.of[name]
            own = texts[len(found) : len(found) + len(asked)]
            each = [SimpleNamespace(resps=[text], doc=deepcopy(question.doc), filtered_resps={})
                    for question, of_one in zip(asked, own, strict=True) for text in of_one]  # fmt: skip
            first = task._filters[0]
            with _blaming(f"task '{name}': its filters fail"):
                first.apply(each)
            words = iter([canonical(one.filtered_resps[first.name]) for one in each])
            found += [[next(words) for _ in of_one] for of_one in own]
    return found


def choice_log_probs(questions: Questions, log_likelihoods: Sequence[float]) -> np.ndarray:
    """Normalised over the choices of every multiple-choice document [N, C]; one log-likelihood for each instance."""
    said = zip(questions.instances, log_likelihoods, strict=True)
    return _log_probs(questions, {id(instance): (float(value), False) for instance, value in said})


def _log_probs(questions: Questions, said: Said) -> np.ndarray:
    """Over the choices of every multiple-choice document [N, C], from the log-likelihoods given the context."""
    log_probs = np.full((len(questions.documents.ids), questions.documents.classes), -np.inf)
    row = 0
    for name, _ in questions.of_kind(CHOICES):
        for question, choices in zip(questions.of[name], questions.choices[name], strict=True):
            values = np.array([float(said[id(request)][0]) for request in question.requests[: len(choices)]])
            log_probs[row, : len(choices)] = values - np.logaddexp.reduce(values)
            row += 1
    return log_probs


def _values(name: str, task: Any, asked: Sequence[Question], said: Said) -> list[_Values]:
    """The steps of lm-eval's ``evaluate`` from answers to values: its filters, and ``process_results``."""
    from lm_eval.api.metrics import mean

    for instance in task.instances:
        answer = said[id(instance)]
        if task.OUTPUT_TYPE == WRITTEN:
            instance.resps, instance.filtered_resps = list(answer), {}
            continue
        told = answer[0] if task.OUTPUT_TYPE == ROLLING else answer
        instance.resps, instance.filtered_resps = [told] * instance.repeats, {}
    by_key: dict[tuple[str, str], dict[int, Any]] = {}
    with _blaming(f"task '{name}': its filters fail"):
        task.apply_filters()
    for chosen in task.instances[0].filtered_resps:
        for position, question in enumerate(asked):
            answers = [request.filtered_resps[chosen] for request in question.requests]
            with _blaming(f"document '{question.id}' cannot be scored by lm-eval"):
                results = task.process_results(deepcopy(question.doc), answers)  # which may change the document
                for metric, item in results.items():
                    by_key.setdefault((metric, chosen), {})[position] = item
    aggregations = task.aggregation()
    return [_Values(*key, items, aggregations.get(key[0], mean)) for key, items in by_key.items()]


def _value_of_one(aggregation: Callable[[list[Any]], Any]) -> Callable[[Any], float] | None:
    """From a document's value to a number whose mean over documents is the score; None where there is no such thing."""
    from lm_eval.api.metrics import brier_score, mean, nanmean

    if aggregation in (mean, nanmean):
        return float
    return (lambda item: float(brier_score([item]))) if aggregation is brier_score else None


def _is_bits(values: _Values) -> bool:
    """Whether these are bits per byte, which have a share of each document (``evaluation.measures``)."""
    from lm_eval.api.metrics import bits_per_byte

    return values.metric == BITS and values.filter == NONE and values.aggregation is bits_per_byte


def _rolling(name: str, task: Any, asked: Sequence[Question], said: Said, values: Sequence[_Values]) -> Rolling:
    """As the task's own bits per byte count; of a task without them, the bytes of the whole text."""
    counted = next((each.items for each in values if _is_bits(each)), {})
    if len(counted) == len(asked):
        nats, sizes = zip(*counted.values(), strict=True)
    else:
        nats = tuple(float(said[id(question.requests[0])][0]) for question in asked)
        sizes = tuple(len(task.doc_to_target(question.doc).encode("utf-8")) for question in asked)
    return Rolling(name, tuple(question.id for question in asked), np.array(nats), np.array(sizes))


def _resample(values: _Values, one: Callable[[Any], float] | None, name: str, draws: int) -> np.ndarray:
    """lm-eval's score of every draw [D]; NaN where it has none, such as the F1 of a label that was not drawn.

    Where ``one`` gives a document's value, it is the mean of these. The task's name seeds the draws: all its metrics
    and all systems have the same, another task of a group has others.
    """
    count = len(values.items)
    generator = np.random.default_rng([zlib.crc32(name.encode()), count])
    each = None if one is None else np.array([one(item) for item in values.items.values()])
    scores = np.full(draws, np.nan)
    with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
        for draw in range(draws):
            rows = generator.integers(count, size=count)
            with contextlib.suppress(ValueError, ZeroDivisionError, IndexError):
                scores[draw] = values.aggregate(rows.tolist()) if each is None else np.nanmean(each[rows])
    return scores


def _of_group(group: Any, of_tasks: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, np.ndarray, int]]:
    """A group's scores by "metric,filter": of the documents, and of each draw; and how many documents there are."""
    scores = group.aggregate(of_tasks)  # means of its tasks' values, here arrays
    for key, values in scores.items():
        if isinstance(values, np.ndarray):
            yield key, values, scores["sample_len"]


@contextlib.contextmanager
def _blaming(problem: str) -> Iterator[None]:
    """Errors of lm-eval's functions and of a task's as bad input."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{problem}: {type(error).__name__}: {error}") from error
