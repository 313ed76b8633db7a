"""The jobs of a run: functions that worker processes call with plain arguments, and the names of what they leave.

Every job is described by a plan that knows the keys of its artefacts before it has run, so a run can tell at once what
is already there.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness import correlate, registry, scores, tasks
from harness.combinations import MemberPart, OutputCombination, load_combination
from harness.cost import counters
from harness.evaluate import metrics
from harness.evaluate.predictions import predict
from harness.lm import evaluation
from harness.models.causal_lm import vocabulary_of
from harness.models.recipes import (
    FolderPlan,
    PoolPlan,
    Source,
    TrainingPlan,
    base_digest,
    load_pool,
    member_digests,
    member_of,
    seed_of,
    train_planned,
)
from harness.models.tokens import reading
from harness.store import Key, Store, code_version, digest, read_json, write_json
from harness.tasks import Documents, Task, TaskReference
from harness.tasks.images import Task as ImageTask
from harness.tasks.text import TextTask
from harness.tasks.views import VIEWS
from harness.types import (
    Combination,
    Ingredients,
    NotApplicable,
    Part,
    Pool,
    Split,
    check_tokens,
    check_vocabulary,
    stack,
)

CODE = (
    "harness.models.recipes",
    "harness.combinations",
    "harness.cost.counters",
    "harness.cost.energy",
    "harness.cost.latency",
    "harness.cost.memory",
    "harness.scores",
    "harness.correlate",
    "harness.tasks.images",
    "harness.tasks.text",
    "harness.lm.evaluation",
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
    """The digests of the splits, and of what is scored."""

    train: str
    heldout: str
    test: str
    scored: str

    @classmethod
    def of(cls, task: Task) -> Data:
        return cls(task.train.digest, task.heldout.digest, task.test.digest, task.digest)


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
    def build_key(self) -> Key:
        return Key.of(
            "build",
            code=registry.get(self.method).module,
            method=self.method,
            parameters=dict(self.parameters),
            pool_kind=self.pool.kind,
            members=self.digests,
            base=base_digest(self.pool),
            seed=self.method_seed,
            splits=[self.data.train, self.data.heldout],
            device=self.device,
        )

    @property
    def method_seed(self) -> int:
        """The seed of what is random in building it: the same whatever else the suite holds."""
        return seed_of(self.seed, self.method, dict(self.parameters), self.positions) % 2**31

    def key(self, kind: str, code: str, **inputs: Any) -> Key:
        """The key of something measured on the built variant, on what is scored."""
        return Key.of(kind, code=code, build=self.build_key.digest, test=self.data.scored, **inputs)

    @property
    def evaluation_key(self) -> Key:
        versions = [code_version(module) for module in ("harness.scores", "harness.lm.evaluation")]
        return self.key("evaluation", "harness.cost.counters", versions=versions)

    def score_key(self, reference: VariantPlan) -> Key:
        return self.key("score", "harness.scores", reference=reference.build_key.digest)

    def latency_key(self, reference: VariantPlan) -> Key:
        return self.key("latency", "harness.cost.latency", reference=reference.build_key.digest, machine=machine())

    @property
    def memory_key(self) -> Key:
        return self.key("memory", "harness.cost.memory", machine=machine())

    @property
    def energy_key(self) -> Key:
        return self.key("energy", "harness.cost.energy", machine=machine())


@lru_cache
def machine() -> str:
    """What times, memory and energy depend on and a store may be carried away from."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    names = ("model name", "CPU implementer", "CPU part")  # the latter on ARM
    told = {line.split(":")[1].strip() for line in lines if line.startswith(names)}
    model = ", ".join(sorted(told)) or platform.processor()
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return digest([platform.system(), platform.machine(), model, len(lines), torch.__version__, devices])


@lru_cache(maxsize=8)
def task_of(setting: Setting, groups: tuple[str, ...] = ()) -> Task:
    """The task, or that of a pool whose members were trained on these groups; kept by each process."""
    if groups:
        return task_of(setting).of_groups(groups)
    return tasks.load(setting.task, Store(setting.store), setting.limit)


@lru_cache(maxsize=2)
def documents_of(setting: Setting) -> Documents:
    """What is scored, kept by each process; read from the store, since to load lm-eval takes seconds."""
    task, store = task_of(setting), Store(setting.store)
    if setting.task.kind == "images":
        return task.documents
    key = Key.of("documents", code="harness.tasks.questions", task=task.digest)
    if not store.has(key):
        found = task.documents
        with store.write(key) as folder:
            record = {"ids": list(found.ids), "tasks": list(found.tasks), "labels": found.labels.tolist()}
            write_json(folder / "documents.json", {**record, "classes": found.classes})
    record = read_json(store.path(key) / "documents.json")
    return Documents(record["ids"], record["tasks"], torch.tensor(record["labels"]), record["classes"])


@lru_cache(maxsize=8)
def _pool(setting: Setting, plan: PoolPlan) -> Pool:
    return reading(load_pool(plan, Store(setting.store)), task_of(setting).heldout.tokenizer)


def _members(setting: Setting, plan: VariantPlan) -> Pool:
    pool = _pool(setting, plan.pool)
    return pool if plan.positions is None else pool.subset(plan.positions)


def predictions_key(part: str, split: str, device: str) -> Key:
    """The key of one part's predictions on one split."""
    return Key.of("predictions", code="harness.combinations", part=part, split=split, device=device)


@lru_cache(maxsize=1024)
def _read_predictions(folder: Path) -> Tensor:
    return load_file(folder / "log_probs.safetensors")["log_probs"]


class CachedPredictions:
    """``types.Predict`` on the store: every part runs over every split once, and what that cost is recorded."""

    def __init__(self, store: Store, device: str) -> None:
        self.store, self.device = store, device
        self.seconds = 0.0
        """Spent on predictions that were not there yet."""

    def __call__(self, part: Part, split: Split) -> Tensor:
        key = predictions_key(part.digest, split.digest, self.device)
        if not self.store.has(key):
            begin = time.perf_counter()
            found = predict(part.log_probs, split)
            seconds = time.perf_counter() - begin
            self.seconds += seconds
            with self.store.write(key) as folder:
                save_file({"log_probs": found}, folder / "log_probs.safetensors")
                write_json(folder / "cost.json", {"seconds": seconds})
        return _read_predictions(self.store.path(key))

    def stacked(self, parts: Any, split: Split) -> Tensor:
        return stack(parts, [self(part, split) for part in parts])


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
    cached = CachedPredictions(store, setting.device)
    for checkpoint in range(plan.checkpoints):
        part = MemberPart(member_of(plan, store, checkpoint), device)
        if reads_other_tokens(plan, task):
            continue
        for split in (task.heldout, task.test):
            cached(part, split)


def build_variant(setting: Setting, plan: VariantPlan) -> None:
    """Build a variant and predict with it; a method that does not apply leaves its reason."""
    store, device = Store(setting.store), torch.device(setting.device)
    task = task_of(setting, plan.pool.groups)
    pool = _members(setting, plan)
    cached = CachedPredictions(store, setting.device)
    method = registry.get(plan.method)
    if not store.has(plan.build_key):
        ingredients = Ingredients(
            pool, task.train, task.heldout, cached, plan.method_seed, method.needs, device
        )
        begin = time.perf_counter()
        try:
            if method.family not in ("single", "output"):  # it may run its members on the task's tokens
                check_vocabulary([MemberPart(member) for member in pool.members], task.heldout)
            combination = registry.build(method, ingredients, plan.parameters)
            if not isinstance(combination, OutputCombination):  # one model, which is given the task's tokens
                check_tokens([MemberPart(member) for member in pool.members], task.heldout)
        except NotApplicable as reason:
            with store.write(plan.build_key) as folder:
                write_json(folder / "built.json", {"status": "not_applicable", "reason": str(reason)})
            return
        seconds = time.perf_counter() - begin
        built = {"status": "ok", "build_seconds": seconds, "fit_seconds": seconds - cached.seconds}
        with store.write(plan.build_key) as folder:
            write_json(folder / "built.json", {**built, "details": combination.details})
            combination.save(folder)
    if setting.task.kind == "images":
        _evaluate(setting, plan, load_built(setting, plan), cached)


def _evaluate(setting: Setting, plan: VariantPlan, combination: Combination, cached: CachedPredictions) -> None:
    """Score a variant on test and, where its pool was trained on views, on each of these as well."""
    task, seen = task_of(setting), task_of(setting, plan.pool.groups)
    assert isinstance(seen, ImageTask)
    (on_test, seconds), (on_heldout, more) = (_run(combination, split, cached) for split in (task.test, task.heldout))
    calibrated = scores.calibrated(on_test, task.test.labels, on_heldout, task.heldout.labels)
    record = {"combine_seconds": seconds + more, **calibrated}
    measures = {}
    for view in seen.views:
        rows, split = VIEWS[view].rows(task.test.labels), seen.seen(task.test, view)
        if len(rows):  # --limit may leave none
            examples = metrics.per_example(_run(combination, split, cached)[0].numpy(), split.labels.numpy())
            right = np.full(len(task.test), np.nan)  # a view that leaves an image out says nothing of it
            right[rows.numpy()] = examples["correct"]
            measures[f"accuracy/{view}"] = right
    _write_evaluation(setting, plan, combination, on_test.numpy(), record, measures)


def _run(combination: Combination, split: Split, cached: CachedPredictions) -> tuple[Tensor, float]:
    """Predictions [N, C], and the seconds that went into combining those of the members."""
    if not isinstance(combination, OutputCombination):
        return predict(combination.log_probs, split), 0.0
    stacked = cached.stacked(combination.parts(), split)
    begin = time.perf_counter()
    return combination.combine(stacked), time.perf_counter() - begin


def evaluate_variants(setting: Setting, plans: tuple[VariantPlan, ...]) -> None:
    """Score language models with lm-eval's tasks: all these variants in one pass over the models they share."""
    store = Store(setting.store)
    todo = [plan for plan in plans if is_built(store, plan) and not store.has(plan.evaluation_key)]
    if not todo:
        return
    shared: dict[str, MemberPart] = {}  # without it a member is in memory once for each rule that has it
    combinations = [load_built(setting, plan, shared) for plan in todo]
    task = task_of(setting)
    assert isinstance(task, TextTask)
    scored = evaluation.score_combinations(combinations, task)
    failures = []
    for plan, combination, answers in zip(todo, combinations, scored.answers, strict=True):
        if isinstance(answers, evaluation.Unscored):
            failures.append(f"{plan.name}: {answers}")
            continue
        record = {"combine_seconds": scored.combine_seconds / len(todo), "pass": scored.record}
        try:
            _write_evaluation(setting, plan, combination, answers.log_probs, record, evaluation.measures(answers))
        except scores.NonFinite as error:  # the others of the pass keep their scores
            failures.append(f"{plan.name}: {error}")
    if failures:
        raise evaluation.Unscored("; ".join(failures))


def _write_evaluation(
    setting: Setting,
    plan: VariantPlan,
    combination: Combination,
    log_probs: np.ndarray,
    record: dict[str, Any],
    measures: Mapping[str, np.ndarray],
) -> None:
    """Scores of every document from log-probabilities [N, C], counted costs, and other measures of documents."""
    task = task_of(setting)
    examples = metrics.per_example(log_probs, documents_of(setting).labels.numpy())
    scores.check_finite(examples)
    counts: dict[str, float | None] = {
        "params_stored": counters.parameters_stored(combination),
        "params_active": counters.parameters_active(combination),
    }
    if not why_not_run(setting, plan):
        few = task.test.inputs[: min(task.test.batch, 50)]
        counts["flops_per_example"] = counters.flops_per_example(combination, few)
    with Store(setting.store).write(plan.evaluation_key) as folder:
        columns = {str(name): torch.tensor(examples[name].to_numpy()) for name in examples}
        save_file(columns, folder / "examples.safetensors")
        save_file({name: torch.tensor(values) for name, values in measures.items()}, folder / "measures.safetensors")
        write_json(folder / "evaluation.json", {**record, **counts})


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
    names = ("prediction", "confidence", "correct", "nll", "brier")
    return pd.DataFrame({name: columns[name].numpy() for name in names})


def measures_of(store: Store, plan: VariantPlan) -> dict[str, np.ndarray]:
    """A variant's other values on test, one for each document or NaN, by name: the mean of each is a score."""
    columns = load_file(store.path(plan.evaluation_key) / "measures.safetensors")
    return {name: columns[name].numpy() for name in sorted(columns)}


def score_variant(setting: Setting, plan: VariantPlan, reference: VariantPlan) -> None:
    """Aggregates of one variant and seed, with intervals, paired with the reference's."""
    store = Store(setting.store)
    if not is_built(store, plan):
        return
    other = None if plan.build_key == reference.build_key else examples_of(store, reference)
    documents = documents_of(setting)
    found = scores.score(examples_of(store, plan), documents.labels.numpy(), documents.classes, other)
    found["measures"] = scores.score_measures([measures_of(store, plan)])
    with store.write(plan.score_key(reference)) as folder:
        write_json(folder / "score.json", found)


def summary_key(plans: tuple[VariantPlan, ...], references: tuple[VariantPlan, ...]) -> Key:
    """The key of a variant's summary over its seeds."""
    return Key.of(
        "summary",
        code="harness.scores",
        builds=[plan.build_key.digest for plan in plans],
        references=[plan.build_key.digest for plan in references],
        test=plans[0].data.scored,
    )


def summarise_variant(
    setting: Setting, plans: tuple[VariantPlan, ...], references: tuple[VariantPlan, ...]
) -> None:
    """Means over the seeds, with intervals over seeds and examples."""
    store = Store(setting.store)
    if not all(is_built(store, plan) for plan in plans):
        return
    is_reference = all(p.build_key == r.build_key for p, r in zip(plans, references, strict=True))
    others = None if is_reference else [examples_of(store, plan) for plan in references]
    found = scores.score_over_seeds([examples_of(store, plan) for plan in plans], others)
    found["measures"] = scores.score_measures([measures_of(store, plan) for plan in plans])
    with store.write(summary_key(plans, references)) as folder:
        write_json(folder / "summary.json", found)


def load_built(setting: Setting, plan: VariantPlan, shared: dict[str, MemberPart] | None = None) -> Combination:
    """A variant as it was built; ``shared`` as in ``load_combination``."""
    folder, device = Store(setting.store).path(plan.build_key), torch.device(setting.device)
    return load_combination(folder, _members(setting, plan), device, shared)


def why_not_run(setting: Setting, plan: VariantPlan) -> str | None:
    """Why a variant's cost cannot be measured on the task's windows: they are tokens, and not all its parts'."""
    if registry.get(plan.method).family not in ("single", "output"):
        return None  # a model made of members that read the task's tokens
    try:
        check_tokens(load_built(setting, plan).parts(), task_of(setting).test)
    except NotApplicable as reason:
        return str(reason)
    return None


@dataclass(frozen=True)
class StudyPlan:
    """The ensemble-versus-average study of one pool and seed."""

    pool: PoolPlan
    seed: int
    rule: str
    sizes: tuple[int, ...]
    at_most: int
    data: Data

    def key(self) -> Key:
        return Key.of(
            "study",
            code="harness.correlate",
            members=member_digests(self.pool),
            rule=self.rule,
            sizes=self.sizes,
            at_most=self.at_most,
            splits=[self.data.train, self.data.test],
        )


def study_pool(setting: Setting, plan: StudyPlan) -> None:
    """Score every subset of a pool as an ensemble and as an average."""
    store = Store(setting.store)
    task = task_of(setting)
    members = _pool(setting, plan.pool).members
    parts = [MemberPart(member) for member in members]
    subsets = correlate.choose_subsets(len(members), plan.sizes, plan.at_most)
    record: dict[str, Any] = {"status": "ok"}
    try:
        check_tokens(parts, task.test)
        stacked = CachedPredictions(store, setting.device).stacked(parts, task.test)
        begin = time.perf_counter()
        table = correlate.ensembles_and_averages(members, stacked, task.train, task.test, subsets, plan.rule)
        record |= {"seconds": time.perf_counter() - begin, "rows": table.to_dict("list")}
    except NotApplicable as reason:
        record = {"status": "not_applicable", "reason": str(reason)}
    with store.write(plan.key()) as folder:
        write_json(folder / "study.json", record)
