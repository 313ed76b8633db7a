"""Threads that share the ranges of tensors: each tensor is a job in phases, and no core waits for a phase's end."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from harness.streaming.kernels import Scratch

Task = Callable[[Scratch], Any]
"""A part of a phase, which is given its thread's memory."""

Phases = Generator[list[Task], list[Any], None]
"""Yields the tasks of a phase, and is sent their results in the same order, for the next one."""


_LOOK = 0.1
"""Seconds after which those who wait look whether all is stopped."""


@dataclass(eq=False)
class Job:
    """Phases with the bytes that they hold at a time, beside what every thread holds anyway."""

    phases: Phases
    held: int = 0
    waiting: int = field(default=0, init=False)
    results: list[Any] = field(default_factory=list, init=False)


class Threads:
    """Runs jobs in their order. Where the earlier ones have nothing to do, the next is begun if memory allows.

    Args:
        count: of threads.
        memory: the most bytes that jobs hold together; a single one may hold more.
    """

    def __init__(self, count: int, memory: int) -> None:
        self._count, self._memory = count, memory
        self._condition = threading.Condition()
        self._tasks: deque[tuple[Job, int, Task]] = deque()
        self._held = 0
        self._active: list[Job] = []
        self._next: Job | None = None
        self._error: BaseException | None = None
        self._stopped = False

    def run(self, jobs: Iterator[Job]) -> None:
        """Until all jobs are done; the first error of any ends all and is raised, as is an interruption."""
        self._jobs = jobs
        workers = [threading.Thread(target=self._work, name=f"merging-{i}") for i in range(self._count)]
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                while worker.is_alive():
                    worker.join(_LOOK)  # with a limit, so that an interruption is seen
        finally:
            self._stopped = True  # without the lock: a second interruption might come when it is just taken
            for worker in workers:
                if worker.ident is not None:
                    worker.join()
            for job in self._active:  # of a merge that has failed
                job.phases.close()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        scratch = Scratch()
        try:
            while (taken := self._take()) is not None:
                job, place, task = taken
                result = task(scratch)
                with self._condition:
                    job.results[place] = result
                    job.waiting -= 1
                    if job.waiting == 0:
                        self._advance(job, job.results)
                        self._condition.notify_all()
        except BaseException as error:
            with self._condition:
                self._error = self._error or error
                self._stopped = True
                self._condition.notify_all()

    def _take(self) -> tuple[Job, int, Task] | None:
        """A task; None at the end."""
        with self._condition:
            while not self._stopped:
                if self._tasks:
                    return self._tasks.popleft()
                if self._begin():
                    continue
                if not self._active and self._next is None:
                    return None
                self._condition.wait(_LOOK)
        return None

    def _begin(self) -> bool:
        """Begin the next job if there is one and memory for it."""
        if self._next is None:
            self._next = next(self._jobs, None)
        job = self._next
        if job is None or (self._active and self._held + job.held > self._memory):
            return False
        self._next = None
        self._active.append(job)
        self._held += job.held
        self._advance(job, None)
        self._condition.notify_all()
        return True

    def _advance(self, job: Job, results: list[Any] | None) -> None:
        """On to the job's next phase that has tasks; of an earlier job they go before those of later ones."""
        try:
            while not (tasks := job.phases.send(results)):  # type: ignore[arg-type]
                results = []
        except StopIteration:
            self._active.remove(job)
            self._held -= job.held
            return
        job.waiting, job.results = len(tasks), [None] * len(tasks)
        self._tasks.extendleft(reversed([(job, place, task) for place, task in enumerate(tasks)]))
