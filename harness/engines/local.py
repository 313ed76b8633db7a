"""How jobs run: local worker processes, one thread each, each job as soon as what it needs is done."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from harness import environment
from harness.engines.engine import Engine, Job, Outcome, Place, Progress, engine
from harness.engines.order import run_in_order
from harness.engines.processes import THREADS
from harness.engines.processes import Pools as _Pools


@engine
class LocalEngine(Engine):
    """Worker processes on this machine.

    Every worker computes with one thread: small models gain nothing from more, and results then do not depend on how
    many cores there are.
    """

    name = "local"

    def __init__(self, workers: int | None = None, preload: Sequence[str] = ()) -> None:
        super().__init__(workers or max(1, min(environment.cores(), 16)), preload)

    def run(self, jobs: Sequence[Job], progress: Progress) -> dict[str, Outcome]:
        """Run all jobs; one whose need failed is not run, and its error names that need.

        ``progress`` is called with "start" and "done" or "failed". Jobs that run alone come after all others. The
        processes of a job that exceeds its limit are killed; what ran beside it is started again.
        """
        outcomes = self.outcomes = {}
        for variable in THREADS:  # a BLAS with threads of its own would crowd the cores
            os.environ.setdefault(variable, "1")
        pools = _Pools(self.workers, self.preload)
        try:
            for place, at_once in self.slots.items():
                workers = _Workers(pools, place, at_once)
                run_in_order([job for job in jobs if job.place == place], workers, outcomes, progress)
        except BaseException:
            pools.kill()
            raise
        pools.close()
        return outcomes


class _Workers:
    """The processes of this machine for one kind of jobs."""

    grace = 0.0
    wake = 3600.0  # no lock takes a time limit of 1e30

    def __init__(self, pools: _Pools, place: Place, at_once: int) -> None:
        self.pools, self.place, self.at_once = pools, place, at_once
        self.running: set[Future[Any]] = set()

    def has_room(self, running: int) -> bool:
        return running < self.at_once

    def start(self, job: Job) -> Future[Any]:
        future = self.pools.submit(job)
        self.running.add(future)
        return future

    def outcome(self, job: Job, future: Future[Any]) -> Outcome | None:
        self.running.discard(future)
        try:
            found: Outcome = future.result()
            return found
        except BrokenProcessPool:
            return None
        except Exception as error:  # the job's arguments or its value could not be sent
            return Outcome(error=f"{type(error).__name__}: {error}")

    def waited(self, future: Future[Any]) -> float:
        return self.pools.waited(future)

    def coming(self) -> Collection[Future[Any]]:
        return ()

    def end(self, overdue: Collection[Future[Any]]) -> Collection[Future[Any]]:
        cut = {future for future in self.running if not future.done()}
        self.pools.end(self.place)  # a process may be stopped, or deep in C, and then hears nothing else
        self.running -= cut
        return cut - set(overdue)
