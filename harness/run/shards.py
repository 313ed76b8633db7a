"""Shards: the jobs of a plan divided among several commands (``--shard i/n``), and what each of them records.

Every shard knows the whole plan and takes its part of it by the same rule, so that they need not talk to each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from harness.cost.choosing import why_no_meter
from harness.keys import digest
from harness.registry import COSTS
from harness.results.shard import VERSION, Part, write_shard
from harness.run.folder import write_artefacts
from harness.run.plan import Plan, PlannedJob
from harness.run.record import of_machine
from harness.run.stages.evaluate import Pass
from harness.run.stages.measure import Measure, MeasureOnce
from harness.run.stages.prepare import Prepare, remarks_of
from harness.run.stages.score import Summarise
from harness.run.stages.study import Study


@dataclass
class _Unit:
    """Jobs that belong together: those of one variant on one seed, of all that one pass scores, or one study."""

    jobs: list[PlannedJob]
    seconds: float = 0.0
    """Expected: of its jobs, and its share of the members that it needs."""


def part_of(plan: Plan, part: Part) -> Plan:
    """The plan of a shard: its jobs, and all that these need.

    Variants go to shards seed by seed, in the suite's order, so that each has about as many expected seconds, and
    where stores are separate as few members as can be are made twice. What puts seeds together is left for merging.
    Members that several shards need are begun with by one of them each: where the store is shared, the others come to
    them later, and then take what is there.
    """
    shards = divided(plan, part.of)
    mine = shards[part.number - 1]
    owners = _owners(plan, shards)
    jobs = []
    for planned in plan.jobs:
        if planned.job.name in mine:
            rank = 0
            if isinstance(planned.stage, Prepare):
                rank = (owners[planned.job.name] - (part.number - 1)) % part.of
            elif part.of > 1:
                rank = 1
            jobs.append(PlannedJob(planned.stage, replace(planned.job, rank=rank)))
    return replace(plan, jobs=jobs, part=part)


def divided(plan: Plan, count: int) -> list[set[str]]:
    """The names of the jobs of each of ``count`` shards; some have none where there are more shards than variants."""
    by_name = {planned.job.name: planned for planned in plan.jobs}
    units = _units(plan, by_name)
    total, before = sum(unit.seconds for unit in units), 0.0
    shards: list[set[str]] = [set() for _ in range(count)]
    for unit in units:
        middle = (before + unit.seconds / 2) / total if total else 0.0
        before += unit.seconds
        shard = shards[min(count - 1, int(middle * count))]
        for planned in unit.jobs:
            _add_with_needs(planned, by_name, shard)
    reference = plan.reference(plan.seeds[0])
    beside = [planned for planned in plan.jobs if isinstance(planned.stage, Measure)
              and planned.stage.variant.name == reference.name]  # fmt: skip
    for shard in shards:  # what is measured on a machine is judged by the reference's noise there
        if any(isinstance(by_name[name].stage, Measure) for name in shard):
            for planned in beside:
                _add_with_needs(planned, by_name, shard)
    return shards


def _units(plan: Plan, by_name: Mapping[str, PlannedJob]) -> list[_Unit]:
    """In the order of seeds, then of the suite."""
    together: dict[tuple[int, str], tuple[int, str]] = {}
    for planned in plan.jobs:
        if isinstance(planned.stage, Pass):
            variants = planned.stage.variants
            together |= {(each.seed, each.name): (variants[0].seed, planned.stage.label) for each in variants}
    units: dict[tuple[int, str], _Unit] = {}
    places = {seed: place for place, seed in enumerate(plan.seeds)}
    order: dict[tuple[int, str], int] = {}
    for planned in plan.jobs:
        stage = planned.stage
        if isinstance(stage, Prepare | MeasureOnce | Summarise):
            continue
        if isinstance(stage, Study):
            name, seed = (stage.seed, f"study of {stage.pool.name}"), stage.seed
        else:
            variant = stage.variants[0] if isinstance(stage, Pass) else stage.variant  # type: ignore[attr-defined]
            name, seed = together.get((variant.seed, variant.name), (variant.seed, variant.name)), variant.seed
        units.setdefault(name, _Unit([])).jobs.append(planned)
        order.setdefault(name, places[seed])
    shares: dict[str, int] = {}
    needed = {name: _members(unit.jobs, by_name) for name, unit in units.items()}
    for members in needed.values():
        for member in members:
            shares[member] = shares.get(member, 0) + 1
    for name, unit in units.items():
        share = sum(by_name[member].job.cost / shares[member] for member in sorted(needed[name]))
        unit.seconds = sum(planned.job.cost for planned in unit.jobs) + share
    return [units[name] for name in sorted(units, key=lambda name: order[name])]  # which keeps the suite's order


def _members(jobs: Iterable[PlannedJob], by_name: Mapping[str, PlannedJob]) -> set[str]:
    """The names of the jobs that make the members which these need."""
    found: set[str] = set()
    for planned in jobs:
        _add_with_needs(planned, by_name, found)
    return {name for name in found if isinstance(by_name[name].stage, Prepare)}


def _add_with_needs(planned: PlannedJob, by_name: Mapping[str, PlannedJob], shard: set[str]) -> None:
    """Put a job into a shard, with all that it needs or waits for."""
    if planned.job.name in shard:
        return
    shard.add(planned.job.name)
    for name in (*planned.job.needs, *planned.job.after):
        if name in by_name:
            _add_with_needs(by_name[name], by_name, shard)


def _owners(plan: Plan, shards: Sequence[set[str]]) -> dict[str, int]:
    """Which shard begins with each member: of those that need it, the one with the least to begin with so far."""
    loads = [0.0] * len(shards)
    owners: dict[str, int] = {}
    for planned in plan.jobs:
        if isinstance(planned.stage, Prepare):
            name = planned.job.name
            needing = [place for place, shard in enumerate(shards) if name in shard] or range(len(shards))
            owners[name] = min(needing, key=lambda place: loads[place])
            loads[owners[name]] += planned.job.cost
    return owners


def keys_of(plan: Plan) -> str:
    """The digest of the keys of all variants: it tells suites, members, code and libraries of two machines apart."""
    return digest([[seed, variant.name, variant.build_key.digest, variant.evaluation_key.digest]
                   for seed in plan.seeds for variant in plan.variants[seed].values()])  # fmt: skip


def write_part(folder: Path, plan: Plan, errors: Mapping[str, str], done: Mapping[str, Any]) -> None:
    """Write what a shard's folder holds: shard.json, and what is not to be collected before it is merged.

    Args:
        folder: of the shard, existing.
        plan: of the shard.
        errors: why jobs failed, by their names.
        done: the fields of run.json that only the runner knows.
    """
    assert plan.part is not None
    for planned in plan.jobs:
        if isinstance(planned.stage, Prepare):
            remarks_of(planned.stage.setting, planned.stage.member)  # which merging will read
    write_artefacts(folder, plan.store)
    device, suite = torch.device(plan.setting.device), plan.suite
    write_shard(folder, {
        "version": VERSION,
        "status": "part",
        "number": plan.part.number,
        "of": plan.part.of,
        "suite": {"name": suite.file.suite, "path": suite.path, "digest": suite.digest, "yaml": suite.text},
        "task": plan.task.digest,
        "seeds": plan.seeds,
        "limit": plan.options.limit,
        "only": plan.options.only,
        "seed": plan.options.seed,
        "device": plan.setting.device,
        "plan": keys_of(plan),
        "store": os.path.relpath(plan.store.root.resolve(), folder.resolve()),
        "machine_digest": plan.setting.machine,
        "unavailable": {cost.name: why_no_meter(cost, device) for cost in COSTS},
        **of_machine(),
        "jobs": {"planned": len(plan.jobs), "run": done["jobs_run"]},
        "errors": dict(errors),
        **{key: done[key] for key in ("run_id", "started", "wall_seconds", "engine")},
    })  # fmt: skip
