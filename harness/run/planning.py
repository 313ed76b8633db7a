"""From a suite to the plan of a run: its data, members and variants, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from harness import environment
from harness.errors import BadInput
from harness.pools.source import AskedPool, PoolPlan
from harness.registry import ENGINES, KINDS, METRICS
from harness.results.columns import numbers, paired
from harness.results.metric import DOCUMENTS
from harness.run.graph import planned_jobs
from harness.run.places import check_places
from harness.run.plan import Options, Plan
from harness.run.stages.setting import Data, Setting, documents_of, task_of
from harness.run.stages.study import Study
from harness.run.stages.variant import VariantPlan
from harness.says import LACKS, says_enough
from harness.store import Store
from harness.suite.bounds import check_weights
from harness.suite.file import MAIN
from harness.suite.suite import Suite, Variant
from harness.tasks import Documents, Task, TaskReference
from harness.types import Criterion


def make_plan(suite: Suite, options: Options, *, compares: bool = True, machine: str | None = None) -> Plan:
    """Plan a run; the task's data and pretrained models are fetched if they are not there, nothing else happens.

    Args:
        suite: what is run.
        options: what the command line adds.
        compares: as ``Plan.compares``.
        machine: the digest of the machine that the plan is about, which then need not be this one: nothing that needs
            its devices will be run here.
    """
    _ = numbers()  # columns that two plug-ins declare are refused before the run, not after it
    _check_code(suite, options.allow_code)
    suite = replace(suite, pools={name: asked.fetched() for name, asked in suite.pools.items()})
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif machine is None and device != "cpu" and not _has(device):
        raise BadInput(f"this machine has no device '{device}'", place="--device", hint="'auto' takes what there is")
    check_places(Path(options.out), suite.file.suite)
    store = Store(Path(options.out) / ".store", options.store)
    with store.listed():
        return _plan(suite, options, store, device, compares, machine)


def _plan(
    suite: Suite, options: Options, store: Store, device: str, compares: bool, machine: str | None
) -> Plan:
    kind = KINDS.get(suite.task.kind)
    suite = replace(suite, task=kind.rendered(suite.task, store, options.limit, options.allow_code))
    seeds = suite.file.seeds if options.seed is None else [options.seed]
    folds = _folds(suite)
    if folds and (strays := set(seeds) - set(dict(folds))):
        hint = f"it has {', '.join(map(str, suite.file.seeds))}"
        raise BadInput(f"the suite has no split for seed {min(strays)}", place="--seed", hint=hint)
    criterion = _criterion(suite)
    where = device, machine or environment.machine_digest()
    memory = options.memory and options.memory // ENGINES.get(options.engine)(options.workers).workers
    setting = Setting(store.root, suite.task, options.limit, *where, criterion, folds, memory, store.shared)
    setting = setting.of(seeds[0])
    task = task_of(setting)
    chosen = _chosen(suite, options.only)
    pools, variants = {}, {}
    for seed in seeds:
        own = setting.of(seed)
        planned = {name: _pool(suite, name, asked, task_of(own), seed) for name, asked in suite.pools.items()}
        data = {name: Data.of(task_of(own, pool.groups)) for name, pool in planned.items()}
        variants[seed] = {
            v.name: VariantPlan(v.name, v.method, v.parameters, v.members, planned[v.pool], seed, data[v.pool], device)
            for v in chosen
        }
        pools[seed] = planned
    studies = []
    if (asked := suite.file.correlate) and options.only is None:
        _check_averages(suite, [pools[seeds[0]][name] for name in asked.pools])
        subsets = tuple(asked.subsets.sizes), asked.subsets.at_most
        studies = [
            Study(setting.of(seed), pools[seed][name], seed, asked.rule, *subsets)
            for seed in seeds
            for name in asked.pools
        ]
    _check_scores(suite, documents_of(setting), pools[seeds[0]])
    if len(seeds) > 1:
        _check_seeds(suite, pools[seeds[0]])
    plan = Plan(suite, options, setting, task, list(seeds), pools, variants, studies, compares=compares)
    plan.jobs = planned_jobs(plan)
    return plan


def _check_code(suite: Suite, allowed: bool) -> None:
    """``BadInput`` where a pool is made by code of the user's, unless that is allowed: nothing of it has run yet."""
    for name, asked in suite.pools.items():
        if (code := asked.source.runs(asked.spec)) and not allowed:
            problem = f"pool '{name}' runs code, '{code}'"
            raise BadInput(problem, place=suite.path, hint="--allow-code runs it: read it first")


def _criterion(suite: Suite) -> Criterion | None:
    """What held-out choices go by: the suite's score where held-out is like test; None: what the kind of data has."""
    if not KINDS.get(suite.task.kind).inputs_are_scored:
        return None
    criteria: dict[str, Criterion] = {"accuracy": "accuracy", "nll": "nll", "brier": "nll"}
    return criteria.get(suite.file.scores[0])


def _check_seeds(suite: Suite, pools: Mapping[str, PoolPlan]) -> None:
    """``BadInput`` where a seed changes no member of any pool: of models like these it would say what is not so."""
    if all(member.why_no_weights for pool in pools.values() for member in pool.members):
        problem = "the members are the same on every seed, for only their predictions are known"
        raise BadInput(problem, place=f"{suite.path}: seeds", hint="drop 'seeds'")


def _check_averages(suite: Suite, pools: Sequence[PoolPlan]) -> None:
    """``BadInput`` for a study of a pool whose members cannot be averaged."""
    reasons = (reason for pool in pools for member in pool.members if (reason := member.why_no_weights))
    if reason := next(reasons, None):
        raise BadInput(f"there are no averages to study: {reason}", place=f"{suite.path}: correlate")


def _check_scores(suite: Suite, documents: Documents, pools: Mapping[str, PoolPlan]) -> None:
    """``BadInput`` for a score that the task does not give, or that needs more than members say."""
    for name in suite.file.scores:
        reads = METRICS.get(name).reads if name in METRICS.all() else "probabilities"
        members = pools[MAIN].members
        if not any(says_enough(member.says, reads) for member in members):
            problem = f"the suite's score is {name}, and member {members[0].name} {LACKS[members[0].says]}"
            raise BadInput(problem, place=f"{suite.path}: score", hint="go by accuracy")
        if documents.written and name in METRICS.all() and not says_enough("correctness", reads):
            problem = f"the suite's score is {name}, and answers that are written are only known to be right or wrong"
            raise BadInput(problem, place=f"{suite.path}: score", hint="go by accuracy")
        if paired()[name].outcome == DOCUMENTS and name not in documents.measured:
            problem = f"the suite's score is {name}, and its task has none"
            hint = "add a task with documents of that score, such as bytes_python of suites/tasks"
            raise BadInput(problem, place=f"{suite.path}: score", hint=hint)


def _folds(suite: Suite) -> tuple[tuple[int, TaskReference], ...]:
    """Where each seed of a suite has a split of its own, each with it: ``--seed`` alone does not change which."""
    if suite.file.split == "shared":
        return ()
    kind = KINDS.get(suite.task.kind)
    return tuple((seed, kind.folded(suite.task, fold)) for fold, seed in enumerate(suite.file.seeds))


def _has(device: str) -> bool:
    _, _, index = device.partition(":")  # torch parses no large one
    return int(index or 0) < torch.cuda.device_count()


def _pool(suite: Suite, name: str, asked: AskedPool, task: Task, seed: int) -> PoolPlan:
    try:
        planned = asked.plan(name, task, seed)
    except BadInput as fault:
        raise fault.at(suite.path) from None
    try:
        check_weights(planned, task.shape, environment.machine()["memory_bytes"])
    except BadInput as fault:
        raise fault.at(suite.place_of(name, "options")) from None
    return planned


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
    references = {suite.file.reference, *(suite.reference_of(v.pool) for v in chosen)}
    return [v for v in suite.variants if v in chosen or v.name in references]


def modules_to_preload(plan: Plan) -> tuple[str, ...]:
    """The modules that workers need and that take seconds to import."""
    members = {module for pool in plan.pools[plan.seeds[0]].values() for one in pool.everyone for module in one.preload}
    return ("harness.run.preload", *plan.setting.kind.preload, *sorted(members))
