"""Processes of one machine that jobs run in, one thread each, forked from a server that has imported what they need."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from types import MappingProxyType
from typing import Any

import psutil

from harness.claims import Waiting, tell
from harness.engines.engine import Job, Place, attempt

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""The variables that say how many threads a BLAS has; the server of processes reads them when it starts."""


class Pools:
    """Process pools by kind of job; one whose worker died is replaced.

    Args:
        workers: processes at once for jobs that share the machine; one that runs alone has a new process.
        preload: modules that the server of processes imports.
        variables: of the environment, that processes have besides this one's.
    """

    def __init__(self, workers: int, preload: Sequence[str], variables: Mapping[str, str] = MappingProxyType({})):
        self.workers, self.variables = workers, variables
        self.context = multiprocessing.get_context("forkserver")
        wanted = list(preload)
        if forkserver._forkserver._preload_modules != wanted:  # type: ignore[attr-defined]
            forkserver._forkserver._stop()  # type: ignore[attr-defined]  # it keeps what it imported at first
            self.context.set_forkserver_preload(wanted)
        self.pools: dict[Place, ProcessPoolExecutor] = {}
        self.numbers = self.context.RawArray("d", 2 * workers)
        self.waits: dict[Future[Any], Waiting] = {}

    def submit(self, job: Job) -> Future[Any]:
        """Run a job; the future has its ``Outcome``, or the error that its process died with."""
        return self.call(job.place, attempt, job)

    def call(self, place: Place, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call a function in a process for this kind of jobs; as many at a time as there are workers."""
        for pause in (0.0, 0.0, 0.1, 0.5):  # a server that was killed may take a moment to be gone
            time.sleep(pause)
            try:
                pool = self.pools.get(place) or self._open(place)
                with deaf_to_ctrl_c():
                    return self._submitted(pool, function, *arguments)
            except (BrokenProcessPool, EOFError, ConnectionError, FileNotFoundError):  # or a server was killed
                if lost := self.pools.pop(place, None):
                    _kill(lost)
                    self.waits.clear()
                    lost.shutdown(wait=False, cancel_futures=True)
        raise RuntimeError("worker processes die as soon as they start")

    def _submitted(self, pool: ProcessPoolExecutor, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        self.waits = {future: waiting for future, waiting in self.waits.items() if not future.done()}
        taken = {waiting.first for waiting in self.waits.values()}
        first = next(first for first in range(0, len(self.numbers), 2) if first not in taken)
        waiting = Waiting(self.numbers, first)
        waiting.clear()
        future = pool.submit(_call, first, function, *arguments)
        self.waits[future] = waiting
        return future

    def waited(self, future: Future[Any]) -> float:
        """Seconds that a call has waited for the claims of other processes, until now."""
        waiting = self.waits.get(future)
        return waiting.seconds() if waiting else 0.0

    def _open(self, place: Place) -> ProcessPoolExecutor:
        workers, tasks = (1, 1) if place == "alone" else (self.workers, None)
        self.pools[place] = ProcessPoolExecutor(
            workers,
            mp_context=self.context,
            initializer=_prepare,
            initargs=({**os.environ, **self.variables}, self.numbers),
            max_tasks_per_child=tasks,
        )
        return self.pools[place]

    def end(self, place: Place) -> None:
        """End all processes of a kind at once; the next job has a new one."""
        if pool := self.pools.pop(place, None):
            _kill(pool)
            self.waits.clear()

    def close(self) -> None:
        """End the processes when they have done what they do."""
        for pool in self.pools.values():
            if pool._broken:
                _kill(pool)
            shut_down(pool)

    def kill(self) -> None:
        """After Ctrl-C nothing goes on behind the user's back, and nothing holds on to what it was writing."""
        _end_server()
        ended = [process for pool in self.pools.values() for process in _kill(pool)]
        for pool in self.pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        for process in ended:
            process.join(PATIENCE)


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """What is started in the block, and what that starts, does not hear Ctrl-C.

    A terminal sends it to all processes. It is for the parent, which ends the others; one that still imports would end
    by itself, with a traceback.
    """
    resource_tracker.ensure_running()  # which would let it through again when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


PATIENCE = 5.0
"""Seconds that are waited for a process that was killed, or that has nothing more to do."""


def shut_down(pool: ProcessPoolExecutor) -> None:
    """End a pool whose calls are done; a process that does not end soon is killed, with what it still does.

    One that was killed may have held the lock of the queue that tells the others to end.
    """
    late = threading.Timer(PATIENCE, _kill, (pool,))
    late.daemon = True
    late.start()
    pool.shutdown(wait=True)
    late.cancel()


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


def _end_server() -> None:
    """End the server of processes at once, and what no pool knows of yet: a process that it was just asked for.

    That one would find that there is nothing to do any more, and say so in a traceback.
    """
    server = forkserver._forkserver
    if (number := server._forkserver_pid) is None:  # type: ignore[attr-defined]
        return
    with suppress(psutil.Error):
        process = psutil.Process(number)
        process.suspend()  # so that it forks no more
        while process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            time.sleep(0.001)
        started = process.children(recursive=True)
        process.kill()
        for child in started:
            with suppress(psutil.Error):
                child.kill()
    server._stop()  # type: ignore[attr-defined]


def _descendants(process: int | None) -> list[psutil.Process]:
    try:
        return psutil.Process(process).children(recursive=True) if process else []
    except psutil.Error:
        return []


_numbers: MutableSequence[float] = []
"""Where this process keeps how long it waits, two for each call that runs at a time."""


def _call(first: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """In a worker: call a function, and keep there how long it waits for claims."""
    tell(Waiting(_numbers, first))
    return function(*arguments)


def _prepare(environment: Mapping[str, str], numbers: MutableSequence[float]) -> None:
    global _numbers
    _numbers = numbers
    os.environ.clear()  # the server may come from an earlier run, with other variables
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # also where a job lets it through again
    os.setpgid(0, 0)  # a group of its own, with all that its jobs start: they are ended together
    _end_with_server()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch  # which a process that only hands jobs on does without

    torch.set_num_threads(1)
    gc.freeze()  # what was imported stays: each collection would walk it, and copy its pages from the server
    gc.enable()  # which imported without


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
