"""From a plan to the stages of its run, each after those that it needs, and to the jobs that an engine takes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from types import MappingProxyType

from harness.engines.engine import Job
from harness.run import measuring
from harness.run.measuring import Cost
from harness.run.plan import Plan, PlannedJob
from harness.run.stages.build import Build
from harness.run.stages.evaluate import Pass
from harness.run.stages.measure import Measure, MeasureIdle, MeasureProcess
from harness.run.stages.score import Compare, CompareSeeds, Score, Summarise
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
    return Job(stage.label, stage.run, {}, needs, after, stage.place, stage.seconds())


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
    once: list[Stage] = [MeasureIdle(plan.setting)] if "energy" in costs else []
    yield from once
    if "memory" in costs:
        yield MeasureProcess(plan.setting)
    passes = {} if plan.setting.task.kind == "images" else _passes(plan)
    for seed in plan.seeds:
        reference = plan.reference(seed)
        for variant in plan.variants[seed].values():
            yield Build(plan.setting, variant)
        yield from {passed.label: passed for (of, _), passed in passes.items() if of == seed}.values()
        for name, variant in plan.variants[seed].items():
            yield Score(plan.setting, variant, passes.get((seed, name)))
        for variant in plan.variants[seed].values():
            if not variant.is_same_as(reference):
                yield Compare(plan.setting, variant, reference)
            if seed == plan.seeds[0] and costs:
                yield Measure(plan.setting, variant, reference, costs, tuple(once))
    references = tuple(plan.reference(seed) for seed in plan.seeds)
    for name in plan.variants[plan.seeds[0]]:
        plans = plan.over_seeds(name)
        yield Summarise(plan.setting, plans)
        if not all(variant.is_same_as(other) for variant, other in zip(plans, references, strict=True)):
            yield CompareSeeds(plan.setting, plans, references)


def costs_of(plan: Plan) -> tuple[Cost, ...]:
    """What is measured of every variant on the first seed: what the suite asks for and the device has a meter for."""
    asked = plan.suite.file.cost
    energy = asked.energy and measuring.why_no_energy(plan.setting) is None
    wanted: dict[Cost, bool] = {"memory": asked.memory, "latency": asked.latency, "energy": energy}
    return tuple(cost for cost, is_wanted in wanted.items() if is_wanted)


def _passes(plan: Plan) -> dict[tuple[int, str], Pass]:
    """Of each seed and variant the pass that scores it: one for all rules over a pool's members, else one of its own.

    A variant that fails there is scored by its own stage.
    """
    passes: dict[tuple[int, str], Pass] = {}
    for seed in plan.seeds:
        groups: dict[str, list[VariantPlan]] = {}
        for name, variant in plan.variants[seed].items():
            what = f"rules of {variant.pool.name}" if variant.runs_members else name
            groups.setdefault(what, []).append(variant)
        for what, variants in groups.items():
            builds = tuple(Build(plan.setting, variant) for variant in variants)
            passed = Pass(plan.setting, what, builds, tuple(variants))
            passes |= {(seed, variant.name): passed for variant in variants}
    return passes


def renew_noise(plan: Plan) -> None:
    """Where anything is to be timed, forget how the reference was timed against itself: it is timed again."""
    stages = [planned.stage for planned in plan.missing() if isinstance(planned.stage, Measure)]
    if any("latency" in stage.costs and stage.read("latency") is None for stage in stages):
        plan.store.remove(reference_measure(plan).key("latency"))


def reference_measure(plan: Plan) -> Measure:
    """The stage that measures the reference, beside itself."""
    reference = plan.reference(plan.seeds[0])
    return Measure(plan.setting, reference, reference, costs_of(plan))
