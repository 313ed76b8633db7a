"""The engine's order of jobs without its processes: what a test patches, jobs see, and none has to be started."""

import pickle
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from harness.engines import local
from harness.engines.engine import attempt
from harness.run.stages import setting, variant


class Inline:
    """Stands where the engine has its process pools: a job is run when it is handed in."""

    def __init__(self, workers, preload):
        pass

    def submit(self, job):
        future = Future()
        future.set_result(attempt(job))
        return future

    def close(self):
        pass

    kill = close


class Sent(Inline):
    """The same, but jobs and outcomes are pickled as on the way to a process and back."""

    def submit(self, job):
        sent = Future()
        sent.set_result(_copied(super().submit(_copied(job)).result()))
        return sent


def _copied(value):
    return pickle.loads(pickle.dumps(value))


@contextmanager
def in_this_process() -> Iterator[None]:
    """Runs start no process, and what their jobs keep of tasks and pools is forgotten in the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "_Pools", Sent)
        yield
    for cached in (setting.task_of, setting.documents_of, variant.pool_of):
        cached.cache_clear()
