"""The ensemble-versus-average study of one pool and seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.evaluate import correlate, predictions
from harness.evaluate.predictions import CachedPredictions
from harness.keys import Key
from harness.pools.pool import member_digests
from harness.pools.source import MemberPlan, PoolPlan
from harness.run.stages.prepare import preparations
from harness.run.stages.setting import task_of
from harness.run.stages.stage import Stage
from harness.run.stages.variant import pool_of
from harness.store import read_json, write_json


@dataclass(frozen=True, eq=False)
class Study(Stage):
    """Every subset of a pool scored as an ensemble and as an average; it is about all of the pool's members."""

    pool: PoolPlan
    seed: int
    rule: str
    sizes: tuple[int, ...]
    at_most: int

    group = "study"

    @property
    def label(self) -> str:
        return f"seed {self.seed}: study of {self.pool.name}"

    def artefacts(self) -> tuple[Key, ...]:
        return (self.key(),)

    def key(self) -> Key:
        """The artefact."""
        task = task_of(self.setting)
        return Key.of(
            "study",
            code=(correlate.__name__, *predictions.MAKERS, *predictions.code_of_kind(task.test.kind)),
            members=member_digests(self.pool),
            rule=self.rule,
            sizes=self.sizes,
            at_most=self.at_most,
            splits=[task.train.digest, task.test.digest],
            batch=task.test.batch,
            device=self.setting.device,
        )

    def needs(self) -> tuple[Stage, ...]:
        return preparations(self.setting, self.pool.members, self.pool.name, self.seed)

    def reads(self) -> tuple[MemberPlan, ...]:
        return self.pool.members

    def seconds(self) -> float:
        return 10.0

    def run(self) -> None:
        setting, store = self.setting, self.setting.store
        task = task_of(setting)
        members = pool_of(setting, self.pool, with_base=False).members
        subsets = correlate.choose_subsets(len(members), self.sizes, self.at_most)
        cached = CachedPredictions(store, setting.device)
        record = correlate.study(members, cached, task.train, task.test, subsets, self.rule)
        with store.write(self.key()) as folder:
            write_json(folder / "study.json", record)

    def read(self) -> dict[str, Any]:
        """The table's columns, or why there is none: see ``correlate.study``."""
        record: dict[str, Any] = read_json(self.setting.store.read(self.key()) / "study.json")
        return record
