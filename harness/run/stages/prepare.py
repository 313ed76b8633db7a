"""Making the members: each is made or read, looked through once, and run on held-out and test."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import torch

from harness.evaluate.predictions import CachedPredictions, predictions_key
from harness.keys import Key
from harness.models.architectures import code_of
from harness.pools.pool import examine, examined_keys
from harness.pools.source import MemberPlan
from harness.run.stages.setting import Setting, task_of
from harness.run.stages.stage import Stage
from harness.store import read_json, write_json
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

    def claims(self) -> tuple[Key, ...]:
        return (*self.member.keys(), *self.artefacts())

    def needs(self) -> tuple[Stage, ...]:
        return preparations(self.setting, (self.member.base,), self.pool, self.seed) if self.member.base else ()

    def reads(self) -> tuple[MemberPlan, ...]:
        return (self.member,)

    def seconds(self) -> float:
        task = task_of(self.setting, self.member.groups)
        return self.member.seconds(task, self.setting.kind.seconds_per_input)

    def run(self) -> None:
        store, device = self.setting.store, torch.device(self.setting.device)
        task, member = task_of(self.setting), self.member
        if remarks := self.setting.kind.remarks(member.architecture, task):  # before that by which it is done
            with store.write(_remarks_key(self.setting, member)) as folder:
                write_json(folder / "remarks.json", remarks)
        member.prepare(task_of(self.setting, member.groups), store, device)
        for position, key in enumerate(examined_keys(member)):
            part = MemberPart(member.member(store, position), device)
            if not store.has(key):
                examine(member, part, store, key)
            cached = CachedPredictions(store, self.setting.device)
            for split in (task.heldout, task.test) if member.reads(task) else ():
                cached(part, split)


def remarks_of(setting: Setting, member: MemberPlan) -> list[str]:
    """What preparing a member noted of how it is given test examples."""
    key = _remarks_key(setting, member)
    return read_json(setting.store.read(key) / "remarks.json") if setting.store.has(key) else []


def _remarks_key(setting: Setting, member: MemberPlan) -> Key:
    of = {"architecture": str(member.architecture), "test": task_of(setting).test.digest}
    return Key.of("remarks", code=(__name__, *code_of(member.architecture)), **of)


def preparations(setting: Setting, members: Iterable[MemberPlan], pool: str, seed: int) -> tuple[Prepare, ...]:
    """The stages that make these members of a pool."""
    return tuple(Prepare(setting, member, pool, seed) for member in members)
