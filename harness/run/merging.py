"""Shards become one run: what each made is read from its store, and results are written of it as of any run.

Artefacts are named by what they are made of, so those of all shards fit into one store; what puts seeds together is
made here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from harness.engines.engine import Job, Outcome, give_up
from harness.errors import BadInput
from harness.registry import COSTS, ENGINES
from harness.results.shard import Part, Shard
from harness.run.folder import new_folder, point_latest, using
from harness.run.graph import costs_of, measures, planned_jobs
from harness.run.places import check_places
from harness.run.plan import Elsewhere, Options, Plan
from harness.run.planning import make_plan, modules_to_preload
from harness.run.runner import LOG, Progress
from harness.run.schedule import Scheduled
from harness.run.shards import divided, keys_of
from harness.run.stages.score import Summarise
from harness.run.write import write_results
from harness.store import MANIFEST, Store, read_json
from harness.suite.suite import Suite

ALIKE = {
    "of": "numbers of shards",
    "suite": "suite files",
    "limit": "--limit",
    "only": "--only",
    "seed": "--seed",
    "seeds": "seeds",
    "device": "devices",
    "task": "data",
    "versions": "versions of libraries",
    "plan": "code, or members",
}
"""What shards of one run have alike, in words."""


def check_alike(shards: Sequence[Shard]) -> None:
    """``BadInput`` unless these are all the shards of one run; one that was run twice may be given twice."""
    first = shards[0]
    for other in shards[1:]:
        for field, words in ALIKE.items():
            ours, theirs = (_comparable(shard.record, field) for shard in (first, other))
            if ours != theirs:
                shown = f": {ours} and {theirs}" if len(f"{ours}{theirs}") < 60 else ""
                problem = f"{first} and {other} are not of one run: they have other {words}{shown}"
                raise BadInput(problem, hint="run the shards again, from one state of the code and its files")
    if missing := sorted(set(range(1, first.part.of + 1)) - {shard.part.number for shard in shards}):
        named = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        problem = f"of {first.part.of} shards these are missing: {named}"
        raise BadInput(problem, hint=f"run each with --shard {missing[0]}/{first.part.of}, and name all folders")


def _comparable(record: Mapping[str, Any], field: str) -> Any:
    return record["suite"]["digest"] if field == "suite" else record[field]


def merge(
    shards: Sequence[Shard],
    suite: Suite,
    out: Path,
    progress: Progress,
    *,
    workers: int | None = None,
    allow_code: bool = False,
    store: str | None = None,
) -> Path:
    """Write the run that shards are parts of; returns its folder, which ``latest`` then points to.

    Args:
        shards: all of one run, as ``check_alike`` asks; of one that was run twice, what either made counts.
        suite: that they are of.
        out: the folder of results, whose store has or is given what they made.
        progress: follows what is made here.
        workers: processes at once.
        allow_code: as of ``Options``.
        store: the URL of the place that they have shared, if they have; their own stores need not be there then.

    Raises:
        BadInput: another suite, code or data than the shards'; something that they lack, without a reason; something
            that two of them made, and not the same.
    """
    record = shards[0].record
    if suite.digest != record["suite"]["digest"]:
        raise BadInput("the suite file was changed since the shards were run", place=suite.path)
    options = Options(Path(out), record["only"], record["limit"], record["seed"], record["device"], workers, allow_code,
                      store=store)  # fmt: skip
    started, begin = datetime.now(UTC), time.perf_counter()
    with ExitStack() as stack:
        plan = _planned(shards, suite, options, stack)
        plan.draw()
        folder = stack.enter_context(new_folder(Path(out) / suite.file.suite, started))
        outcomes = _outcomes(plan, shards)
        todo = list(_summaries(plan, outcomes))
        engine = ENGINES.get(options.engine)(workers, modules_to_preload(plan))
        with open(folder / LOG, "w", encoding="utf-8") as log:

            def follow(what: str, job: Job) -> None:
                at = round(time.perf_counter() - begin, 3)
                log.write(json.dumps({"at": at, "event": what, "job": job.name}) + "\n")
                progress.event(what, job)

            progress.begin(f"{suite.file.suite}: {len(shards)} shards", [Scheduled(job, "score") for job in todo],
                           len(plan.jobs) - len(todo))  # fmt: skip
            try:
                outcomes |= engine.run(todo, follow) if todo else {}
            finally:
                progress.end()
            errors = {name: outcome.error for name, outcome in outcomes.items() if outcome.error}
            for name, error in errors.items():
                log.write(json.dumps({"event": "error", "job": name, "error": error}) + "\n")
        wall = max(shard.record["wall_seconds"] for shard in shards)
        write_results(folder, plan, errors, _done(shards, folder, len(plan.jobs), len(todo), wall))
        point_latest(folder)
    return folder


def _planned(shards: Sequence[Shard], suite: Suite, options: Options, stack: ExitStack) -> Plan:
    """The plan of the whole run, as the shards made it; until the stack ends its store draws from theirs."""
    record, store = shards[0].record, Store(Path(options.out) / ".store", options.store)
    check_places(Path(options.out), suite.file.suite)
    stack.enter_context(using(store))
    others = [each for each in dict.fromkeys(shard.store for shard in shards) if each != store.root.resolve()]
    for shard in shards if store.shared is None else ():
        if not shard.store.is_dir():
            hint = "copy it there with the folder of the shard, at the same place beside it"
            raise BadInput(f"the store of {shard} is not there", place=str(shard.store), hint=hint)
    stack.enter_context(store.drawing_from([each for each in others if each.is_dir()], difference))
    draft = make_plan(suite, options, machine=record["machine_digest"])
    if keys_of(draft) != record["plan"]:
        problem = "this code, its libraries or its data are other than the shards'"
        raise BadInput(problem, place=suite.path, hint="merge where the shards were run, or run them again")
    draft.elsewhere = _elsewhere(draft, shards)
    draft.jobs = planned_jobs(draft)
    return draft


def _elsewhere(plan: Plan, shards: Sequence[Shard]) -> Elsewhere:
    """Of each variant the machine that has measured it whole; that of the reference, where none has."""
    record = shards[0].record
    unavailable = {cost.name: next((None for shard in shards if shard.record["unavailable"].get(cost.name) is None),
                                   record["unavailable"].get(cost.name)) for cost in COSTS}  # fmt: skip
    devices = record["devices"] if record["device"].startswith("cuda") else [record["machine"]]
    index = torch.device(record["device"]).index or 0
    memory = devices[min(index, len(devices) - 1)]["memory_bytes"]
    names = plan.variants[plan.seeds[0]]
    known: dict[str, str] = {}
    for machine in dict.fromkeys(shard.record["machine_digest"] for shard in shards):
        plan.elsewhere = Elsewhere(dict.fromkeys(names, machine), unavailable, memory)
        for name, variant in names.items():
            stages = measures(plan, variant, costs_of(plan))
            if stages and all(stage.is_done() for stage in stages):
                known.setdefault(name, machine)
    usual = known.get(plan.suite.file.reference, record["machine_digest"])
    plan.setting = replace(plan.setting, machine=usual)
    return Elsewhere({name: known.get(name, usual) for name in names}, unavailable, memory)


def _outcomes(plan: Plan, shards: Sequence[Shard]) -> dict[str, Outcome]:
    """Of the jobs that the shards could not do, why.

    Raises:
        BadInput: something is missing that no shard says anything of.
    """
    errors = {name: error for shard in shards for name, error in shard.record["errors"].items()}
    missing = [planned for planned in plan.missing() if not isinstance(planned.stage, Summarise)]
    for planned in missing:
        name = planned.job.name
        if name not in errors:
            number = next(i for i, jobs in enumerate(divided(plan, shards[0].part.of), 1) if name in jobs)
            shard = next(shard for shard in shards if shard.part.number == number)
            problem = f"{shard} lacks what it was to make, or it was damaged: '{name}'"
            raise BadInput(problem, hint=f"run it again with --shard {Part(number, shard.part.of)}")
    return {planned.job.name: Outcome(error=errors[planned.job.name]) for planned in missing}


def _summaries(plan: Plan, outcomes: dict[str, Outcome]) -> Iterator[Job]:
    """The jobs that put seeds together; those that cannot be done have their reason in ``outcomes`` then."""
    for planned in plan.missing():
        if isinstance(planned.stage, Summarise):
            if lost := give_up(planned.job, outcomes):
                outcomes[planned.job.name] = lost
            else:
                yield planned.job


def _done(shards: Sequence[Shard], folder: Path, planned: int, here: int, wall: float) -> dict[str, Any]:
    """The fields of run.json that the shards know."""
    first = shards[0].record
    run = min(planned, here + sum(shard.record["jobs"]["run"] for shard in shards))
    shown = ("number", "of", "run_id", "started", "wall_seconds", "git_commit", "machine", "devices", "engine")
    return {
        **{key: first[key] for key in ("git_commit", "machine", "versions", "devices", "engine")},
        "run_id": folder.name,
        "started": min(shard.record["started"] for shard in shards),
        "wall_seconds": wall,
        "beside": [],
        "interrupted": False,
        "jobs_run": run,
        "jobs_reused": planned - run,
        "shards": [{key: shard.record[key] for key in shown} for shard in shards],
    }


def difference(kind: str, ours: Path, theirs: Path) -> str | None:
    """How two folders differ that hold one artefact, in what is no time and was not measured; None: they do not."""
    if kind in chain.from_iterable((cost.name, f"{cost.name}_once") for cost in COSTS):
        return None
    left, right = (read_json(folder / MANIFEST)["files"] for folder in (ours, theirs))
    for name in sorted(left.keys() | right.keys()):
        if left.get(name) == right.get(name):
            continue
        both = name in left and name in right and name.endswith(".json")
        if both and _without_times(read_json(ours / name)) == _without_times(read_json(theirs / name)):
            continue
        return (f"two shards made the same '{kind}', and not alike: {name} differs from that in {ours}; were they run "
                "on processors of different kinds? let all shards share one store")  # fmt: skip
    return None


def _without_times(value: Any) -> Any:
    """A JSON value without the fields that say how long something took."""
    if isinstance(value, dict):
        return {key: _without_times(each) for key, each in value.items() if not key.endswith("seconds")}
    return [_without_times(each) for each in value] if isinstance(value, list) else value
