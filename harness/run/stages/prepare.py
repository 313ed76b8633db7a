"""Making the members: each is made or read, looked through once, and run on held-out and test."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import torch

from harness.evaluate.predictions import CachedPredictions, predictions_key
from harness.pools.pool import examine, examined_keys
from harness.pools.source import MemberPlan
from harness.run.stages.setting import Setting, task_of
from harness.run.stages.stage import Stage
from harness.store import Key
from harness.systems.parts import MemberPart


@dataclass(frozen=True, eq=False)
class Prepare(Stage):
    """One planned member, or those of one run: pools that describe the same one share it."""

    member: MemberPlan
    pool: str
    seed: int

    group = "train"

    @property
    def label(self) -> str:
        return f"seed {self.seed}: {self.member.verb} {self.pool}/{self.member.name}"

    @property
    def identity(self) -> Hashable:
        # A member that seeds share, such as one from a folder, is run on each one's own splits.
        return self.member.digests, self.setting

    def artefacts(self) -> tuple[Key, ...]:
        task, member = task_of(self.setting), self.member
        splits = (task.heldout, task.test) if member.reads(task) else ()
        keys = [predictions_key(digest, split, self.setting.device) for digest in member.digests for split in splits]
        return (*keys, *examined_keys(member), *member.keys())

    def needs(self) -> tuple[Stage, ...]:
        return preparations(self.setting, (self.member.base,), self.pool, self.seed) if self.member.base else ()

    def seconds(self) -> float:
        task = task_of(self.setting, self.member.groups)
        return self.member.seconds(task, self.setting.kind.seconds_per_input)

    def run(self) -> None:
        store, device = self.setting.store, torch.device(self.setting.device)
        task, member = task_of(self.setting), self.member
        member.prepare(task_of(self.setting, member.groups), store, device)
        for position, key in enumerate(examined_keys(member)):
            part = MemberPart(member.member(store, position), device)
            if not store.has(key):
                examine(member, part, store, key)
            cached = CachedPredictions(store, self.setting.device)
            for split in (task.heldout, task.test) if member.reads(task) else ():
                cached(part, split)


def preparations(setting: Setting, members: Iterable[MemberPlan], pool: str, seed: int) -> tuple[Prepare, ...]:
    """The stages that make these members of a pool."""
    return tuple(Prepare(setting, member, pool, seed) for member in members)
