"""The interface of an engine: how the jobs of a run are run, in which processes and on which machines."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from harness.display.lines import one_line, said_by
from harness.exhausted import full_disk
from harness.registry import ENGINES

Place = Literal["shared", "alone"]


@dataclass(frozen=True)
class Job:
    """One call of a function that can be pickled, made once the jobs that it needs have done their work."""

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    """Jobs that it waits for, whatever becomes of them."""
    place: Place = "shared"
    """"shared" runs beside other jobs; "alone" measures, so it has a fresh process and no other job beside it."""
    cost: float = 1.0
    """Expected seconds, for the order and for the time left."""
    rank: int = 0
    """Jobs of a lower rank are started first, whatever they cost: those of a higher one another shard may make."""
    limit: float | None = None
    """Seconds after which it is ended, and has failed; None where it may take as long as it likes."""
    folder: Path | None = None
    """That it reads and writes what it shares with other jobs in: on another machine it must be the same one."""
    shared: str | None = None
    """The URL of a place that it shares with them instead; the folder is then each machine's own."""
    device: str = "cpu"
    """That it computes on: on another machine, one of this sort is kept for it."""


@dataclass
class Outcome:
    """What a job returned, or why it did not."""

    value: Any = None
    error: str | None = None
    """One line of bounded length (``display.lines``): it is a reason in tables, and others wrote it."""
    full: OSError | None = None
    """The error of a full disk that it failed by, with the place: every other job would, too."""
    trace: str | None = None
    """The traceback in the worker, for the log; of a very long one its beginning and its end."""

    def __post_init__(self) -> None:
        if self.error is not None:
            self.error = one_line(self.error)
        if self.trace is not None and len(self.trace) > 2 * TRACE:
            self.trace = f"{self.trace[:TRACE]}\n… ({len(self.trace):,} characters)\n{self.trace[-TRACE:]}"


TRACE = 10_000
"""Characters of a traceback that are kept of each end."""


def attempt(job: Job) -> Outcome:
    """Run a job here and now; an exception comes back as text: not every one survives being sent to another process.

    That of ``sys.exit()``, and KeyboardInterrupt, fail the job like any other: it does not end the run.
    """
    try:
        return Outcome(job.function(**job.arguments))
    except BaseException as error:
        said = f"{type(error).__name__}: {said_by(error)}"
        return Outcome(error=said, trace=traceback.format_exc(), full=full_disk(error))


def too_long(job: Job) -> Outcome:
    """The outcome of a job that was ended since it took longer than its limit."""
    return Outcome(error=f"it was ended after {job.limit:g} seconds, its time limit; --job-timeout sets another")


def give_up(job: Job, outcomes: Mapping[str, Outcome]) -> Outcome | None:
    """The outcome of a job that is not run, since one that it needs has failed; None where none has."""
    lost = next((name for name in job.needs if name in outcomes and outcomes[name].error), None)
    return Outcome(error=passed_on(lost, outcomes[lost].error)) if lost else None


def passed_on(need: str, error: str | None) -> str:
    """The error of a job that is not run since one that it needs has failed."""
    return one_line(f"{need}: {error}")


Progress = Callable[[str, Job], None]
"""Called with "start", then with "done" or "failed"."""


class Engine(ABC):
    """Runs jobs. A subclass is registered by ``@engine`` above it, and made anew for every run.

    Args:
        workers: processes at once; as many as the machine has cores by default.
        preload: modules that jobs need and that take seconds to import.
    """

    name: ClassVar[str]
    threads_per_worker: int = 1

    def __init__(self, workers: int | None = None, preload: Sequence[str] = ()) -> None:
        self.workers, self.preload = workers or 1, tuple(preload)
        self.outcomes: dict[str, Outcome] = {}
        """Those that there are so far: what is known where ``run`` is interrupted."""

    @property
    def slots(self) -> dict[Place, int]:
        """How many jobs of each place it runs at once; those of one place start when all of the one before are done."""
        return {"shared": self.workers, "alone": 1}

    @classmethod
    def check(cls) -> None:
        """``BadInput`` where it cannot be used here: asked before anything is planned."""

    @abstractmethod
    def run(self, jobs: Sequence[Job], progress: Progress) -> dict[str, Outcome]:
        """Run all jobs; one whose need failed is not run, and its error names that need.

        Raises:
            OSError: a job found the disk full (``Outcome.full``); no process of a job is left.
        """


AnyEngine = TypeVar("AnyEngine", bound=type[Engine])


def engine(declared: AnyEngine) -> AnyEngine:
    """Register a subclass of ``Engine`` under its name, which ``--engine`` then takes."""
    ENGINES.add(declared)
    return declared
