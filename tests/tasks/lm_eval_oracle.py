"""Stockpot's requests, values and scores of a task against lm-eval's own, for a model that makes its answers up."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lm_eval.api.model import LM

from harness.lm.evaluation import measures
from harness.tasks.answers import answers_of
from harness.tasks.questions import Questions


class MadeUp(LM):
    """Log-likelihoods drawn from the request's hash: the same for all who ask it."""

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        return [said(request.args) for request in requests]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        return [said(request.args)[0] for request in requests]

    def generate_until(self, requests: list[Any]) -> list[str]:
        return texts_of([request.args for request in requests])


def said(args: tuple[Any, ...]) -> tuple[float, bool]:
    number = int.from_bytes(hashlib.sha256(repr(args).encode()).digest()[:6], "big") / 2**48
    return -1 - 20 * number, number < 0.3


TEXTS = ("answer 0", "The answer is 42.", " answer 1", "#### 1", "A", "")


def written(args: tuple[Any, ...], number: int) -> str:
    """The answer of a number to a prompt."""
    return TEXTS[int(said((*args, number))[0] * 1000) % len(TEXTS)]


def texts_of(asked: Sequence[tuple[Any, ...]]) -> list[str]:
    """The answers to prompts; equal ones get an answer of another number each."""
    seen: Counter[str] = Counter()
    texts = []
    for args in asked:
        texts.append(written(args, seen[repr(args)]))
        seen[repr(args)] += 1
    return texts


def difference(questions: Questions, theirs: Mapping[str, Any]) -> str | None:
    """How Stockpot's requests, values or scores differ from lm-eval's; None where they are the same."""
    given = list(zip(*(said(i.args) for i in questions.instances), strict=True)) or [[], []]
    said_to = iter(texts_of([prompt.args for prompt in questions.prompts for _ in range(prompt.repeats)]))
    texts = [[next(said_to) for _ in range(prompt.repeats)] for prompt in questions.prompts]
    answers = answers_of(questions, *given, draws=2, written=texts)
    means = {**answers.metrics, **measures(answers)}
    labels = questions.documents.labels.numpy()
    right = answers.log_probs.argmax(axis=1) == labels if len(labels) else labels
    for task, samples in theirs["samples"].items():
        for chosen in dict.fromkeys(sample["filter"] for sample in samples):
            mine = [sample for sample in samples if sample["filter"] == chosen]
            requests = [[r.args for r in question.requests] for question in questions.of[task]]
            if [[tuple(args) for args in sample["arguments"]] for sample in mine] != requests:
                return "the requests"
            for metric in dict.fromkeys(key for sample in mine for key in sample["metrics"]):
                place = f"{metric}/{task}" if chosen == "none" else f"{metric},{chosen}/{task}"
                score = theirs["results"][task][f"{metric},{chosen}"]
                values = [sample.get(metric, np.nan) for sample in mine]
                plain = all(isinstance(value, int | float) for value in values)
                if np.isnan(score) and place not in answers.scores:
                    continue  # no document has a value
                if place in answers.metrics and plain and not same(answers.metrics[place], values):
                    return f"{place} of the documents"
                if place not in means and place not in answers.aggregates:
                    return f"{place} is lost"
                shown = np.nanmean(means[place]) if place in means else answers.aggregates[place].value
                if not same([answers.scores[place], shown], [score, score]):
                    return f"{place} is {answers.scores[place]} or {shown}, not {score}"
        config = questions.tasks[task].config
        if config.output_type == "multiple_choice" and not callable(config.process_results):
            of_task = right[[name == task for name in questions.documents.tasks]]
            if f"acc/{task}" in answers.metrics and not same(of_task, answers.metrics[f"acc/{task}"]):
                return "which documents are right"
    return None


def same(one: Any, other: Any) -> bool:
    return bool(np.allclose(np.asarray(one, float), np.asarray(other, float), rtol=1e-12, atol=0, equal_nan=True))
