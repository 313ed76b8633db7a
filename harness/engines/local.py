"""How jobs run: local worker processes, one thread each, each job as soon as what it needs is done."""

from __future__ import annotations

import ctypes
import gc
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from typing import Any

import psutil
import torch

from harness import environment
from harness.engines.engine import Engine, Job, Outcome, Place, Progress, attempt, engine, give_up, too_long


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
        # read by the fork server when it starts: a BLAS with threads of its own would crowd the cores
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(variable, "1")
        pools = _Pools(self.workers, self.preload)
        try:
            slots: dict[Place, int] = {"shared": self.workers, "alone": 1}
            for place, at_once in slots.items():
                self._drain([job for job in jobs if job.place == place], at_once, pools, outcomes, progress)
        except BaseException:
            pools.kill()
            raise
        pools.close()
        return outcomes

    def _drain(
        self,
        jobs: Sequence[Job],
        slots: int,
        pools: _Pools,
        outcomes: dict[str, Outcome],
        progress: Progress,
    ) -> None:
        urgency = _longest_paths(jobs)
        waiting = sorted(jobs, key=lambda job: -urgency[job.name])
        running: dict[Future[Any], _Started] = {}
        suspects: list[Job] = []  # jobs that ran when a process died: each runs once more, with no other beside it
        names = {job.name for job in jobs}

        def finish(job: Job, outcome: Outcome) -> None:
            outcomes[job.name] = outcome
            progress("failed" if outcome.error else "done", job)
            if outcome.full:
                raise outcome.full

        def start(job: Job, *, by_itself: bool = False) -> None:
            running[pools.submit(job)] = _Started(job, by_itself, time.monotonic())

        while waiting or running or suspects:
            if suspects and not running:
                start(suspects.pop(), by_itself=True)
            quiet = bool(suspects) or any(each.by_itself for each in running.values())  # no job beside a suspect
            for job in list(waiting):
                if lost := give_up(job, outcomes):
                    waiting.remove(job)
                    finish(job, lost)
                elif not quiet and len(running) < slots and all(
                    n in outcomes or n not in names for n in (*job.needs, *job.after)
                ):
                    waiting.remove(job)
                    progress("start", job)
                    start(job)
            left = min((each.seconds_left() for each in running.values()), default=0.0)
            for future in wait(running, max(0.0, min(left, WAKE)), return_when=FIRST_COMPLETED).done:
                ended = running.pop(future)
                outcome = _outcome(future)
                if outcome is not None or ended.by_itself:
                    finish(ended.job, outcome or Outcome(error=DIED))
                else:
                    suspects.append(ended.job)
            if any(each.seconds_left() <= 0 for each in running.values()):
                cut = {future: each for future, each in running.items() if not future.done()}
                pools.end(jobs[0].place)  # a process may be stopped, or deep in C, and then hears nothing else
                for future, each in cut.items():
                    del running[future]
                    if each.seconds_left() <= 0:
                        finish(each.job, too_long(each.job))
                    else:  # its process was ended too, through no fault of its own
                        start(each.job, by_itself=each.by_itself)


WAKE = 3600.0
"""Seconds that are waited for a job at once, at most: no lock takes a time limit of 1e30."""


@dataclass(frozen=True)
class _Started:
    """A job that runs."""

    job: Job
    by_itself: bool
    """With no other beside it: a process died while it ran, and this shows whether it was its own."""
    since: float
    """By ``time.monotonic``."""

    def seconds_left(self) -> float:
        return math.inf if self.job.limit is None else self.since + self.job.limit - time.monotonic()


def _longest_paths(jobs: Sequence[Job]) -> dict[str, float]:
    """Expected seconds from each job's start to the end of the longest chain of jobs that wait for it.

    To start the longest first keeps all workers busy to the end.
    """
    after: dict[str, list[Job]] = {}
    for job in jobs:
        for need in (*job.needs, *job.after):
            after.setdefault(need, []).append(job)
    longest: dict[str, float] = {}

    def path(job: Job) -> float:
        if job.name not in longest:
            longest[job.name] = job.cost + max((path(later) for later in after.get(job.name, [])), default=0.0)
        return longest[job.name]

    return {job.name: path(job) for job in jobs}


DIED = "its process died (out of memory, or killed)"


class _Pools:
    """Process pools by kind of job; one whose worker died is replaced."""

    def __init__(self, workers: int, preload: Sequence[str]) -> None:
        self.workers = workers
        self.context = multiprocessing.get_context("forkserver")
        wanted = list(preload)
        if forkserver._forkserver._preload_modules != wanted:  # type: ignore[attr-defined]
            forkserver._forkserver._stop()  # type: ignore[attr-defined]  # it keeps what it imported at first
            self.context.set_forkserver_preload(wanted)
        self.pools: dict[Place, ProcessPoolExecutor] = {}

    def submit(self, job: Job) -> Future[Any]:
        for _ in range(3):
            try:
                pool = self.pools.get(job.place) or self._open(job.place)
                return pool.submit(attempt, job)
            except (BrokenProcessPool, EOFError, ConnectionError, FileNotFoundError):  # or a server was killed
                if lost := self.pools.pop(job.place, None):
                    _kill(lost)
                    lost.shutdown(wait=False, cancel_futures=True)
        raise RuntimeError("worker processes die as soon as they start")

    def _open(self, place: Place) -> ProcessPoolExecutor:
        workers, tasks = (1, 1) if place == "alone" else (self.workers, None)
        self.pools[place] = ProcessPoolExecutor(
            workers,
            mp_context=self.context,
            initializer=_prepare,
            initargs=(dict(os.environ),),
            max_tasks_per_child=tasks,
        )
        return self.pools[place]

    def end(self, place: Place) -> None:
        """End all processes of a kind at once; the next job has a new one."""
        if pool := self.pools.pop(place, None):
            _kill(pool)

    def close(self) -> None:
        for pool in self.pools.values():
            if pool._broken:
                _kill(pool)
            pool.shutdown(wait=True)

    def kill(self) -> None:
        """After Ctrl-C nothing goes on behind the user's back, and nothing holds on to what it was writing."""
        ended = [process for pool in self.pools.values() for process in _kill(pool)]
        for pool in self.pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        for process in ended:
            process.join(PATIENCE)


PATIENCE = 5.0
"""Seconds that are waited for a process that was killed."""


def _kill(pool: ProcessPoolExecutor) -> list[BaseProcess]:
    """End all processes of a pool, also those that are stopped, and what their jobs have started.

    One that was just starting when another died is not told to end by the pool, which would wait for it for ever.
    """
    workers: list[BaseProcess] = list((pool._processes or {}).values())
    started = [child for worker in workers for child in _descendants(worker.pid)]  # some may have left the group
    for worker in workers:
        assert worker.pid  # it was started
        worker.kill()
        with suppress(OSError):  # it ended before it had a group
            os.killpg(worker.pid, signal.SIGKILL)
    for child in started:
        with suppress(psutil.Error):
            child.kill()
    return workers


def _descendants(process: int | None) -> list[psutil.Process]:
    try:
        return psutil.Process(process).children(recursive=True) if process else []
    except psutil.Error:
        return []


def _prepare(environment: Mapping[str, str]) -> None:
    os.environ.clear()  # the server may come from an earlier run, with other variables
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends the workers
    os.setpgid(0, 0)  # a group of its own, with all that its jobs start: they are ended together
    _end_with_server()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    gc.freeze()  # what was imported stays: each collection would walk it, and copy its pages from the server


def _end_with_parent() -> None:
    """End this worker and its jobs' processes as soon as the process that gives it jobs is gone, however that ended."""
    if parent := multiprocessing.parent_process():
        parent.join()  # a pipe that the system closes
        os.killpg(os.getpid(), signal.SIGKILL)


def _end_with_server() -> None:
    """Have the system end this worker with the server that it was forked from, which ends with the run.

    One that is stopped, or deep in C, runs no thread that could see to it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


PR_SET_PDEATHSIG = 1
"""Of the system's header linux/prctl.h."""


def _outcome(future: Future[Any]) -> Outcome | None:
    """What a job returned; None where its process died."""
    try:
        found: Outcome = future.result()
        return found
    except BrokenProcessPool:
        return None
    except Exception as error:  # the job's arguments or its value could not be sent
        return Outcome(error=f"{type(error).__name__}: {error}")
