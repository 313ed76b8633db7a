"""How jobs run: local worker processes, one thread each, each job as soon as what it needs is done."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

Kind = Literal["shared", "alone", "fresh"]


@dataclass(frozen=True)
class Job:
    """One call of a top-level function with plain arguments.

    ``kind``: "shared" runs beside other jobs, "alone" with no other (it is timed), "fresh" in a process of its own.
    """

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    kind: Kind = "shared"
    cost: float = 1.0
    """Expected seconds, for the order and for the time left."""


@dataclass
class Outcome:
    """What a job returned, or why it did not."""

    value: Any = None
    error: str | None = None


@dataclass
class LocalEngine:
    """Worker processes on this machine.

    Every worker computes with one thread: small models gain nothing from more, and results then do not depend on how
    many cores there are.
    """

    workers: int = field(default_factory=lambda: max(1, min(len(os.sched_getaffinity(0)), 16)))
    name: str = "local"
    threads_per_worker: int = 1

    def run(self, jobs: Sequence[Job], progress: Callable[[str, Job], None]) -> dict[str, Outcome]:
        """Run all jobs; one whose need failed is not run, and its error names that need.

        ``progress`` is called with "start" and "done" or "failed". Jobs that run alone come after all others.
        """
        outcomes: dict[str, Outcome] = {}
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["harness.jobs"])
        # read by the fork server when it starts: a BLAS with threads of its own would crowd the cores
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(variable, "1")
        shared = [job for job in jobs if job.kind != "alone"]
        alone = [job for job in jobs if job.kind == "alone"]
        pools = {
            "shared": ProcessPoolExecutor(self.workers, mp_context=context, initializer=_prepare),
            "fresh": ProcessPoolExecutor(self.workers, mp_context=context, initializer=_prepare, max_tasks_per_child=1),
            "alone": ProcessPoolExecutor(1, mp_context=context, initializer=_prepare),
        }
        try:
            self._drain(shared, self.workers, pools, outcomes, progress)
            self._drain(alone, 1, pools, outcomes, progress)
        finally:
            for pool in pools.values():
                pool.shutdown(wait=False, cancel_futures=True)
        return outcomes

    def _drain(
        self,
        jobs: Sequence[Job],
        slots: int,
        pools: Mapping[str, ProcessPoolExecutor],
        outcomes: dict[str, Outcome],
        progress: Callable[[str, Job], None],
    ) -> None:
        waiting = sorted(jobs, key=lambda job: -job.cost)  # long jobs first keep all workers busy to the end
        running: dict[Future[Any], Job] = {}
        names = {job.name for job in jobs}
        while waiting or running:
            for job in list(waiting):
                if lost := next((n for n in job.needs if n in outcomes and outcomes[n].error), None):
                    waiting.remove(job)
                    outcomes[job.name] = Outcome(error=f"{lost}: {outcomes[lost].error}")
                    progress("failed", job)
                elif len(running) < slots and all(n in outcomes or n not in names for n in job.needs):
                    waiting.remove(job)
                    progress("start", job)
                    running[pools[job.kind].submit(job.function, **job.arguments)] = job
            if not running:
                continue
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                outcomes[job.name] = _outcome(future)
                progress("failed" if outcomes[job.name].error else "done", job)


def _prepare() -> None:
    torch.set_num_threads(1)


def _outcome(future: Future[Any]) -> Outcome:
    try:
        return Outcome(future.result())
    except BrokenProcessPool:
        return Outcome(error="its process died (out of memory, or killed)")
    except Exception as error:
        return Outcome(error=f"{type(error).__name__}: {error}")
