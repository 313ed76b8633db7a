"""The laws of engines: what every registered engine owes a run, on one small graph of jobs."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from harness.checks.law import law, laws, require
from harness.engines.engine import Engine, Job, Outcome
from harness.registry import ENGINES

EngineClass = type[Engine]
SECONDS = 0.02
"""That a job takes, so that jobs which overlap are seen to."""


def check_engine(name: str) -> None:
    """Run every law on a registered engine.

    Raises:
        BrokenLaw: the first that does not hold.
    """
    engine = ENGINES.get(name)
    for each in laws("engine"):
        each(engine)


@dataclass(frozen=True)
class Work:
    """One execution of a job, as its process noted it; times are of one clock for all processes of a machine."""

    start: float
    end: float
    process: int
    threads: int


def note(path: Path, name: str) -> str:
    """A job: it notes when it ran, and where."""
    start = time.monotonic()
    time.sleep(SECONDS)
    line = f"{name} {start} {time.monotonic()} {os.getpid()} {torch.get_num_threads()}\n"
    with open(path, "a", encoding="utf-8") as file:
        file.write(line)
    return f"value of {name}"


class Odd(Exception):
    """Cannot be unpickled: it is made of two things, and pickled as one."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


def fail(path: Path, name: str) -> None:
    """A job that notes when it ran, and fails."""
    note(path, name)
    raise KeyError("no such thing")


def fail_oddly(path: Path, name: str) -> None:
    """A job whose exception cannot be sent to another process."""
    note(path, name)
    raise Odd("this", "that")


def leave(path: Path, name: str) -> None:
    """A job that would end the process it runs in, with the exit code of success."""
    note(path, name)
    raise SystemExit(0)


def interrupt(path: Path, name: str) -> None:
    """A job that raises what Ctrl-C raises."""
    note(path, name)
    raise KeyboardInterrupt


def give_a_lock(path: Path, name: str) -> object:
    """A job whose value cannot be sent to another process."""
    note(path, name)
    return threading.Lock()


def _graph(path: Path) -> list[Job]:
    """Dependants stand before what they need, and what must run last costs most."""

    def job(name: str, function: Any = note, **changes: Any) -> Job:
        return Job(name, function, {"path": path, "name": name}, **changes)

    return [
        job("last", needs=("middle",), cost=9.0),
        job("alone-1", place="alone", cost=9.0, needs=("first",)),
        job("lost-twice", needs=("lost",)),
        job("lost", needs=("fails",)),
        job("whatever-became", after=("fails", "lost", "first", "made earlier"), cost=9.0),
        job("middle", needs=("first",)),
        job("first", needs=("made earlier",)),
        job("fails", fail),
        job("fails-oddly", fail_oddly),
        job("leaves", leave),
        job("interrupts", interrupt),
        job("unsendable", give_a_lock),
        job("alone-2", place="alone"),
        *(job(f"many-{i}") for i in range(4)),
    ]


@dataclass(frozen=True)
class Observed:
    """What an engine did with the graph."""

    engine: Engine
    jobs: Mapping[str, Job]
    outcomes: Mapping[str, Outcome]
    work: Mapping[str, Sequence[Work]]
    """Every execution of a job, by its name."""
    events: Sequence[tuple[str, str]]
    """What progress was reported, in order."""


@cache
def observed(engine: EngineClass) -> Observed:
    """The graph, run once by two workers."""
    events: list[tuple[str, str]] = []
    made = engine(workers=2, preload=(__name__,))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "work"
        path.touch()
        jobs = _graph(path)
        outcomes = made.run(jobs, lambda what, job: events.append((what, job.name)))
        work: dict[str, list[Work]] = {job.name: [] for job in jobs}
        for line in path.read_text(encoding="utf-8").splitlines():
            name, start, end, process, threads = line.split()
            work[name].append(Work(float(start), float(end), int(process), int(threads)))
    return Observed(made, {job.name: job for job in jobs}, outcomes, work, events)


@law("engine")
def every_job_has_an_outcome_and_runs_once(engine: EngineClass) -> None:
    """There is one outcome for each job, and each was done once, unless something it needs failed."""
    seen = observed(engine)
    require(set(seen.outcomes) == set(seen.jobs), f"outcomes are of {sorted(seen.outcomes)}")
    for name, work in seen.work.items():
        times = 0 if name.startswith("lost") else 1
        require(len(work) == times, f"the job '{name}' was done {len(work)} times, not {times}")


@law("engine")
def values_come_back(engine: EngineClass) -> None:
    """What a job returns is its outcome's value, and then it has no error."""
    for name, outcome in observed(engine).outcomes.items():
        if name in ("fails", "fails-oddly", "leaves", "interrupts", "unsendable", "lost", "lost-twice"):
            continue
        require(outcome.error is None, f"the job '{name}' has the error: {outcome.error}")
        require(outcome.value == f"value of {name}", f"the job '{name}' has the value {outcome.value!r}")


@law("engine")
def jobs_run_after_what_they_need(engine: EngineClass) -> None:
    """A job starts when all that it needs and that is in the run has ended, whatever the order they are given in."""
    seen = observed(engine)
    for name, job in seen.jobs.items():
        for need in job.needs:
            if need in seen.work and seen.work[name] and seen.work[need]:
                ended = seen.work[need][0].end
                require(seen.work[name][0].start >= ended, f"the job '{name}' started before '{need}' had ended")


@law("engine")
def jobs_come_after_others_whatever_became_of_them(engine: EngineClass) -> None:
    """``after`` waits for jobs, also for those that fail or are not run, and the job runs all the same."""
    seen = observed(engine)
    require(len(seen.work["whatever-became"]) == 1, "a job did not run since one that it only comes after failed")
    start = seen.work["whatever-became"][0].start
    for before in ("fails", "first"):
        ended = seen.work[before][0].end
        require(start >= ended, f"the job 'whatever-became' started before '{before}' had ended")
    ends = [name for what, name in seen.events if what != "start"]
    in_order = "lost" in ends and ends.index("lost") < ends.index("whatever-became")
    require(in_order, "a job that comes after one which cannot be run did not wait for that to be reported")


@law("engine")
def a_failure_is_passed_on_by_name(engine: EngineClass) -> None:
    """A job whose need failed is not run, and its error begins with the need's name."""
    seen = observed(engine)
    for name, need in (("lost", "fails"), ("lost-twice", "lost")):
        error = seen.outcomes[name].error
        expected = f"{need}: {seen.outcomes[need].error}"
        require(error == expected, f"the error of '{name}' is '{error}', not '{expected}'")


@law("engine")
def exceptions_come_back_as_text(engine: EngineClass) -> None:
    """An error is "Type: message", also of what cannot be pickled or would end the run; a traceback names its place."""
    seen = observed(engine)
    expected = {
        "fails": ("KeyError: 'no such thing'", "in fail"),
        "fails-oddly": ("Odd: this that", "in fail_oddly"),
        "leaves": ("SystemExit: 0", "in leave"),
        "interrupts": ("KeyboardInterrupt:", "in interrupt"),
    }
    for name, (error, place) in expected.items():
        outcome = seen.outcomes[name]
        require(outcome.error == error, f"the error of '{name}' is '{outcome.error}', not '{error}'")
        require(place in (outcome.trace or ""), f"the traceback of '{name}' does not say '{place}': {outcome.trace}")


@law("engine")
def a_value_that_cannot_be_sent_is_an_error(engine: EngineClass) -> None:
    """A value that cannot be pickled fails its job, as on any other engine."""
    outcome = observed(engine).outcomes["unsendable"]
    require(outcome.error, f"a lock came back as {outcome.value!r}: on another engine that is an error")


@law("engine")
def what_measures_runs_alone(engine: EngineClass) -> None:
    """While a job of the kind "alone" runs, no other does."""
    seen = observed(engine)
    for name in ("alone-1", "alone-2"):
        mine = seen.work[name][0]
        for other, work in seen.work.items():
            beside = [each for each in work if other != name and each.start < mine.end and mine.start < each.end]
            require(not beside, f"the job '{other}' ran beside '{name}', which measures")


@law("engine")
def what_measures_has_a_fresh_process(engine: EngineClass) -> None:
    """A job of the kind "alone" has a process that has done nothing before: it may measure memory."""
    seen = observed(engine)
    for name in ("alone-1", "alone-2"):
        mine = seen.work[name][0]
        before = [other for other, work in seen.work.items() for each in work if each.process == mine.process]
        require(before == [name], f"the process of '{name}' has also done {sorted(set(before) - {name})}")
        require(mine.process != os.getpid(), f"the job '{name}' ran in the process of the run itself")


@law("engine")
def jobs_have_the_threads_that_it_says(engine: EngineClass) -> None:
    """torch has ``threads_per_worker`` threads in every job: sums in another order would be other numbers."""
    seen = observed(engine)
    for name, work in seen.work.items():
        for each in work:
            words = f"the job '{name}' had {each.threads} threads, not {seen.engine.threads_per_worker}"
            require(each.threads == seen.engine.threads_per_worker, words)


@law("engine")
def progress_is_reported(engine: EngineClass) -> None:
    """Of a job that is run, "start" and then "done" or "failed"; of one that is not run, only "failed"."""
    seen = observed(engine)
    for name, outcome in seen.outcomes.items():
        reported = [what for what, of in seen.events if of == name]
        end = "failed" if outcome.error else "done"
        expected = [end] if name.startswith("lost") else ["start", end]
        require(reported == expected, f"of the job '{name}' it reported {reported}, not {expected}")
