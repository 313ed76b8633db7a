"""Run plans: the jobs whose artefacts are missing, all in one schedule, then a results folder for each."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TextIO

from harness.engines.engine import Engine, Job, Outcome
from harness.errors import INTERRUPTED, Interrupted
from harness.exhausted import writing
from harness.registry import ENGINES
from harness.results.shard import part_folder
from harness.run.folder import new_folder, point_latest, using
from harness.run.graph import renew_noise
from harness.run.plan import Plan
from harness.run.planning import modules_to_preload
from harness.run.schedule import Schedule, Scheduled, make_schedule
from harness.run.shards import write_part
from harness.run.stages.score import Score
from harness.run.write import write_results


class Progress(Protocol):
    """Follows a run; see ``harness.run.progress``."""

    def begin(self, title: str, todo: Sequence[Scheduled], reused: int) -> None: ...
    def event(self, what: str, job: Job) -> None: ...
    def end(self) -> None: ...
    def interrupted(self) -> None: ...


def run(plan: Plan, progress: Progress) -> Path:
    """Run what is missing and write the results; returns the run's folder, which ``latest`` then points to."""
    [folder] = run_together([plan], progress)
    return folder


def run_together(plans: Sequence[Plan], progress: Progress) -> Generator[Path, None, None]:
    """Run what plans of one command are missing, all of it at once, and write the results of one after the other.

    No core waits for the last jobs of one suite while another has some, and what two suites need is made once. A
    suite whose results cannot be written does not keep the others from theirs: its error is raised after them.

    Ctrl-C or SIGTERM ends the jobs. What is done by then is written all the same, as a run that is marked interrupted
    and that ``latest`` does not point to, where a variant has scores; a second signal ends that, too.

    Args:
        plans: with the same options; at least one.
        progress: follows all of them as one.

    Yields:
        The folder of each run as soon as it is written; ``latest`` then points to it. To be closed by who may not take
        all of them.

    Raises:
        Interrupted: after all folders.
        OSError: the disk is full; it names the place. What is in the store stays, and nothing else of these runs.
    """
    started, begin = datetime.now(UTC), time.perf_counter()
    faults: list[Exception] = []
    with ExitStack() as stack:
        stack.enter_context(writing(plans[0].options.out))
        first = stack.enter_context(using(plans[0].store))
        with plans[0].store.listed():
            for plan in plans if first else ():  # what another run measures now is new, and not to be taken from it
                renew_noise(plan)  # of all, before any is asked what is missing: two may share a reference
            schedule = make_schedule(plans)
            plans[0].store.share_used()
        engine = _engine(plans)
        folders = []
        for plan in plans:
            parent = Path(plan.options.out) / plan.suite.file.suite
            part = part_folder(plan.part) if plan.part else ""
            folders.append(stack.enter_context(new_folder(parent, started, part)))
        logs = [stack.enter_context(open(folder / LOG, "w", encoding="utf-8")) for folder in folders]
        stopped: Interrupted | None = None
        try:
            outcomes = _run_jobs(schedule, plans, engine, progress, _Logs(schedule, logs, begin))
        except (KeyboardInterrupt, SystemExit) as end:
            stopped = Interrupted(INTERRUPTED if isinstance(end, KeyboardInterrupt) else int(end.code or 0))
            outcomes = engine.outcomes
            progress.interrupted()
        wall = time.perf_counter() - begin
        for position, (plan, folder, log) in enumerate(zip(plans, folders, logs, strict=True)):
            command = {
                "started": started.isoformat(timespec="seconds"),
                "wall_seconds": round(wall, 2),
                "engine": {
                    "name": engine.name,
                    "workers": engine.workers,
                    "threads_per_worker": engine.threads_per_worker,
                },
                "beside": [other.suite.file.suite for other in plans if other is not plan],
                "interrupted": stopped is not None,
            }
            own = schedule.outcomes(position, outcomes)
            try:
                with writing(folder.parent):
                    if not _write(plan, folder, own, log, command):
                        continue
            except Exception as fault:
                faults.append(fault)
                continue
            yield folder
    if faults:
        raise faults[0]
    if stopped:
        raise stopped


LOG = "log.jsonl"
LEFT = "it was not done when the run was interrupted: run the same command again"
LOST = "it left nothing: a meter failed, or the code was changed meanwhile; run again"


@dataclass(frozen=True)
class _Logs:
    """The logs of the runs: each has the events of its own jobs, under its own names."""

    schedule: Schedule
    files: Sequence[TextIO]
    begin: float

    def event(self, what: str, job: Job) -> None:
        at = round(time.perf_counter() - self.begin, 3)
        for position, name in self.schedule.owners(job.name):
            self.files[position].write(json.dumps({"at": at, "event": what, "job": name}) + "\n")
            self.files[position].flush()


def _engine(plans: Sequence[Plan]) -> Engine:
    options = plans[0].options
    modules = dict.fromkeys(module for plan in plans for module in modules_to_preload(plan))
    return ENGINES.get(options.engine)(options.workers, tuple(modules))


def _run_jobs(
    schedule: Schedule, plans: Sequence[Plan], engine: Engine, progress: Progress, logs: _Logs
) -> dict[str, Outcome]:
    """Outcomes by the names of the schedule."""

    def follow(what: str, job: Job) -> None:
        logs.event(what, job)
        progress.event(what, job)

    limits = plans[0].options.limit_of
    jobs = {each.job.name: replace(each.job, limit=limits(each.job)) for each in schedule.todo}
    reused = sum(len(plan.jobs) for plan in plans) - len(jobs)
    progress.begin(_title(plans), schedule.todo, reused)
    try:
        outcomes = engine.run(list(jobs.values()), follow) if jobs else {}
    finally:
        progress.end()
    if full := next((each.full for each in outcomes.values() if each.full), None):
        raise full  # of an engine that has let the other jobs try, too
    return outcomes


def _title(plans: Sequence[Plan]) -> str:
    sizes = [(plan.suite.file.suite, len(plan.variants[plan.seeds[0]]), len(plan.seeds)) for plan in plans]
    part = plans[0].part
    shard = f"; shard {part}" if part else ""
    return "; ".join(f"{suite}: {variants} variants, {seeds} seeds" for suite, variants, seeds in sizes) + shard


def _write(
    plan: Plan, folder: Path, outcomes: dict[str, Outcome], log: TextIO, command: Mapping[str, Any]
) -> bool:
    """Everything in a run's folder, or a shard's, but the report; ``outcomes`` are those of the plan's own jobs.

    Returns:
        Whether there is a run: one that was interrupted is none where no variant has scores, or where it is a shard.
    """
    stopped = command["interrupted"]
    if stopped and plan.part:
        return False  # the store has what is done
    plan.draw()
    missing = plan.missing() if outcomes or stopped else []  # of a plan that lacked nothing, nothing was to be left
    planned, run = len(plan.jobs), len(outcomes)
    for each in missing:
        outcome = outcomes.setdefault(each.job.name, Outcome())
        if not outcome.error:
            outcome.error = LEFT if stopped else LOST
    if stopped and not any(_is_scored(plan, name) for name in plan.variants[plan.seeds[0]]):
        return False
    for name, outcome in outcomes.items():
        if outcome.error:
            event = {"event": "error", "job": name, "error": outcome.error, "trace": outcome.trace}
            log.write(json.dumps(event) + "\n")
    log.flush()
    errors = {name: outcome.error for name, outcome in outcomes.items() if outcome.error}
    done = {**command, "run_id": folder.name, "jobs_run": run, "jobs_reused": planned - run - _left(outcomes)}
    if plan.part:
        write_part(folder, plan, errors, done)
        return True
    write_results(folder, plan, errors, done)
    if not stopped:
        point_latest(folder)
    return True


def _is_scored(plan: Plan, name: str) -> bool:
    """Whether a variant has scores on all seeds."""
    return all(Score(plan.setting.of(each.seed), each).read() is not None for each in plan.over_seeds(name))


def _left(outcomes: Mapping[str, Outcome]) -> int:
    """How many jobs were neither run nor reused."""
    return sum(outcome.error == LEFT for outcome in outcomes.values())
