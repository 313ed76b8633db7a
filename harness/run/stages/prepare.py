"""Making the members: each is trained or read, looked through once, and run on held-out and test."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch

from harness.evaluate.predictions import CachedPredictions, predictions_key
from harness.models.causal_lm import vocabulary_of
from harness.pools.trained import FolderPlan, Source, TrainingPlan, examine, examined_keys, member_of, train_planned
from harness.run.stages.setting import Setting, task_of
from harness.run.stages.stage import Stage
from harness.store import Key
from harness.systems.parts import MemberPart
from harness.tasks import Task

SECONDS_PER_INPUT = {"images": 2.5e-4, "text": 0.012}
"""Of training."""


@dataclass(frozen=True, eq=False)
class Prepare(Stage):
    """One source of members: pools that describe the same one share it."""

    source: Source
    base: Source | None
    """What it starts from, if that has to be made as well."""
    pool: str
    seed: int

    group = "train"

    @property
    def label(self) -> str:
        verb = "read" if isinstance(self.source, FolderPlan) else "train"
        return f"seed {self.seed}: {verb} {self.pool}/{self.source.name}"

    @property
    def identity(self) -> Hashable:
        return self.source.digests[-1]

    def artefacts(self) -> tuple[Key, ...]:
        task = task_of(self.setting)
        splits = () if reads_other_tokens(self.source, task) else (task.heldout, task.test)
        keys = [predictions_key(d, split, self.setting.device) for d in self.source.digests for split in splits]
        made = [self.source.key()] if isinstance(self.source, TrainingPlan) else []
        return (*keys, *examined_keys(self.source), *made)

    def needs(self) -> tuple[Stage, ...]:
        return (Prepare(self.setting, self.base, None, self.pool, self.seed),) if self.base else ()

    def seconds(self) -> float:
        if not isinstance(self.source, TrainingPlan):
            return 2.0
        split = task_of(self.setting, self.source.groups).train
        groups = self.source.groups
        inputs = sum(group in groups for group in split.groups) if groups else len(split.inputs)
        return self.source.schedule.epochs * inputs * SECONDS_PER_INPUT[self.setting.task.kind] + 0.5

    def run(self) -> None:
        store, device = self.setting.store, torch.device(self.setting.device)
        task, source = task_of(self.setting), self.source
        if isinstance(source, TrainingPlan) and not store.has(source.key()):
            start = member_of(self.base, store) if self.base else None
            train_planned(source, task_of(self.setting, source.groups).train, store, start, device)
        for checkpoint, key in enumerate(examined_keys(source)):
            part = MemberPart(member_of(source, store, checkpoint), device)
            if not store.has(key):
                examine(source, part.member, part.module, store, key)
            if not reads_other_tokens(source, task):
                cached = CachedPredictions(store, self.setting.device)
                for split in (task.heldout, task.test):
                    cached(part, split)


def reads_other_tokens(source: Source, task: Task) -> bool:
    """Whether a model has a tokenizer of its own, or lacks some of the task's tokens: windows say nothing to it."""
    if not isinstance(source, FolderPlan) or task.heldout.tokenizer is None:
        return False
    tokens = max(int(split.inputs.max()) for split in (task.heldout, task.test))
    lacking = (vocabulary_of(source.architecture) or 0) <= tokens
    return lacking or source.model.tokenizer not in (None, task.heldout.tokenizer)


def preparations(setting: Setting, sources: tuple[Source, ...], pool: str, base: Source | None, seed: int) -> tuple[
    Prepare, ...
]:  # fmt: skip
    """The stages that make these members of a pool; those that start from its base need that first."""
    return tuple(
        Prepare(setting, source, base if source.start and isinstance(source, TrainingPlan) else None, pool, seed)
        for source in sources
    )
