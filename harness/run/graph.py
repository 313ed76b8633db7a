"""From a plan to the stages of its run, each after those that it needs, and to the jobs that an engine takes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import torch

from harness.cost.choosing import chosen, sittings
from harness.cost.cost import Cost
from harness.engines.engine import Job
from harness.registry import COSTS
from harness.run.plan import Plan, PlannedJob
from harness.run.stages.build import Build
from harness.run.stages.dial import Dial
from harness.run.stages.evaluate import Pass
from harness.run.stages.measure import Measure, MeasureOnce
from harness.run.stages.score import Score, Summarise
from harness.run.stages.stage import Stage
from harness.run.stages.variant import VariantPlan


def planned_jobs(plan: Plan) -> list[PlannedJob]:
    """Every job of a plan, reused or not, each after those that it needs."""
    stages: dict[Hashable, Stage] = {}
    for stage in stages_of(plan):
        _add(stage, stages)

    return [PlannedJob(stage, job_of(stage, stages)) for stage in stages.values()]


def job_of(stage: Stage, known: Mapping[Hashable, Stage] = MappingProxyType({})) -> Job:
    """A stage as an engine takes it; ``known`` has the stages that stand for those that are one piece of work."""

    def names(of: Iterable[Stage]) -> tuple[str, ...]:
        return tuple(known.get(each.identity, each).label for each in of)

    needs, after = names(stage.needs()), names(stage.after())
    folder, device, seconds = stage.setting.folder, stage.setting.device, stage.seconds()
    return Job(stage.label, stage.perform, {}, needs, after, stage.place, seconds, folder=folder, device=device)


def _add(stage: Stage, stages: dict[Hashable, Stage]) -> None:
    """Put a stage after those that it needs; the first of several that are one piece of work stands for all."""
    if stage.identity not in stages:
        for need in stage.needs():
            _add(need, stages)
        stages[stage.identity] = stage


def stages_of(plan: Plan) -> Iterator[Stage]:
    """The stages that a plan asks for; what these need besides comes with them."""
    yield from plan.studies
    costs = costs_of(plan)
    yield from (MeasureOnce(plan.setting, cost.name) for cost in costs if cost.once)
    passes = _passes(plan) if plan.setting.kind.in_one_pass else {}
    for seed in plan.seeds:
        setting = plan.setting.of(seed)
        for variant in plan.variants[seed].values():
            yield Build(setting, variant)
        yield from {passed.label: passed for (of, _), passed in passes.items() if of == seed}.values()
        for name, variant in plan.variants[seed].items():
            yield Score(setting, variant, passes.get((seed, name)))
            if variant.declared.family == "staged" and setting.kind.inputs_are_scored:
                yield Dial(setting, variant)
        if seed == plan.seeds[0]:
            for variant in plan.variants[seed].values():
                yield from measures(plan, variant, costs)
    for name in plan.variants[plan.seeds[0]]:
        yield Summarise(plan.setting, plan.over_seeds(name))


def costs_of(plan: Plan) -> tuple[Cost, ...]:
    """What is measured of every variant on the first seed: what the suite asks for and the device has a meter for."""
    if plan.setting.kind.why_no_costs:
        return ()
    return chosen(plan.suite.file.cost.asks, torch.device(plan.setting.device))


def measures(plan: Plan, variant: VariantPlan, costs: Sequence[Cost]) -> list[Measure]:
    """The stages that measure a variant: one process measures what it can."""
    setting, reference = plan.setting.of(variant.seed), plan.reference(variant.seed)
    return [
        Measure(setting, variant, reference, tuple(cost.name for cost in sitting), again=number > 0)
        for number, sitting in enumerate(sittings(costs))
    ]


def _passes(plan: Plan) -> dict[tuple[int, str], Pass]:
    """Of each seed and variant the pass that scores it: one for all rules over a pool's members, else one of its own.

    A variant that fails there is scored by its own stage.
    """
    passes: dict[tuple[int, str], Pass] = {}
    for seed in plan.seeds:
        setting = plan.setting.of(seed)
        groups: dict[str, list[VariantPlan]] = {}
        for name, variant in plan.variants[seed].items():
            what = f"rules of {variant.pool.name}" if variant.runs_members else name
            groups.setdefault(what, []).append(variant)
        for what, variants in groups.items():
            builds = tuple(Build(setting, variant) for variant in variants)
            passed = Pass(setting, what, builds, tuple(variants))
            passes |= {(seed, variant.name): passed for variant in variants}
    return passes


def renew_noise(plan: Plan) -> None:
    """Where a cost is to be measured beside the reference, forget what it is of that itself: it is measured again."""
    measures = [planned.stage for planned in plan.jobs if isinstance(planned.stage, Measure)]
    wanted = {key for measure in measures for key in measure.artefacts() if not plan.store.has(key)}
    for cost in (cost.name for cost in COSTS if cost.beside_reference):
        variants = plan.variants[plan.seeds[0]].values()
        if wanted & {measured(plan, variant, cost).key(cost) for variant in variants}:
            plan.store.remove(measured(plan, plan.reference(plan.seeds[0]), cost).key(cost))


def measured(plan: Plan, variant: VariantPlan, cost: str) -> Measure:
    """What reads one cost of a variant, whichever process measured it."""
    return Measure(plan.setting.of(variant.seed), variant, plan.reference(variant.seed), (cost,))
