"""Run a plan: the jobs whose artefacts are missing, then the results folder."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from harness.engines.engine import Job, Outcome
from harness.engines.local import LocalEngine
from harness.errors import BadInput
from harness.run import tables
from harness.run.planning import Plan, PlannedJob, planned_jobs, preload


class Progress(Protocol):
    """Follows a run; see ``harness.run.progress``."""

    def begin(self, title: str, todo: Sequence[PlannedJob], reused: int) -> None: ...
    def event(self, what: str, job: Job) -> None: ...
    def end(self) -> None: ...


def run(plan: Plan, progress: Progress) -> Path:
    """Run what is missing and write the results; returns the run's folder, which ``latest`` then points to."""
    started, begin = datetime.now(UTC), time.perf_counter()
    store = plan.store
    plan.renew_noise()
    todo = plan.missing()
    title = f"{plan.suite.file.suite}: {len(plan.variants[plan.seeds[0]])} variants, {len(plan.seeds)} seeds"
    engine = LocalEngine(preload=preload(plan))
    engine.workers = plan.options.workers or engine.workers
    folder = _new_folder(plan, started)
    outcomes: dict[str, Outcome] = {}
    with open(folder / "log.jsonl", "w", encoding="utf-8") as log:

        def follow(what: str, job: Job) -> None:
            event = {"at": round(time.perf_counter() - begin, 3), "event": what, "job": job.name}
            log.write(json.dumps(event) + "\n")
            log.flush()
            progress.event(what, job)

        progress.begin(title, todo, len(plan.jobs) - len(todo))
        try:
            if todo:
                outcomes = engine.run([planned.job for planned in todo], follow)
        except BaseException:
            shutil.rmtree(folder)  # an unfinished run leaves its artefacts in the store and nothing else
            raise
        finally:
            progress.end()
        plan.jobs = planned_jobs(plan)  # what turned out not to apply leaves its reason and nothing else
        for planned in plan.missing():
            outcome = outcomes.setdefault(planned.job.name, Outcome())
            if not outcome.error:
                outcome.error = "it left nothing: a meter failed, or the code was changed meanwhile; run again"
        for name, outcome in outcomes.items():
            if outcome.error:
                event = {"event": "error", "job": name, "error": outcome.error, "trace": outcome.trace}
                log.write(json.dumps(event) + "\n")
    tables.write_results(
        folder,
        plan,
        store,
        errors={name: outcome.error for name, outcome in outcomes.items() if outcome.error},
        run_record={
            "run_id": folder.name,
            "started": started.isoformat(timespec="seconds"),
            "wall_seconds": round(time.perf_counter() - begin, 2),
            "engine": {
                "name": engine.name,
                "workers": engine.workers,
                "threads_per_worker": engine.threads_per_worker,
            },
            "jobs_run": len(todo),
            "jobs_reused": len(plan.jobs) - len(todo),
        },
    )
    _point_latest(folder)
    return folder


def _new_folder(plan: Plan, started: datetime) -> Path:
    parent = Path(plan.options.out) / plan.suite.file.suite
    parent.mkdir(parents=True, exist_ok=True)
    stamp = started.strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{i}" for i in range(2, 100))):
        try:
            (folder := parent / f"{stamp}{suffix}").mkdir()
            return folder
        except FileExistsError:
            continue
    raise BadInput(f"a hundred runs were begun in one second in {parent}")


def _point_latest(folder: Path) -> None:
    link = folder.parent / "latest"
    temporary = folder.parent / f".latest-{os.getpid()}"
    temporary.symlink_to(folder.name)
    os.replace(temporary, link)


