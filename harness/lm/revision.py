"""Draft and revise: what every round writes, what it changes, and where a stage fails on a document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import stats
from harness.lm.answered import Answered
from harness.lm.generation_request import Written
from harness.stats.simultaneous import by_cluster
from harness.systems.written import Revision
from harness.tasks.answers import Answers, answers_of
from harness.tasks.questions import Questions
from harness.types import Unscored

if TYPE_CHECKING:
    from harness.lm.writing import Writer, Writing

DRAFT = "draft"


@dataclass
class _Round:
    """What is there after a round; round 0 is the draft."""

    texts: list[str]
    asked: int
    """Documents that were not done before it."""
    changed: int
    calls: np.ndarray
    """[documents, parts], so far."""
    tokens: np.ndarray
    """[documents], so far."""


@dataclass
class _Work:
    """The state of all documents, and why stages have failed on some."""

    ids: list[str]
    texts: list[str]
    calls: np.ndarray
    tokens: np.ndarray
    failed: list[dict[str, Any]] = field(default_factory=list)

    def fail(self, row: int, stage: str, reason: str) -> None:
        """Record that a stage has failed on a document."""
        self.failed.append({"document": self.ids[row], "stage": stage, "reason": reason})

    def take(self, row: int, part: int, written: Written, stage: str) -> bool:
        """Count an answer of a part, and put it in the place of the last one; whether it differs from that."""
        self.calls[row, part] += 1
        self.tokens[row] += len(written.log_probs)
        if not written.text.strip():
            self.fail(row, stage, "the answer is empty")
            self.texts[row] = self.texts[row] or written.text
            return False
        changes = written.text != self.texts[row]
        self.texts[row] = written.text
        return changes

    def after(self, asked: int, changed: int) -> _Round:
        return _Round(list(self.texts), asked, changed, self.calls.copy(), self.tokens.copy())


def draft_and_revise(system: Revision, writing: Writing) -> Answered:
    """What is written after the last round.

    An answer that is empty, or a prompt that does not fit the model, is the failure of its stage on that document: it
    is recorded, and the document keeps the answer that it had and is done.
    """
    if any(prompt.repeats > 1 for prompt in writing.prompts):
        raise Unscored("an answer is revised, and the task asks for several of each document (repeats)")
    ids = writing.questions.documents.ids
    calls, tokens = np.zeros((len(ids), len(system.parts())), dtype=np.int64), np.zeros(len(ids), dtype=np.int64)
    work = _Work(list(ids), [""] * len(ids), calls, tokens)
    busy = _draft(writing.writer(system.parts()[:1], whole=False), work)
    rounds = [work.after(len(ids), 0)]
    reviser = writing.writer([system.reviser], whole=False)
    for number in range(1, system.rounds + 1):
        asked, busy = busy, _revise(system, reviser, work, busy, number)
        rounds.append(work.after(len(asked), len(busy)))
    counts = Counter(each["stage"] for each in work.failed)
    record = {"rounds": _told(rounds, writing.questions), "failures": dict(counts), "failed": work.failed}
    measures = _measures(rounds, writing.questions) if system.rounds else {}
    return Answered([[text] for text in work.texts], work.calls, work.tokens, record, measures)


def _draft(drafter: Writer, work: _Work) -> list[int]:
    """The drafts; returns the documents that have one."""
    for row, reason in drafter.too_long.items():
        work.fail(row, DRAFT, reason)
    rows = [row for row in range(len(work.ids)) if row not in drafter.too_long]
    written = zip(rows, drafter.answers(rows), strict=True)
    return [row for row, (text,) in written if work.take(row, 0, text, DRAFT)]


def _revise(system: Revision, reviser: Writer, work: _Work, busy: Sequence[int], number: int) -> list[int]:
    """One round over the documents that are not done; returns those whose answer it has changed."""
    stage, asked = f"round {number}", {}
    for row in busy:
        question, given = reviser.asked(row)
        prompt = system.prompt(question, work.texts[row])
        if reason := reviser.lm.too_long(prompt, given):
            work.fail(row, stage, reason)
        else:
            asked[row] = (prompt, given)
    written = zip(asked, reviser.lm.write(list(asked.values())), strict=True)
    return [row for row, text in written if work.take(row, -1, text, stage)]


def _told(rounds: Sequence[_Round], questions: Questions) -> list[dict[str, Any]]:
    """Each round as JSON values: how much it asked and changed, its cost so far, and what it did to accuracy."""
    right = [_scored(each, questions).log_probs.argmax(axis=1).astype(np.float64) for each in rounds]
    count = len(rounds[0].texts)
    found: list[dict[str, Any]] = []
    for number, each in enumerate(rounds):
        told: dict[str, Any] = {
            "round": number,
            "asked": each.asked / count,
            "changed": each.changed / count,
            "calls": float(each.calls.sum(axis=1).mean()),
            "tokens": float(each.tokens.mean()),
            "accuracy": float(right[number].mean()),
        }
        if number:
            told["against_draft"] = _difference(right[number] - right[0], questions)
            told["against_the_round_before"] = _difference(right[number] - right[number - 1], questions)
        found.append(told)
    return found


def _difference(values: np.ndarray, questions: Questions) -> dict[str, Any]:
    """A difference in accuracy, paired by document, with its 95 % interval, and whether the round did harm."""
    clusters = questions.documents.clusters
    interval = stats.over_seeds(by_cluster(values[None], clusters) if len(clusters) else values[None])
    verdict = "harm" if interval.high < 0 else "gain" if interval.low > 0 else "unclear"
    known = [end if np.isfinite(end) else None for end in (interval.low, interval.high)]
    return {"value": interval.value, "low": known[0], "high": known[1], "verdict": verdict}


def _measures(rounds: Sequence[_Round], questions: Questions) -> dict[str, np.ndarray]:
    """Of each round every metric of each task, document by document: "exact_match,round_1/task"."""
    found = {}
    for number, each in enumerate(rounds):
        for place, values in _scored(each, questions).metrics.items():
            metric, _, task = place.partition("/")
            found[f"{metric},round_{number}/{task}"] = values
    return found


def _scored(each: _Round, questions: Questions) -> Answers:
    nothing = [None] * len(questions.instances)
    return answers_of(questions, nothing, nothing, draws=1, written=[[text] for text in each.texts])
