"""From a plan to the stages of its run, each after those that it needs, and to the jobs that an engine takes."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

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
    graph = _Graph()
    for stage in stages_of(plan):
        graph.add(stage)
    return [PlannedJob(stage, graph.job_of(stage)) for stage in graph.stages.values()]


def job_of(stage: Stage) -> Job:
    """A stage by itself as an engine takes it."""
    return _Graph().job_of(stage)


class _Graph:
    """Stages, each after those that it needs; the first of several that are one piece of work stands for all.

    Variants of a thousand members have one tuple of needs (``VariantPlan.once``): it is looked through once.
    """

    def __init__(self) -> None:
        self.stages: dict[Hashable, Stage] = {}
        self._added: dict[int, tuple[Stage, ...]] = {}
        """The tuples that were looked through, by their identity, which they keep while they are here."""
        self._names: dict[int, tuple[tuple[Stage, ...], tuple[str, ...]]] = {}
        """The same, with what their stages are called."""

    def add(self, stage: Stage) -> None:
        if stage.identity not in self.stages:
            needs = stage.needs()
            if id(needs) not in self._added:
                for need in needs:
                    self.add(need)
                self._added[id(needs)] = needs
            self.stages[stage.identity] = stage

    def job_of(self, stage: Stage) -> Job:
        needs, after = self._named(stage.needs()), self._named(stage.after())
        place, seconds, setting = stage.place, stage.seconds(), stage.setting
        return Job(stage.label, stage.perform, {}, needs, after, place, seconds, folder=setting.folder,
                   shared=setting.shared, device=setting.device)  # fmt: skip

    def _named(self, stages: tuple[Stage, ...]) -> tuple[str, ...]:
        if id(stages) not in self._names:
            self._names[id(stages)] = stages, tuple(self.stages.get(each.identity, each).label for each in stages)
        return self._names[id(stages)][1]


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
    return chosen(plan.suite.file.cost.asks, plan.meters)


def measures(plan: Plan, variant: VariantPlan, costs: Sequence[Cost]) -> list[Measure]:
    """The stages that measure a variant: one process measures what it can."""
    setting, reference = plan.machine_of(variant), plan.reference(variant.seed)
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
    with plan.store.listed():
        wanted = {key for measure in measures for key in measure.artefacts() if not plan.store.has(key)}
    for cost in (cost.name for cost in COSTS if cost.beside_reference):
        variants = plan.variants[plan.seeds[0]].values()
        if wanted & {measured(plan, variant, cost).key(cost) for variant in variants}:
            plan.store.remove(measured(plan, plan.reference(plan.seeds[0]), cost).key(cost))


def measured(plan: Plan, variant: VariantPlan, cost: str, beside: VariantPlan | None = None) -> Measure:
    """What reads one cost of a variant, whichever process measured it, on the machine that measured ``beside``."""
    return Measure(plan.machine_of(beside or variant), variant, plan.reference(variant.seed), (cost,))
