"""Workers on a Ray cluster, as the machine that hands out the jobs sees them."""

from __future__ import annotations

import logging
import pickle
import re
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from harness.engines.engine import Job, Outcome, too_long
from harness.engines.ray_hosts import HostOf, Hosts, Node
from harness.engines.ray_nodes import Share
from harness.errors import BadInput

PATIENCE = 60.0
"""Seconds without any worker after which that is said."""
ANSWER = 5.0
"""Seconds that a host has to say how long a job has waited."""
TRIES = 3
"""How often each worker may be lost before any is ready."""
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Worker:
    """One worker: the share of a node that it holds, and once it holds it, the host that runs its jobs."""

    number: int
    share: Any
    found: Future[Any]
    host: HostOf | None = None
    gpus: str | None = None

    def coming(self) -> Future[Any]:
        """Done when the worker is nearer to its first job."""
        return self.host.met if self.host else self.found


class RayWorkers:
    """Workers that ``run_in_order`` starts jobs on; a context, at whose end their shares are given back.

    Args:
        ray: the module, joined to a cluster.
        hosts: of its nodes.
        count: workers; those that the cluster has no room for yet come when it has.
        share: the resources that each holds.
        node: that they are on; by default spread over the cluster.
    """

    grace = PATIENCE
    wake = PATIENCE

    def __init__(self, ray: Any, hosts: Hosts, count: int, share: Mapping[str, int], node: Node | None = None) -> None:
        strategies = ray.util.scheduling_strategies
        place = strategies.NodeAffinitySchedulingStrategy(node.id, soft=False) if node else "SPREAD"
        self.ray, self.hosts, self.count, self.share = ray, hosts, count, share
        self.make = ray.remote(Share).options(scheduling_strategy=place, **share)
        self.expected: list[_Worker] = []
        self.idle: list[_Worker] = []
        self.busy: dict[Future[Any], _Worker] = {}
        self.numbers = iter(range(10**9))
        self.lost, self.since, self.said = 0, time.monotonic(), False
        for _ in range(count):
            self._ask()

    def __enter__(self) -> RayWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in [*self.expected, *self.idle, *self.busy.values()]:
            self._release(worker)

    def has_room(self, running: int) -> bool:
        if not (self.idle or self.busy or self.said) and time.monotonic() - self.since > PATIENCE:
            self.said = True
            lacks = " and ".join(f"{n} {what[4:].upper()}" for what, n in self.share.items() if n)
            _log.warning("no worker has started in %g seconds: no node of the Ray cluster has %s free", PATIENCE, lacks)
        return bool(self.idle)

    def _settle(self) -> None:
        """Take every worker that is coming as far as it has come."""
        for worker in [each for each in self.expected if each.coming().done()]:
            self.expected.remove(worker)
            try:
                ready = self._advance(worker)
            except self.ray.exceptions.RayError as error:
                self.lost += 1
                if self.lost > TRIES * self.count:
                    raise BadInput(f"workers of the Ray cluster die as soon as they start: {_reason(error)}") from error
                self._replace(worker)
                continue
            (self.idle if ready else self.expected).append(worker)
            self.lost = 0 if ready else self.lost

    def _advance(self, worker: _Worker) -> bool:
        """Take a worker a step on; whether it is ready."""
        if worker.host is None:
            node, worker.gpus = worker.found.result()
            worker.host = self.hosts.on(node)
        if not worker.host.met.done():
            return False
        worker.host.facts(self.ray)
        return True

    def start(self, job: Job) -> Future[Any]:
        worker = self.idle.pop()
        assert worker.host is not None
        future: Future[Any]
        try:
            given = worker.number, worker.gpus, pickle.dumps(job), job.place, job.limit
            future = worker.host.actor.run.remote(*given).future()
        except Exception as error:  # the job cannot be sent
            future = Future()
            future.set_exception(error)
        self.busy[future] = worker
        return future

    def outcome(self, job: Job, future: Future[Any]) -> Outcome | None:
        worker = self.busy.pop(future)
        try:
            state, value = future.result()
        except self.ray.exceptions.RayError as error:
            if not isinstance(error, self.ray.exceptions.RayTaskError):  # its host is dead
                self._renew(worker)
                return None
            self.idle.append(worker)
            return Outcome(error=f"{type(error.cause).__name__}: {error.cause}")
        except Exception as error:  # the job could not be sent
            self.idle.append(worker)
            return Outcome(error=f"{type(error).__name__}: {error}")
        self.idle.append(worker)
        if state == "done":
            found: Outcome = pickle.loads(value)
            return found
        return too_long(job) if state == "late" else None

    def waited(self, future: Future[Any]) -> float:
        worker = self.busy[future]
        assert worker.host is not None
        try:
            return float(self.ray.get(worker.host.actor.waited.remote(worker.number), timeout=ANSWER))
        except self.ray.exceptions.RayError:  # it is dead, or does not answer
            return 0.0

    def coming(self) -> Collection[Future[Any]]:
        self._settle()
        return [worker.coming() for worker in self.expected]

    def end(self, overdue: Collection[Future[Any]]) -> Collection[Future[Any]]:
        hosts = {worker.host for future in overdue if (worker := self.busy.get(future))}
        cut = {future for future, worker in self.busy.items() if worker.host in hosts}
        for future in cut:
            self._renew(self.busy.pop(future))
        return cut - set(overdue)

    def _ask(self) -> None:
        share = self.make.remote()
        self.expected.append(_Worker(next(self.numbers), share, share.where.remote().future()))

    def _renew(self, worker: _Worker) -> None:
        """Give a worker, and others on its node, a new host in place of one that is dead or does not answer."""
        before = worker.host
        assert before is not None
        self.hosts.forget(before)
        self.expected += [worker, *(each for each in self.idle if each.host is before)]
        self.idle = [each for each in self.idle if each.host is not before]
        for each in self.expected:
            if each.host is before:
                each.host = self.hosts.on(before.node)

    def _replace(self, worker: _Worker) -> None:
        """Ask for another worker in place of one whose node is lost, or cannot run a host."""
        if worker.host is not None:
            self.hosts.forget(worker.host)
        self._release(worker)
        self._ask()

    def _release(self, worker: _Worker) -> None:
        with suppress(Exception):
            self.ray.kill(worker.share)


def _reason(error: Exception) -> str:
    """The last line of what Ray says about a worker that died that names an error, or the first of all."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if re.match(r"\w+Error: ", line)), lines[0] if lines else repr(error))
