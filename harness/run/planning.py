"""From a suite to the jobs of a run, all known before anything has run, each with the artefacts it leaves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from harness import tasks
from harness.cost.energy import WINDOW_SECONDS
from harness.engines.engine import Job
from harness.errors import BadInput
from harness.evaluate.predictions import predictions_key
from harness.models.architectures import TRAINABLE, check_options
from harness.models.training import usual_schedule
from harness.pools.specs import HfPool, TrainPool, fetched
from harness.pools.trained import FolderPlan, PoolPlan, Source, TrainingPlan, examined_keys, plan_folders, plan_pool
from harness.registry import METHODS
from harness.run import jobs, measuring
from harness.run.jobs import Data, Setting, StudyPlan, VariantPlan
from harness.run.measuring import Cost
from harness.store import Key, Store
from harness.suite.suite import Suite, Variant
from harness.tasks import Task, pretrained

PRELOAD = {
    "images": ("harness.run.preload",),
    "text": ("harness.run.preload", "transformers.models.llama.modeling_llama", "lm_eval.tasks"),
}
"""What workers need and takes seconds to import, by kind of task."""

SECONDS_PER_COST: dict[Cost, float] = {"memory": 0.3, "latency": 0.7, "energy": WINDOW_SECONDS + 1}
SECONDS_PER_INPUT = {"images": 2.5e-4, "text": 0.012}
"""Of training, expected, for the order of jobs and the time left; the display corrects it by what it sees."""


@dataclass(frozen=True)
class Options:
    """What the command line adds to a suite."""

    out: Path = Path("results")
    only: str | None = None
    limit: int | None = None
    seed: int | None = None
    device: str = "auto"
    workers: int | None = None
    allow_code: bool = False


@dataclass(frozen=True)
class PlannedJob:
    """A job and the artefacts that it leaves: it is not run if all of them exist."""

    job: Job
    keys: tuple[Key, ...]
    stage: str


@dataclass
class Plan:
    """Everything that a run will do, known before anything is done."""

    suite: Suite
    options: Options
    setting: Setting
    task: Task
    seeds: list[int]
    pools: dict[int, dict[str, PoolPlan]]
    variants: dict[int, dict[str, VariantPlan]]
    studies: list[StudyPlan]
    jobs: list[PlannedJob] = field(default_factory=list)

    def reference(self, seed: int) -> VariantPlan:
        return self.variants[seed][self.suite.file.reference]

    @property
    def store(self) -> Store:
        return Store(self.setting.store)

    def missing(self) -> list[PlannedJob]:
        """The jobs whose artefacts are not all in the store."""
        store = self.store
        return [planned for planned in self.jobs if not all(store.has(key) for key in planned.keys)]

    def renew_noise(self) -> None:
        """Where anything is to be timed, forget how the reference was timed against itself: it is timed again."""
        reference = self.reference(self.seeds[0])
        timings = {variant.latency_key(reference) for variant in self.variants[self.seeds[0]].values()}
        wanted = {key for planned in self.missing() for key in planned.keys if not self.store.has(key)}
        if timings & wanted:
            self.store.remove(reference.latency_key(reference))


def make_plan(suite: Suite, options: Options) -> Plan:
    """Plan a run; the task's data and pretrained models are fetched if they are not there, nothing else happens."""
    suite = _with_models(suite)
    suite = replace(suite, task=replace(suite.task, allow_code=options.allow_code))
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    store = Path(options.out) / ".store"
    suite = replace(suite, task=tasks.rendered(suite.task, Store(store), options.limit))
    setting = Setting(store, suite.task, options.limit, device)
    task = jobs.task_of(setting)
    seeds = suite.file.seeds if options.seed is None else [options.seed]
    pools = {
        seed: {name: _pool(suite, name, recipe, task, seed) for name, recipe in suite.pools.items()} for seed in seeds
    }
    chosen = _chosen(suite, options.only)
    data = {name: Data.of(jobs.task_of(setting, pool.groups)) for name, pool in pools[seeds[0]].items()}
    variants = {
        seed: {
            v.name: VariantPlan(
                v.name, v.method, v.parameters, v.members, pools[seed][v.pool], seed, data[v.pool], device
            )
            for v in chosen
        }
        for seed in seeds
    }
    studies = []
    if (study := suite.file.correlate) and options.only is None:
        sizes, plain = tuple(study.subsets.sizes), Data.of(task)
        studies = [
            StudyPlan(pools[seed][name], seed, study.rule, sizes, study.subsets.at_most, plain, device)
            for seed in seeds
            for name in study.pools
        ]
    plan = Plan(suite, options, setting, task, list(seeds), pools, variants, studies)
    plan.jobs = planned_jobs(plan)
    return plan


def _with_models(suite: Suite) -> Suite:
    """The suite with the folders of pretrained models in the place of their archives' names."""
    tokenizer = pretrained.folder_of(suite.task.tokenizer) if suite.task.tokenizer else None
    pools = {name: fetched(pool) for name, pool in suite.pools.items()}
    return replace(suite, task=replace(suite.task, tokenizer=tokenizer), pools=pools)


def _pool(suite: Suite, name: str, recipe: TrainPool | HfPool, task: Task, seed: int) -> PoolPlan:
    if isinstance(recipe, HfPool):
        found = plan_folders(name, recipe)
        _check_folders(suite, found, task)
        return found
    known = TRAINABLE[suite.task.kind]
    for architecture in recipe.architecture if isinstance(recipe.architecture, list) else [recipe.architecture]:
        if recipe.base is None and architecture not in known:
            problem = f"pool '{name}': architecture '{architecture}' is not for {suite.task.kind}"
            raise BadInput(problem, place=suite.path, choices=known)
    for group in recipe.vary.data or []:
        if group not in task.groups:
            problem = f"pool '{name}': unknown data '{group}'"
            raise BadInput(problem, place=suite.path, given=group, choices=task.groups)
    if recipe.vary.data and recipe.bootstrap and suite.task.kind == "images":
        problem = f"pool '{name}': resamples are of the training split, and views are not parts of it"
        raise BadInput(problem, place=suite.path, hint="drop 'bootstrap' or 'data'")
    planned = plan_pool(
        name, recipe, data=task.train.digest, shape=task.shape, seed=seed, defaults=usual_schedule(task.train)
    )
    for made in sorted({member.architecture for member in planned.members}, key=str):
        try:
            check_options(made)
        except BadInput as fault:
            raise fault.at(f"{suite.path}: pool '{name}'") from None
    _check_folders(suite, planned, task)
    return planned


def _check_folders(suite: Suite, pool: PoolPlan, task: Task) -> None:
    """``BadInput`` where a folder's model is for other data than the task's."""
    for source in (*((pool.base,) if pool.base else ()), *pool.members):
        if not isinstance(source, FolderPlan):
            continue
        place = source.model.folder
        if source.model.kind != suite.task.kind:
            words = {"images": "a network for images", "text": "a language model"}[source.model.kind]
            raise BadInput(f"pool '{pool.name}' holds {words}, which the task '{task.name}' is not for", place=place)
        options = dict(source.architecture.options)
        if source.model.kind == "images" and any(options.get(key) != size for key, size in task.shape.items()):
            shapes = [", ".join(f"{key} {of.get(key)}" for key in task.shape) for of in (options, task.shape)]
            raise BadInput(f"the network has {shapes[0]}; the task '{task.name}' has {shapes[1]}", place=place)


def _chosen(suite: Suite, only: str | None) -> list[Variant]:
    if only is None:
        return list(suite.variants)
    chosen = [v for v in suite.variants if v.method == only or fnmatchcase(v.name, only)]
    if not chosen:
        names = [v.name for v in suite.variants]
        raise BadInput(
            f"--only {only}: no variant of {suite.path} has this method or name",
            given=only,
            choices={v.method for v in suite.variants},
            hint=f"a pattern such as 'linear*' matches names; the suite has {len(names)} variants",
        )
    return [v for v in suite.variants if v in chosen or v.name == suite.file.reference]


def planned_jobs(plan: Plan) -> list[PlannedJob]:
    """Every job of a plan, reused or not, each after those that it needs."""
    return list(_jobs(plan))


def _jobs(plan: Plan) -> Iterator[PlannedJob]:
    setting, costs = plan.setting, _costs(plan)
    used = {
        *((seed, v.pool.name) for seed in plan.seeds for v in plan.variants[seed].values()),
        *((study.seed, study.pool.name) for study in plan.studies),
    }
    trainings: dict[str, str] = {}  # key -> job: pools share a training run where they describe the same one
    for seed in plan.seeds:
        for name, pool in plan.pools[seed].items():
            if (seed, name) in used:
                yield from _training_jobs(plan, pool, seed, trainings)
    for study in plan.studies:
        name = f"seed {study.seed}: study of {study.pool.name}"
        needs = _needs(study.pool.members, trainings)
        arguments = {"setting": setting, "plan": study}
        yield PlannedJob(Job(name, jobs.study_pool, arguments, needs, cost=10), (study.key(),), "study")
    passes: dict[tuple[int, str], str] = {}
    images = setting.task.kind == "images"
    if not images:
        yield from _pass_jobs(plan, passes)
    idle = ("idle power",) if "energy" in costs else ()
    for name in idle:
        job = Job(name, measuring.measure_idle, {"setting": setting}, kind="alone", cost=WINDOW_SECONDS)
        yield PlannedJob(job, (measuring.idle_key(setting),), "measure")
    if "memory" in costs:
        job = Job("size of a process", measuring.measure_process, {"setting": setting}, kind="alone", cost=0.5)
        yield PlannedJob(job, (measuring.process_key(setting),), "measure")
    for seed in plan.seeds:
        reference = plan.reference(seed)
        for name, variant in plan.variants[seed].items():
            place = f"seed {seed}: "
            needs = _needs(variant.sources, trainings)
            arguments = {"setting": setting, "plan": variant}
            seconds = _expected_seconds(plan, variant)
            evaluated = (variant.evaluation_key,) if images else ()
            keys = _unless_inapplicable(plan, variant, (variant.build_key, *evaluated))
            built, scored = f"{place}build {name}", f"{place}score {name}"
            yield PlannedJob(Job(built, jobs.build_variant, arguments, needs, cost=seconds), keys, "build")
            keys = _unless_inapplicable(plan, variant, (variant.score_key,))
            passed = () if images else (passes[seed, name],)
            job = Job(scored, jobs.score_variant, arguments, (built,), passed, cost=0.1)
            yield PlannedJob(job, keys, "score")
            against = {**arguments, "reference": reference}
            if not _is_same(variant, reference):
                keys = _unless_any_inapplicable(plan, (reference, variant), (variant.comparison_key(reference),))
                needs = (scored, f"{place}score {reference.name}")
                job = Job(f"{place}compare {name}", jobs.compare_variant, against, needs, cost=0.1)
                yield PlannedJob(job, keys, "score")
            if seed == plan.seeds[0] and costs:
                keys = tuple(
                    key
                    for cost in costs
                    for key in _unless_inapplicable(
                        plan, reference if cost == "latency" else variant, (measuring.key(cost, variant, reference),)
                    )
                )
                keys = _unless_inapplicable(plan, variant, keys)
                seconds = sum(SECONDS_PER_COST[cost] for cost in costs)
                arguments = {**against, "costs": costs}
                after = (f"{place}build {reference.name}", *idle)
                measured = f"{place}measure {name}"
                job = Job(measured, measuring.measure_variant, arguments, (built,), after, "alone", seconds)
                yield PlannedJob(job, keys, "measure")
    references = tuple(plan.reference(seed) for seed in plan.seeds)
    for name in plan.variants[plan.seeds[0]]:
        plans = tuple(plan.variants[seed][name] for seed in plan.seeds)
        scored_each = tuple(f"seed {seed}: score {name}" for seed in plan.seeds)
        keys = _unless_any_inapplicable(plan, plans, (jobs.summary_key(plans),))
        job = Job(f"summary of {name}", jobs.summarise_variant, {"setting": setting, "plans": plans}, scored_each,
                  cost=0.2)  # fmt: skip
        yield PlannedJob(job, keys, "score")
        if not all(map(_is_same, plans, references)):
            keys = _unless_any_inapplicable(plan, (*plans, *references), (jobs.comparison_key(plans, references),))
            needs = (*scored_each, *(f"seed {each.seed}: score {each.name}" for each in references))
            arguments = {"setting": setting, "plans": plans, "references": references}
            job = Job(f"comparison of {name}", jobs.compare_over_seeds, arguments, needs, cost=0.2)
            yield PlannedJob(job, keys, "score")


def _is_same(variant: VariantPlan, reference: VariantPlan) -> bool:
    """Whether a variant is the reference, under whatever name: there is nothing to compare."""
    return variant.build_key == reference.build_key


def _costs(plan: Plan) -> tuple[Cost, ...]:
    """What is measured of every variant on the first seed: what the suite asks for and the device has a meter for."""
    asked = plan.suite.file.cost
    energy = asked.energy and measuring.why_no_energy(plan.setting) is None
    wanted: dict[Cost, bool] = {"memory": asked.memory, "latency": asked.latency, "energy": energy}
    return tuple(cost for cost, is_wanted in wanted.items() if is_wanted)


def _pass_jobs(plan: Plan, passes: dict[tuple[int, str], str]) -> Iterator[PlannedJob]:
    """Scoring language models: one pass over a pool's members for all rules and stages, one for each other variant.

    ``passes`` is filled with the job that scores each variant. One that fails there is scored by its own job.
    """
    for seed in plan.seeds:
        groups: dict[str, list[VariantPlan]] = {}
        for name, variant in plan.variants[seed].items():
            shared = METHODS.get(variant.method).family in ("single", "output", "staged")
            groups.setdefault(f"rules of {variant.pool.name}" if shared else name, []).append(variant)
        for what, variants in groups.items():
            job = f"seed {seed}: score {what} with lm-eval"
            keys = [key for v in variants for key in _unless_inapplicable(plan, v, (v.evaluation_key,))]
            after = tuple(f"seed {seed}: build {variant.name}" for variant in variants)
            arguments = {"setting": plan.setting, "plans": tuple(variants)}
            cost = 8.0 * len(variants[0].digests) if len(variants) > 1 else 8.0
            planned = Job(job, jobs.evaluate_variants, arguments, after=after, cost=cost)
            yield PlannedJob(planned, tuple(keys), "lm-eval")
            passes |= {(seed, variant.name): job for variant in variants}


def _training_jobs(plan: Plan, pool: PoolPlan, seed: int, trainings: dict[str, str]) -> Iterator[PlannedJob]:
    for training in (*((pool.base,) if pool.base else ()), *pool.members):
        identity = training.digests[-1]
        if identity in trainings:
            continue
        folder = isinstance(training, FolderPlan)
        name = f"seed {seed}: {'read' if folder else 'train'} {pool.name}/{training.name}"
        trainings[identity] = name
        base = pool.base if training.start and not folder else None
        needs = _needs((base,) if base else (), trainings)
        cost = 2.0 if isinstance(training, FolderPlan) else _training_seconds(plan, training) + 0.5
        arguments = {"setting": plan.setting, "plan": training, "base": base}
        splits = () if jobs.reads_other_tokens(training, plan.task) else (plan.task.heldout, plan.task.test)
        keys = [predictions_key(d, s, plan.setting.device) for d in training.digests for s in splits]
        keys += examined_keys(training)
        if isinstance(training, TrainingPlan):
            keys.append(training.key())
        yield PlannedJob(Job(name, jobs.prepare_member, arguments, needs, cost=cost), tuple(keys), "train")


def _needs(sources: Iterable[Source], trainings: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(trainings[source.digests[-1]] for source in sources)


def _training_seconds(plan: Plan, training: TrainingPlan) -> float:
    split = jobs.task_of(plan.setting, training.groups).train
    inputs = sum(g in training.groups for g in split.groups) if training.groups else len(split.inputs)
    return training.schedule.epochs * inputs * SECONDS_PER_INPUT[plan.setting.task.kind]


def _expected_seconds(plan: Plan, variant: VariantPlan) -> float:
    """Rough, to start the long ones first."""
    if "epochs" in variant.parameters:
        inputs = len(plan.task.train.inputs)
        return float(variant.parameters["epochs"]) * inputs * SECONDS_PER_INPUT[plan.setting.task.kind] + 1
    return {"mc_dropout": 8.0, "ties": 3.0, "task_arithmetic": 3.0, "greedy_soup": 1.5}.get(variant.method, 0.5)


def _unless_inapplicable(plan: Plan, variant: VariantPlan, keys: tuple[Key, ...]) -> tuple[Key, ...]:
    """Of a variant that is known not to apply, the reason is all there is."""
    record = jobs.built(plan.store, variant)
    return (variant.build_key,) if record and record["status"] != "ok" else keys


def _unless_any_inapplicable(plan: Plan, variants: Iterable[VariantPlan], keys: tuple[Key, ...]) -> tuple[Key, ...]:
    for variant in variants:
        keys = _unless_inapplicable(plan, variant, keys)
    return keys
