"""Combinations of language models, scored by lm-eval's tasks: all of them in one pass over the models they share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.lm.asking import Asked, Planned
from harness.lm.stages import WITHOUT, Chosen
from harness.lm.writing import Answered, Writing
from harness.systems.routed import ONE_MEMBER, Routed
from harness.systems.staged import InStages
from harness.systems.systems import OutputCombination, SingleModel
from harness.systems.written import ONLY_WRITES, WrittenAnswers
from harness.tasks.answers import Answers, answers_of
from harness.tasks.questions import WRITTEN, Questions
from harness.tasks.text import TextTask
from harness.types import Combination, NotApplicable, Unscored


@dataclass(frozen=True)
class ScoredCombinations:
    """The answers of every combination, or why there are none, in the order given, and what the pass cost."""

    answers: tuple[Answers | Unscored, ...]
    calls: tuple[np.ndarray, ...]
    """How often each part ran for each document that is scored, [documents, parts]; empty without answers."""
    wrote: tuple[Answered | None, ...]
    """What each wrote, where the tasks ask for that."""
    lacking: tuple[Mapping[str, str], ...]
    """Of each the tasks that it is not applicable to, and why: it is scored on the others."""
    combine_seconds: float
    record: list[dict[str, Any]]
    """What each pass did (``scoring.Work``), for the results."""


def score_combinations(combinations: Sequence[Combination], task: TextTask) -> ScoredCombinations:
    """Put every request of the task's lm-eval tasks to all combinations; models that can run together run once.

    Members that share a tokenizer run in lock step. Those of a sequence-level ensemble are scored one by one, each
    with its own tokens, and their log-likelihoods of continuations are mixed. Every stage of a staged system, and every
    member of a router, is scored on everything, as are the models that it decides by; which of them counts is chosen
    for each document, by its choices. What has to be written is written by each combination for itself, and by a stage
    only for what is left to it.

    A combination is scored on every task that it can answer, whatever the others are. Without an answer to the
    documents that all are compared by (``Questions.documents``) there are no scores.
    """
    asked, writing = Asked(task), Writing(task)
    planned: list[Planned | Unscored] = []
    for number, combination in enumerate(combinations):
        reason = _why_unscored(combination, task)
        planned.append(Unscored(reason) if reason else asked.plan(combination, str(number)))
    records = asked.run()
    found = [_answered(each, plan, asked, writing) for each, plan in zip(combinations, planned, strict=True)]
    answers, calls, wrote, lacking = zip(*found, strict=True) if found else ((), (), (), ())
    seconds = sum(record["combine_seconds"] for record in records)
    return ScoredCombinations(answers, calls, wrote, lacking, seconds, records)


def _answered(
    combination: Combination, planned: Planned | Unscored, asked: Asked, writing: Writing
) -> tuple[Answers | Unscored, np.ndarray, Answered | None, Mapping[str, str]]:
    """What the tasks make of a combination, its calls [documents, parts], what it wrote, and what it leaves."""
    questions = asked.task.questions
    try:
        if isinstance(planned, Unscored):
            raise planned
        said, calls = asked.said_by(combination, planned)
        wrote, why_not = _written(combination, questions, writing)
        each = [(None, None) if answer is None else answer for answer in said]
        values, first = zip(*each, strict=True) if each else ((), ())
        answers = answers_of(questions, values, first, written=wrote.texts if wrote else None)
    except (Unscored, NotApplicable) as reason:
        return Unscored(str(reason)), np.zeros((0, 0), dtype=np.int64), None, {}
    lacking = dict(_lacking(combination, questions, said, why_not))
    if wrote and not questions.documents.written:  # what is said of a system is of the documents that are scored
        wrote = replace(wrote, record={})
    return answers, wrote.calls if wrote and questions.documents.written else calls, wrote, lacking


def _written(combination: Combination, questions: Questions, writing: Writing) -> tuple[Answered | None, str]:
    """What a combination writes, where the tasks ask for that, or why it writes nothing beside its choices."""
    if not questions.prompts:
        return None, ""
    try:
        return writing.answer(combination), ""
    except Unscored as reason:
        if questions.documents.written:
            raise
        return None, str(reason)


def _lacking(combination: Combination, questions: Questions, said: Chosen, why_not: str) -> Iterator[tuple[str, str]]:
    """The tasks that have no answer, each with the reason."""
    of_instances = dict(zip(map(id, questions.instances), said, strict=True))
    for name, task in questions.tasks.items():
        if task.OUTPUT_TYPE == WRITTEN:
            if why_not:
                yield name, why_not
        elif of_instances[id(questions.of[name][0].requests[0])] is None:
            yield name, ONLY_WRITES if isinstance(combination, WrittenAnswers) else WITHOUT


def _why_unscored(combination: Combination, task: TextTask) -> str | None:
    """Why a combination cannot be put to language models' tasks, whatever its models are; None if it can."""
    if isinstance(combination, WrittenAnswers):
        return None if task.documents.written else ONLY_WRITES
    if isinstance(combination, Routed):
        return ONE_MEMBER if combination.picked > 1 else None
    stages = combination.stages if isinstance(combination, InStages) else (combination,)
    if unknown := next((each for each in stages if not isinstance(each, OutputCombination | SingleModel)), None):
        kinds = "output rules, single models, stages of these and routed members"
        return f"language models' tasks are put to {kinds}, and this is of the class {type(unknown).__name__}"
    return None


def measures(answers: Answers) -> Mapping[str, np.ndarray]:
    """Per-document values whose means are scores: lm-eval's metrics, and bits per byte of each task and of all."""
    found = dict(answers.metrics)
    for rolling in answers.rolling:
        found[f"bits_per_byte/{rolling.task}"] = _bits_per_byte(rolling.nats, rolling.bytes)
    if answers.rolling:
        nats = np.concatenate([rolling.nats for rolling in answers.rolling])
        sizes = np.concatenate([rolling.bytes for rolling in answers.rolling])
        found["bits_per_byte"] = _bits_per_byte(nats, sizes)
    return found


def _bits_per_byte(nats: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Each document's share of the whole: the mean of these is all bits over all bytes, as lm-eval aggregates."""
    return -nats / np.log(2) / sizes.mean()
