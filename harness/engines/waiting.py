"""The jobs that wait: which starts next, told without looking through all of them at every end of one."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.engines.engine import Job, Outcome, give_up


@dataclass(eq=False)
class _Alike:
    """Jobs that wait for the same others: thousands may wait for a thousand."""

    jobs: list[Job]
    left: int
    """How many of these have not ended."""


class Waiting:
    """Jobs that have not started, the most urgent first: the one with the longest chain of jobs that wait for it.

    Args:
        jobs: of one place.
        outcomes: of the jobs that have ended; those that end while these wait are added, and told (``ended``).
    """

    def __init__(self, jobs: Sequence[Job], outcomes: Mapping[str, Outcome]) -> None:
        self._outcomes, self._left = outcomes, {job.name: job for job in jobs}
        urgency = longest_paths(jobs)
        order = sorted(range(len(jobs)), key=lambda place: (jobs[place].rank, -urgency[jobs[place].name]))
        self._place = {jobs[position].name: place for place, position in enumerate(order)}
        self._ready: list[tuple[int, str]] = []
        self._lost: list[Job] = []
        self._after: dict[str, list[_Alike]] = {}
        for names, alike in _alike(jobs).items():
            awaited = {name for name in names if name in self._left and name not in outcomes}
            group = _Alike(alike, len(awaited))
            for name in awaited:
                self._after.setdefault(name, []).append(group)
            self._lost += [job for job in alike if give_up(job, outcomes)]
            if not awaited:
                self._start(alike)

    def __len__(self) -> int:
        return len(self._left)

    def take(self) -> Job | None:
        """The most urgent job that nothing is awaited for, which then waits no more; None where there is none."""
        while self._ready:
            _, name = heapq.heappop(self._ready)
            if job := self._left.pop(name, None):
                return job
        return None

    def put_back(self, job: Job) -> None:
        """Let a job that was taken, and is to start once more, wait before all others."""
        self._left[job.name] = job
        self._place[job.name] = -1
        self._start([job])

    def lost(self) -> Iterator[tuple[Job, Outcome]]:
        """The jobs that will not run, since one that they need has failed, and wait no more; each is to be told."""
        while self._lost:
            job = self._lost.pop()
            if job.name in self._left and (outcome := give_up(job, self._outcomes)):
                del self._left[job.name]
                yield job, outcome

    def ended(self, name: str) -> None:
        """Take note that a job has ended, or will not run; its outcome is known by now."""
        for group in self._after.pop(name, ()):
            group.left -= 1
            if self._outcomes[name].error:
                self._lost += [job for job in group.jobs if name in job.needs]
            if not group.left:
                self._start(group.jobs)

    def _start(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            heapq.heappush(self._ready, (self._place[job.name], job.name))


def _alike(jobs: Sequence[Job]) -> dict[tuple[str, ...], list[Job]]:
    """Jobs by what they wait for."""
    found: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        found.setdefault((*job.needs, *job.after), []).append(job)
    return found


def longest_paths(jobs: Sequence[Job]) -> dict[str, float]:
    """Expected seconds from each job's start to the end of the longest chain of jobs that wait for it.

    To start the longest first keeps all workers busy to the end.
    """
    after: dict[str, list[list[Job]]] = {}
    for names, alike in _alike(jobs).items():
        for name in dict.fromkeys(names):
            after.setdefault(name, []).append(alike)
    longest: dict[str, float] = {}
    most: dict[int, float] = {}  # of jobs that are alike, by the identity of their list

    def path(job: Job) -> float:
        if job.name not in longest:
            longest[job.name] = job.cost + max((among(alike) for alike in after.get(job.name, [])), default=0.0)
        return longest[job.name]

    def among(alike: list[Job]) -> float:
        if id(alike) not in most:
            most[id(alike)] = max(map(path, alike))
        return most[id(alike)]

    return {job.name: path(job) for job in jobs}
