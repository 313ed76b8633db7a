"""The jobs of a run: functions that worker processes call with plain arguments, and the names of what they leave.

Every job is described by a plan that knows the keys of its artefacts before it has run, so a run can tell at once what
is already there. Jobs only say what is made of what: the module that makes an artefact is the code of its key, and the
inputs that a job hands to it are among the key's digests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from harness import tasks
from harness.environment import machine_digest
from harness.errors import BadInput
from harness.evaluate import correlate, predictions, scores
from harness.evaluate.predictions import CachedPredictions
from harness.kinds import evaluating
from harness.lm.evaluation import Unscored
from harness.models.causal_lm import vocabulary_of
from harness.models.tokens import reading
from harness.pools.trained import (
    FolderPlan,
    PoolPlan,
    Source,
    TrainingPlan,
    base_digest,
    examine,
    examined_keys,
    load_pool,
    member_digests,
    member_of,
    seed_of,
    train_planned,
)
from harness.registry import METHODS
from harness.run import building
from harness.store import Key, Store, read_json, write_json
from harness.systems.parts import MemberPart
from harness.systems.staged import why_undecided
from harness.systems.systems import load_combination
from harness.tasks import Documents, Task, TaskReference
from harness.tasks.answers import Aggregate
from harness.tasks.asked import read_documents
from harness.tasks.images import Task as ImageTask
from harness.tasks.text import TextTask
from harness.types import Combination, Ingredients, NotApplicable, Pool, check_tokens

CODE = (
    *evaluating.MAKERS,
    "harness.run.building",
    "harness.cost.energy",
    "harness.cost.forecast",
    "harness.cost.latency",
    "harness.cost.memory",
    "harness.evaluate.scores",
    "harness.evaluate.correlate",
    "harness.tasks.images",
    "harness.tasks.text",
)
"""The modules, besides the methods, that artefacts are named after."""


@dataclass(frozen=True)
class Setting:
    """What all jobs of a run share."""

    store: Path
    task: TaskReference
    limit: int | None
    device: str


@dataclass(frozen=True)
class Data:
    """The digests of the splits and of what is scored, and how many inputs are run at once."""

    train: str
    heldout: str
    test: str
    scored: str
    batch: int

    @classmethod
    def of(cls, task: Task) -> Data:
        return cls(task.train.digest, task.heldout.digest, task.test.digest, task.digest, task.test.batch)


@dataclass(frozen=True, eq=False)
class VariantPlan:
    """One variant on one seed."""

    name: str
    method: str
    parameters: Mapping[str, Any]
    positions: tuple[int, ...] | None
    pool: PoolPlan
    seed: int
    data: Data
    device: str

    @property
    def digests(self) -> tuple[str, ...]:
        everything = member_digests(self.pool)
        return everything if self.positions is None else tuple(everything[i] for i in self.positions)

    @property
    def used(self) -> tuple[int, ...]:
        """The positions in the pool of the members that it touches: what becomes of any other is nothing to it."""
        given = range(len(member_digests(self.pool))) if self.positions is None else self.positions
        named = METHODS.get(self.method).uses(self.parameters)
        return tuple(given) if named is None else tuple(given[i] for i in named if i < len(given))

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where these members come from and, if its method needs that, their base."""
        by_position = [source for source in self.pool.members for _ in source.digests]
        base = (self.pool.base,) if self.pool.base and self.uses_base else ()
        return (*base, *dict.fromkeys(by_position[i] for i in self.used))

    @property
    def uses_base(self) -> bool:
        return "base" in METHODS.get(self.method).needs

    @property
    def build_key(self) -> Key:
        method = METHODS.get(self.method)
        return Key.of(
            "build",
            code=building.makers(method),
            method=self.method,
            parameters=dict(self.parameters),
            pool_kind=self.pool.kind,
            members=self.digests,
            base=base_digest(self.pool),
            seed=self.method_seed,
            splits=[self.data.train, self.data.heldout],
            batch=self.data.batch,
            device=self.device,
        )

    @property
    def method_seed(self) -> int:
        """The seed of what is random in building it: the same whatever else the suite holds."""
        return seed_of(self.seed, self.method, dict(self.parameters), self.positions) % 2**31

    @property
    def evaluation_key(self) -> Key:
        build = self.build_key.digest
        return Key.of("evaluation", code=evaluating.MAKERS, build=build, test=self.data.scored, batch=self.data.batch)

    @property
    def score_key(self) -> Key:
        return Key.of("score", code="harness.evaluate.scores", evaluation=self.evaluation_key.digest)

    def comparison_key(self, reference: VariantPlan) -> Key:
        evaluations = [self.evaluation_key.digest, reference.evaluation_key.digest]
        return Key.of("comparison", code="harness.evaluate.scores", evaluations=evaluations)

    def latency_key(self, reference: VariantPlan) -> Key:
        return self._cost_key("latency", reference=reference.build_key.digest)

    @property
    def memory_key(self) -> Key:
        return self._cost_key("memory")

    @property
    def energy_key(self) -> Key:
        return self._cost_key("energy")

    def _cost_key(self, cost: str, **inputs: Any) -> Key:
        about = {"build": self.build_key.digest, "test": self.data.test, "batch": self.data.batch}
        return Key.of(cost, code=f"harness.cost.{cost}", **about, machine=machine_digest(), **inputs)




@lru_cache(maxsize=8)
def task_of(setting: Setting, groups: tuple[str, ...] = ()) -> Task:
    """The task, or that of a pool whose members were trained on these groups; kept by each process."""
    if groups:
        return task_of(setting).of_groups(groups)
    return tasks.load(setting.task, Store(setting.store), setting.limit)


@lru_cache(maxsize=2)
def documents_of(setting: Setting) -> Documents:
    """What is scored, kept by each process; of lm-eval's tasks what planning left, since lm-eval takes seconds."""
    kept = read_documents(setting.task.asked, Store(setting.store)) if setting.task.asked else None
    return kept or task_of(setting).documents


@lru_cache(maxsize=64)
def _pool(setting: Setting, plan: PoolPlan, used: tuple[int, ...] | None = None, with_base: bool = True) -> Pool:
    """The pool; of members that are not among ``used``, the names only."""
    return reading(load_pool(plan, Store(setting.store), used, with_base), task_of(setting).heldout.tokenizer)


def _members(setting: Setting, plan: VariantPlan) -> Pool:
    pool = _pool(setting, plan.pool, plan.used, plan.uses_base)
    return pool if plan.positions is None else pool.subset(plan.positions)


def reads_other_tokens(plan: Source, task: Task) -> bool:
    """Whether a model has a tokenizer of its own, or lacks some of the task's tokens: windows say nothing to it."""
    if not isinstance(plan, FolderPlan) or task.heldout.tokenizer is None:
        return False
    tokens = max(int(split.inputs.max()) for split in (task.heldout, task.test))
    lacking = (vocabulary_of(plan.architecture) or 0) <= tokens
    return lacking or plan.model.tokenizer not in (None, task.heldout.tokenizer)


def prepare_member(setting: Setting, plan: Source, base: Source | None) -> None:
    """Train one model (or one run's checkpoints) unless it is there, and predict held-out and test with it."""
    store, device = Store(setting.store), torch.device(setting.device)
    task = task_of(setting)
    if isinstance(plan, TrainingPlan) and not store.has(plan.key()):
        start = member_of(base, store) if base else None
        train_planned(plan, task_of(setting, plan.groups).train, store, start, device)
    for checkpoint in range(plan.checkpoints):
        part = MemberPart(member_of(plan, store, checkpoint), device)
        if not store.has(key := examined_keys(plan)[checkpoint]):
            examine(plan, part.member, part.module, store, key)
        if reads_other_tokens(plan, task):
            continue
        cached = CachedPredictions(store, setting.device)
        for split in (task.heldout, task.test):
            cached(part, split)


def build_variant(setting: Setting, plan: VariantPlan) -> None:
    """Build a variant and predict with it; a method that does not apply leaves its reason."""
    store, method = Store(setting.store), METHODS.get(plan.method)
    task = task_of(setting, plan.pool.groups)
    cached = CachedPredictions(store, setting.device)
    if not store.has(plan.build_key):
        pool, device = _members(setting, plan), torch.device(setting.device)
        ingredients = Ingredients(pool, task.train, task.heldout, cached, plan.method_seed, method.needs, device)
        building.build(store, plan.build_key, method, ingredients, plan.parameters, cached)
    if setting.task.kind == "images" and is_built(store, plan):
        combination, scored = load_built(setting, plan), task_of(setting)
        assert isinstance(scored, ImageTask)
        assert isinstance(task, ImageTask)
        found = evaluating.evaluate_on_images(combination, scored, task, cached)
        _write_evaluation(setting, plan, combination, found)


def evaluate_variants(setting: Setting, plans: tuple[VariantPlan, ...]) -> None:
    """Score language models with lm-eval's tasks: all these variants in one pass over the models they share.

    Where a pass fails, its halves are tried, so that what is wrong with one variant is nothing to the others. Those
    that are left in the end are scored by themselves, each by its own job; this one fails with their names.
    """
    store = Store(setting.store)
    todo = [plan for plan in plans if is_built(store, plan) and not store.has(plan.evaluation_key)]
    if not todo:
        return
    task = task_of(setting)
    assert isinstance(task, TextTask)
    _ = task.questions  # what is wrong with these concerns all variants
    left = _evaluate_together(setting, task, sorted(todo, key=lambda plan: plan.used))
    if left:
        raise RuntimeError("; ".join(f"{name}: {reason}" for name, reason in left.items()))


def _evaluate_together(setting: Setting, task: TextTask, plans: list[VariantPlan]) -> dict[str, str]:
    """Score variants in one pass, or in its halves; returns those that are left, each with the reason."""
    shared: dict[str, MemberPart] = {}  # without it a member is in memory once for each rule that has it
    try:
        combinations = [load_built(setting, plan, shared) for plan in plans]
        evaluations = evaluating.evaluate_on_text(combinations, task)
    except (BadInput, NotApplicable, RuntimeError, ValueError) as error:
        if len(plans) == 1:
            raise
        reason = f"{type(error).__name__}: {error}"
        halves = plans[: len(plans) // 2], plans[len(plans) // 2 :]
        left: dict[str, str] = {}
        for half in halves:
            left |= {half[0].name: reason} if len(half) == 1 else _evaluate_together(setting, task, half)
        return left
    left = {}
    for plan, combination, found in zip(plans, combinations, evaluations, strict=True):
        try:
            if isinstance(found, Unscored):
                raise found
            _write_evaluation(setting, plan, combination, found)
        except Exception as error:
            if len(plans) == 1:
                raise
            left[plan.name] = f"{type(error).__name__}: {error}"
    return left


def _write_evaluation(
    setting: Setting, plan: VariantPlan, combination: Combination, found: evaluating.Evaluation
) -> None:
    test, labels = task_of(setting).test, documents_of(setting).labels
    few = None if why_not_run(setting, plan) else test.inputs[: min(test.batch, 50)]
    evaluating.write_evaluation(Store(setting.store), plan.evaluation_key, combination, found, labels, few)


def built(store: Store, plan: VariantPlan) -> dict[str, Any] | None:
    """What building a variant left: its status, seconds and details; None if it was not built."""
    if not store.has(plan.build_key):
        return None
    record: dict[str, Any] = read_json(store.path(plan.build_key) / "built.json")
    return record


def is_built(store: Store, plan: VariantPlan) -> bool:
    """Whether a variant was built, and applies."""
    record = built(store, plan)
    return record is not None and record["status"] == "ok"


def examples_of(store: Store, plan: VariantPlan) -> pd.DataFrame:
    """A variant's per-example table on test."""
    columns = load_file(store.path(plan.evaluation_key) / "examples.safetensors")
    names = ("prediction", "confidence", "correct", "nll", "brier", "calls")
    return pd.DataFrame({name: columns[name].numpy() for name in names})


def measures_of(store: Store, plan: VariantPlan) -> dict[str, np.ndarray]:
    """A variant's other values on test, one for each document or NaN, by name: the mean of each is a score."""
    columns = load_file(store.path(plan.evaluation_key) / "measures.safetensors")
    return {name: columns[name].numpy() for name in sorted(columns)}


def aggregates_of(store: Store, plan: VariantPlan) -> dict[str, Aggregate]:
    """A variant's scores of whole tasks that are no means over documents, by name."""
    folder = store.path(plan.evaluation_key)
    draws, of_tasks = load_file(folder / "draws.safetensors"), read_json(folder / "evaluation.json")["aggregates"]
    return {name: Aggregate(of["value"], draws[name].numpy(), of["n"]) for name, of in sorted(of_tasks.items())}


def score_variant(setting: Setting, plan: VariantPlan) -> None:
    """Aggregates of one variant and seed, with intervals; it is evaluated first where no pass has done that."""
    store = Store(setting.store)
    if not is_built(store, plan):
        return
    if setting.task.kind == "text":
        evaluate_variants(setting, (plan,))
    documents = documents_of(setting)
    found = scores.score(examples_of(store, plan), documents.labels.numpy(), documents.classes)
    found["measures"] = _score_measures(store, (plan,))
    with store.write(plan.score_key) as folder:
        write_json(folder / "score.json", found)


def compare_variant(setting: Setting, plan: VariantPlan, reference: VariantPlan) -> None:
    """One variant and seed against the reference, paired by example."""
    store = Store(setting.store)
    if is_built(store, plan) and is_built(store, reference):
        found = scores.compare(examples_of(store, plan), examples_of(store, reference))
        with store.write(plan.comparison_key(reference)) as folder:
            write_json(folder / "comparison.json", found)


Plans = tuple[VariantPlan, ...]
"""One variant on each seed."""


def summary_key(plans: Plans) -> Key:
    """The key of a variant's summary over its seeds."""
    return Key.of("summary", code="harness.evaluate.scores", evaluations=[plan.evaluation_key.digest for plan in plans])


def summarise_variant(setting: Setting, plans: Plans) -> None:
    """Means over the seeds, with intervals over seeds and examples."""
    store = Store(setting.store)
    if all(is_built(store, plan) for plan in plans):
        found = scores.score_over_seeds([examples_of(store, plan) for plan in plans])
        found["measures"] = _score_measures(store, plans)
        with store.write(summary_key(plans)) as folder:
            write_json(folder / "summary.json", found)


def comparison_key(plans: Plans, references: Plans) -> Key:
    """The key of a variant's comparison with the reference over the seeds."""
    evaluations = [[plan.evaluation_key.digest for plan in each] for each in (plans, references)]
    return Key.of("comparison", code="harness.evaluate.scores", evaluations=evaluations)


def compare_over_seeds(setting: Setting, plans: Plans, references: Plans) -> None:
    """A variant against the reference, paired by seed and example."""
    store = Store(setting.store)
    if all(is_built(store, plan) for plan in (*plans, *references)):
        tables = [[examples_of(store, plan) for plan in each] for each in (plans, references)]
        with store.write(comparison_key(plans, references)) as folder:
            write_json(folder / "comparison.json", scores.compare_over_seeds(*tables))


def _score_measures(store: Store, seeds: tuple[VariantPlan, ...]) -> dict[str, dict[str, float | None]]:
    """Scores of tasks and views of one variant over its seeds."""
    found = scores.score_measures([measures_of(store, plan) for plan in seeds])
    return found | scores.score_aggregates([aggregates_of(store, plan) for plan in seeds])


def load_built(setting: Setting, plan: VariantPlan, shared: dict[str, MemberPart] | None = None) -> Combination:
    """A variant as it was built; ``shared`` as in ``load_combination``."""
    folder, device = Store(setting.store).path(plan.build_key), torch.device(setting.device)
    return load_combination(folder, _members(setting, plan), device, shared)


def why_not_run(setting: Setting, plan: VariantPlan) -> str | None:
    """Why a variant's cost cannot be measured on the task's windows: they are tokens, and not all its parts'."""
    if METHODS.get(plan.method).family not in ("single", "output", "staged"):
        return None  # a model made of members that read the task's tokens
    try:
        check_tokens(load_built(setting, plan).parts(), task_of(setting).test)
    except NotApplicable as reason:
        return str(reason)
    return None


def why_not_timed(setting: Setting, plan: VariantPlan) -> str | None:
    """Why a variant cannot be run as a whole on the task's inputs, to be timed."""
    if reason := why_not_run(setting, plan):
        return reason
    if METHODS.get(plan.method).family != "staged":
        return None
    return why_undecided(load_built(setting, plan), task_of(setting).test)


@dataclass(frozen=True)
class StudyPlan:
    """The ensemble-versus-average study of one pool and seed."""

    pool: PoolPlan
    seed: int
    rule: str
    sizes: tuple[int, ...]
    at_most: int
    data: Data
    device: str

    def key(self) -> Key:
        return Key.of(
            "study",
            code=("harness.evaluate.correlate", *predictions.MAKERS),
            members=member_digests(self.pool),
            rule=self.rule,
            sizes=self.sizes,
            at_most=self.at_most,
            splits=[self.data.train, self.data.test],
            batch=self.data.batch,
            device=self.device,
        )


def study_pool(setting: Setting, plan: StudyPlan) -> None:
    """Score every subset of a pool as an ensemble and as an average; it is about all of the pool's members."""
    store = Store(setting.store)
    task = task_of(setting)
    members = _pool(setting, plan.pool, with_base=False).members
    subsets = correlate.choose_subsets(len(members), plan.sizes, plan.at_most)
    cached = CachedPredictions(store, setting.device)
    record = correlate.study(members, cached, task.train, task.test, subsets, plan.rule)
    with store.write(plan.key()) as folder:
        write_json(folder / "study.json", record)
