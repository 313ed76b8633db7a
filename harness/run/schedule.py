"""The jobs of several plans as one list, in which what two plans lack is made once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from harness.engines.engine import Job, Outcome, passed_on
from harness.keys import Key
from harness.run.plan import Plan, PlannedJob
from harness.store import Store


@dataclass(frozen=True)
class Scheduled:
    """A job that will run, and the stage that progress counts it under."""

    job: Job
    group: str


@dataclass(frozen=True)
class Schedule:
    """Every job that plans lack, and what each plan calls them."""

    todo: tuple[Scheduled, ...]
    names: tuple[Mapping[str, str], ...]
    """For each plan, the name in the schedule of each job that it lacks, by its own name."""
    plain: Mapping[str, str]
    """The name of every job without its suite's, by its name in the schedule."""

    def owners(self, name: str) -> list[tuple[int, str]]:
        """The plans that lack a job, by position, and what each calls it."""
        return self._owners.get(name, [])

    @cached_property
    def _owners(self) -> dict[str, list[tuple[int, str]]]:
        found: dict[str, list[tuple[int, str]]] = {}
        for position, names in enumerate(self.names):
            for own, scheduled in names.items():
                found.setdefault(scheduled, []).append((position, own))
        return found

    def outcomes(self, position: int, outcomes: Mapping[str, Outcome]) -> dict[str, Outcome]:
        """The outcomes of one plan's jobs, in its own names, also in the errors: as if it had run by itself."""
        own = {**self.plain, **{scheduled: name for name, scheduled in self.names[position].items()}}
        needs = {scheduled.job.name: scheduled.job.needs for scheduled in self.todo}

        def error(name: str) -> str | None:
            said = outcomes[name].error
            for need in needs[name]:
                if need in outcomes and said == passed_on(need, outcomes[need].error):
                    return passed_on(own[need], error(need))
            return said

        found = {name: scheduled for name, scheduled in self.names[position].items() if scheduled in outcomes}
        return {name: replace(outcomes[scheduled], error=error(scheduled)) for name, scheduled in found.items()}


def make_schedule(plans: Sequence[Plan]) -> Schedule:
    """Put the missing jobs of all plans, which have one store, into one list.

    A job all of whose missing artefacts one job of an earlier plan leaves is that job. One of which another leaves
    some waits for it, and reuses them. Where there are several plans, the name of a job begins with its suite's.
    """
    todo: list[Scheduled] = []
    names: list[dict[str, str]] = []
    makers: dict[Key, str] = {}
    plain: dict[str, str] = {}
    for plan, label in zip(plans, _labels([plan.suite.file.suite for plan in plans]), strict=True):
        own: dict[str, str] = {}
        makes: dict[Key, str] = {}
        for planned in plan.missing():
            lacks = _lacks(planned, plan.store)
            others = dict.fromkeys(makers[key] for key in lacks if key in makers)
            if len(others) == 1 and all(key in makers for key in lacks):
                own[planned.job.name] = next(iter(others))
                continue
            job = _renamed(planned.job, own, label, tuple(others))
            own[planned.job.name] = job.name
            plain[job.name] = planned.job.name
            makes |= dict.fromkeys(lacks, job.name)
            todo.append(Scheduled(job, planned.stage.group))
        makers = {**makes, **makers}
        names.append(own)
    return Schedule(tuple(todo), tuple(names), plain)


def _labels(suites: Sequence[str]) -> list[str]:
    """What the jobs of each suite's plan begin with: nothing if it is the only one; two of one name are counted."""
    if len(suites) == 1:
        return [""]
    seen: Counter[str] = Counter()
    labels = []
    for suite in suites:
        seen[suite] += 1
        labels.append(f"{suite}: " if seen[suite] == 1 else f"{suite} ({seen[suite]}): ")
    return labels


def _lacks(planned: PlannedJob, store: Store) -> list[Key]:
    return [key for key in planned.stage.artefacts() if not store.has(key)]


def _renamed(job: Job, own: Mapping[str, str], label: str, others: tuple[str, ...]) -> Job:
    """The job under its name in the schedule; what it waits for and is not in ``own`` is there already."""
    if not label and not others:  # of the only plan, all names are its own
        return job
    needs, after = (tuple(own.get(name, label + name) for name in names) for names in (job.needs, job.after))
    return replace(job, name=label + job.name, needs=needs, after=tuple(dict.fromkeys((*after, *others))))
