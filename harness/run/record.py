"""run.json: what was run, on what, and what a reader of its numbers should know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from harness import environment
from harness.evaluate.halving import HALVED, HALVED_TOKENS
from harness.evaluate.predictions import cost_of, predictions_key
from harness.keys import digest
from harness.pools.pool import member_digests, notes_of
from harness.pools.source import MemberPlan
from harness.results.columns import ALL_SEEDS, SCHEMA_VERSION
from harness.results.comparable import machines_differ
from harness.run import capacity
from harness.run.evaluating import read_record
from harness.run.plan import Plan
from harness.run.stages.measure import MeasureOnce
from harness.run.stages.prepare import remarks_of
from harness.run.stages.setting import documents_of, task_of
from harness.run.stages.variant import built
from harness.run.tables import Tables, noise
from harness.suite.file import MAIN
from harness.systems.systems import runs_members_once
from harness.tasks import Documents

Details = Mapping[str, Mapping[str, Any]]


def run_record(
    plan: Plan, rows: list[dict[str, Any]], tables: Tables, warnings: list[str], done: Mapping[str, Any]
) -> dict[str, Any]:
    """run.json.

    Args:
        plan: what was run.
        rows: of variants.csv.
        tables: that they are of.
        warnings: of the studies, of costs, and of scores that are infinite.
        done: the fields that only the runner knows.
    """
    details = tables.details
    suite, task, documents = plan.suite, plan.task, documents_of(plan.setting)
    scored = {of: None for seed in plan.seeds for of in _scored(documents_of(plan.setting.of(seed)))}
    states = {row["variant"]: row["status"] for row in rows if row["seed"] == ALL_SEEDS}
    reference = suite.file.reference
    counts = Counter(states.values())
    return {
        "schema_version": SCHEMA_VERSION,
        "suite": {
            "name": suite.file.suite,
            "question": suite.file.question,
            "path": suite.path,
            "digest": suite.digest,
            "yaml": suite.text,
        },
        "status": _status(done, whole=not counts["failed"] and states[reference] == "ok"),
        "device": plan.setting.device,
        "dtype": "float32",
        "batch_policy": {"test": task.test.batch},
        "seeds": plan.seeds,
        "limit": plan.options.limit,
        "only": plan.options.only,
        "planned": list(plan.variants[plan.seeds[0]]),
        "task": {
            "name": task.name,
            "title": task.title,
            "source": task.source,
            "digest": _digest(plan),
            "split": suite.file.split,
            "classes": documents.classes,
            "criterion": task.heldout.criterion,
            "splits": {split.name: len(split.inputs) for split in (task.train, task.heldout, task.test)},
            "documents": dict(Counter(of for of, _ in scored)),
        },
        "reference": {
            "variant": reference,
            "members": {seed: each.get("member") for seed, each in sorted(details.get(reference, {}).items())},
        },
        "references": {pool: suite.reference_of(pool) for pool in dict.fromkeys(v.pool for v in suite.variants)},
        "scores": suite.file.scores,
        "best": tables.decided.best if plan.compares else {},
        "pools": {name: _pool_record(plan, name) for name in plan.pools[plan.seeds[0]]},
        "summary": {
            "variants": len(states),
            **{status: counts[status] for status in ("ok", "not_applicable", "failed")},
            **{key: done[key] for key in ("jobs_run", "jobs_reused")},
            **_shared_passes(plan),
        },
        "serving": tables.serving,
        "noise": noise(plan),
        "capacity": _capacity(plan),
        "warnings": [*_interrupted(plan, done), *warnings, *_warnings(plan, details), *_warnings_of_shards(done)],
        **{key: done[key] for key in ("run_id", "started", "wall_seconds", "beside", "engine")},
        **({key: done[key] for key in of_machine()} if plan.elsewhere else of_machine()),
        "shards": done.get("shards"),
    }


def of_machine() -> dict[str, Any]:
    """The fields that say what this machine is, and the code on it."""
    return {
        "git_commit": environment.git_commit(),
        "machine": environment.machine(),
        "versions": environment.versions(),
        "devices": environment.devices(),
    }


def _status(done: Mapping[str, Any], *, whole: bool) -> str:
    if done["interrupted"]:
        return "interrupted"
    return "complete" if whole else "incomplete"


def _scored(documents: Documents) -> Iterable[tuple[str, str]]:
    """The task and the id of each document."""
    return zip(documents.tasks, documents.ids, strict=True)


def _digest(plan: Plan) -> str:
    """Of all that the suite asks, whichever of its seeds were run: where each has a split of its own, of them all."""
    if not plan.setting.folds:
        return plan.task.digest
    return digest([task_of(plan.setting.of(seed)).digest for seed, _ in plan.setting.folds])


def _interrupted(plan: Plan, done: Mapping[str, Any]) -> Iterator[str]:
    if done["interrupted"]:
        left = len(plan.jobs) - done["jobs_run"] - done["jobs_reused"]
        yield f"interrupted with {left} of {len(plan.jobs)} jobs to do: run the same command again, which continues"


def _warnings(plan: Plan, details: Details) -> Iterator[str]:
    documents = documents_of(plan.setting)
    if plan.options.limit is not None:
        yield f"a trial run on the first {len(documents.ids)} test examples (--limit): never a verdict"
    pools = plan.pools[plan.seeds[0]].values()
    members = {member.digests[-1]: member for pool in pools for member in pool.everyone}
    for member in members.values():
        yield from notes_of(member, plan.store)
    remarks: dict[str, list[str]] = {}
    for member in members.values():
        for sentence in remarks_of(plan.setting.of(plan.seeds[0]), member):
            remarks.setdefault(sentence, []).append(member.name)
    for sentence, names in remarks.items():
        yield f"{', '.join(dict.fromkeys(names))}: {sentence}"
    yield from documents.notes
    yield from _halved(details)
    for name, seeds in details.items():
        for sentence in sorted({warning for each in seeds.values() for warning in each.get("warnings", [])}):
            yield f"{name}: {sentence}"


def _warnings_of_shards(done: Mapping[str, Any]) -> Iterator[str]:
    if machines_differ({"shards": done.get("shards")}):
        yield "its shards ran on machines that differ: ratios to the reference compare, times and memory do not"


def _halved(details: Details) -> Iterator[str]:
    """Whose batches were made smaller, since memory ran out."""
    for key, unit in ((HALVED, "examples"), (HALVED_TOKENS, "tokens")):
        names: dict[int, list[str]] = {}
        for name, seeds in details.items():
            if sizes := [each[key] for each in seeds.values() if key in each]:
                names.setdefault(min(sizes), []).append(name)
        for size, of in sorted(names.items()):
            yield f"{', '.join(of)}: memory ran out, and batches were halved until {size} {unit} fitted"


def _capacity(plan: Plan) -> dict[str, Any] | None:
    if plan.setting.kind.why_no_costs:
        return None
    process = MeasureOnce(plan.setting, "memory").read() if plan.suite.file.cost.asks("memory") else None
    if process is None:
        return None  # not asked for, or the job that measures a process failed, which is in the log
    budget = capacity.budget_of(plan, process["bytes"])
    fits = list(capacity.capacities(plan, budget))
    return capacity.as_record(budget, fits, capacity.unpredicted(plan, fits))


def _pool_record(plan: Plan, name: str) -> dict[str, Any]:
    first = plan.pools[plan.seeds[0]][name]
    seeds = {}
    for seed in plan.seeds:
        pool = plan.pools[seed][name]
        members = [_member_record(plan, member) for member in pool.everyone]
        total = sum(seconds for seconds, _ in members)
        seeds[str(seed)] = {"train_seconds": round(total, 3), "members": [record for _, record in members]}
    architectures = sorted({str(member.architecture) for member in first.members})
    return {"kind": first.kind, "architectures": architectures, "members": len(member_digests(first)), "seeds": seeds}


def _member_record(plan: Plan, member: MemberPlan) -> tuple[float, dict[str, Any]]:
    seconds = member.spent(plan.store)
    record = {"name": member.name, "architecture": str(member.architecture), "train_seconds": round(seconds, 3)}
    return seconds, record | member.describe()


def _shared_passes(plan: Plan) -> dict[str, Any]:
    """What the main pool's own predictions cost, and what all rules over these predictions cost beyond that."""
    store = plan.store
    predict = combine = 0.0
    names = set()
    for seed in plan.seeds:
        task = task_of(plan.setting.of(seed))
        for member in member_digests(plan.pools[seed][MAIN]):
            predict += sum(cost_of(predictions_key(member, split, plan.setting.device), store)
                           for split in (task.heldout, task.test))  # fmt: skip
        for name, variant in plan.variants[seed].items():
            record = built(store, variant)
            if variant.pool.name != MAIN or not record or not store.has(variant.evaluation_key):
                continue
            if runs_members_once(store.read(variant.build_key)):
                combine += record["fit_seconds"] + read_record(store, variant.evaluation_key)["combine_seconds"]
                names.add(name)
    return {
        "main_members": len(member_digests(plan.pools[plan.seeds[0]][MAIN])),
        "predict_seconds": round(predict, 3),
        "combine_seconds": round(combine, 3),
        "output_variants": len(names),
    }
