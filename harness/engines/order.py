"""The order that jobs are started in, and what becomes of those whose process dies or that take too long."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any, Protocol

from harness.engines.engine import Job, Outcome, Progress, too_long
from harness.engines.waiting import Waiting

DIED = "its process died (out of memory, or killed)"
LOOK = 0.1
"""Seconds at least between two looks at whether a job is late: one that waits may have little left."""


class Workers(Protocol):
    """What ``run_in_order`` starts jobs on."""

    grace: float
    """Seconds beyond its limit after which a job is ended from here: 0, unless workers see to limits themselves."""
    wake: float
    """Seconds after which it is asked again whether there is room, at most."""

    def has_room(self, running: int) -> bool:
        """Whether a job may be started beside those that run."""

    def start(self, job: Job) -> Future[Any]:
        """Start a job; only called where there is room."""

    def outcome(self, job: Job, future: Future[Any]) -> Outcome | None:
        """What a job that has ended returned; None where its process died."""

    def waited(self, future: Future[Any]) -> float:
        """Seconds that a job has waited until now for what another run makes: they are not of its limit."""

    def coming(self) -> Collection[Future[Any]]:
        """Done when there may be more room than before, though no job has ended; asked for before ``has_room`` is."""

    def end(self, overdue: Collection[Future[Any]]) -> Collection[Future[Any]]:
        """End jobs, whatever they do; returns those that ended with them, which are started again."""


def run_in_order(jobs: Sequence[Job], workers: Workers, outcomes: dict[str, Outcome], progress: Progress) -> None:
    """Run jobs on workers, each as soon as what it needs is done, those first that most others wait for.

    A job whose process dies runs once more, with no other beside it; if that dies too, it has failed.

    Args:
        jobs: of one place.
        workers: that are used for nothing else meanwhile.
        outcomes: of what jobs may need and has been run before; those of ``jobs`` are added.
        progress: is told of each start and end.
    """
    waiting = Waiting(jobs, outcomes)
    running: dict[Future[Any], _Started] = {}
    suspects: list[Job] = []  # jobs that ran when a process died: each runs once more, with no other beside it
    begun = set[str]()

    def finish(job: Job, outcome: Outcome) -> None:
        outcomes[job.name] = outcome
        waiting.ended(job.name)
        progress("failed" if outcome.error else "done", job)
        if outcome.full:
            raise outcome.full

    def start(job: Job, *, by_itself: bool = False) -> None:
        if job.name not in begun:
            begun.add(job.name)
            progress("start", job)
        running[workers.start(job)] = _Started(job, by_itself, time.monotonic(), workers.grace)

    while waiting or running or suspects:
        coming = workers.coming()
        if suspects and not running and workers.has_room(0):
            start(suspects.pop(), by_itself=True)
        quiet = bool(suspects) or any(each.by_itself for each in running.values())  # no job beside a suspect
        for lost, outcome in waiting.lost():
            finish(lost, outcome)
        while not quiet and workers.has_room(len(running)) and (job := waiting.take()):
            start(job)
        left = min((each.seconds_left() for each in running.values()), default=workers.wake)
        ended = wait({*running, *coming}, max(LOOK, min(left, workers.wake)), FIRST_COMPLETED).done
        for future in ended & running.keys():
            each = running.pop(future)
            said = workers.outcome(each.job, future)
            if said is not None or each.by_itself:
                finish(each.job, said or Outcome(error=DIED))
            else:
                suspects.append(each.job)
        for future, each in running.items():
            if each.seconds_left() <= 0 and not future.done():
                each.waited = workers.waited(future)
        overdue = {future for future, each in running.items() if each.seconds_left() <= 0 and not future.done()}
        if overdue:
            cut = {future: running.pop(future) for future in (*overdue, *workers.end(overdue))}
            for future, each in cut.items():
                if future in overdue:
                    finish(each.job, too_long(each.job))
                else:  # its process was ended too, through no fault of its own
                    again = suspects.append if each.by_itself else waiting.put_back
                    again(each.job)


@dataclass
class _Started:
    """A job that runs."""

    job: Job
    by_itself: bool
    """With no other beside it: a process died while it ran, and this shows whether it was its own."""
    since: float
    """By ``time.monotonic``."""
    grace: float
    waited: float = 0.0
    """Seconds, as far as was asked."""

    def seconds_left(self) -> float:
        if self.job.limit is None:
            return math.inf
        return self.since + self.job.limit + self.waited + self.grace - time.monotonic()
