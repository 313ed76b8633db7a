"""What an engine would do with jobs if each took just its expected seconds: when each starts, and when all are done."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.engines.engine import Job, Outcome, Place
from harness.engines.waiting import Waiting, longest_paths


@dataclass(frozen=True)
class Simulated:
    """A schedule that nobody has run."""

    starts: tuple[tuple[float, str], ...]
    """Seconds from the begin and the job that starts then, in order."""
    workers: int
    """The most jobs at once."""
    makespan: float
    """Seconds to the end of the last job."""
    critical_path: float
    """Seconds of the longest chain of jobs that wait for each other: no number of workers takes less."""
    work: float
    """Seconds of all jobs."""

    @property
    def idle_share(self) -> float:
        """Of the seconds of all workers, those in which they have no job."""
        whole = self.workers * self.makespan
        return max(0.0, 1 - self.work / whole) if whole else 0.0


def simulate(jobs: Sequence[Job], slots: Mapping[Place, int], took: Mapping[str, float] | None = None) -> Simulated:
    """Run jobs in no time, in an engine's own order.

    Args:
        jobs: with their expected seconds (``cost``), which the order goes by.
        slots: of the engine.
        took: the seconds that each takes by its name, where they are known by now; those that are expected if None.
    """
    seconds = {job.name: job.cost if took is None else took[job.name] for job in jobs}
    now = 0.0
    starts: list[tuple[float, str]] = []
    outcomes: dict[str, Outcome] = {}
    for place, at_once in slots.items():
        waiting = Waiting([job for job in jobs if job.place == place], outcomes)
        running: list[tuple[float, int, str]] = []
        while waiting or running:
            while len(running) < at_once and (job := waiting.take()):
                starts.append((now, job.name))
                heapq.heappush(running, (now + seconds[job.name], len(starts), job.name))
            if not running:
                raise ValueError(f"{len(waiting)} jobs wait for each other")
            now, _, name = heapq.heappop(running)
            outcomes[name] = Outcome()
            waiting.ended(name)
    longest = max(longest_paths([replace(job, cost=seconds[job.name]) for job in jobs]).values(), default=0.0)
    return Simulated(tuple(starts), max(slots.values()), now, longest, sum(seconds.values()))
