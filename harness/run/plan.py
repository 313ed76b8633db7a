"""What a run will do, known before anything is done: its members, variants and jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from harness.engines.engine import Job
from harness.pools.source import PoolPlan
from harness.results.shard import Part
from harness.run.stages.setting import Setting
from harness.run.stages.stage import Stage
from harness.run.stages.study import Study
from harness.run.stages.variant import VariantPlan
from harness.store import Store
from harness.suite.suite import Suite
from harness.tasks import Task


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
    engine: str = "local"
    job_timeout: float | None = None
    """Seconds that each job may take; 0 for as long as it likes, None for the usual limit."""
    memory: int | None = None
    """Bytes that all workers together may hold; None for the usual share of what is free."""
    store: str | None = None
    """The URL of a place that machines share artefacts through (``Store.shared``)."""

    def limit_of(self, job: Job) -> float | None:
        """Seconds after which a job is ended; None where it never is.

        The usual limit is for what hangs, not for what is slow: how long a large model takes is only guessed.
        """
        usual = max(DAY, PATIENCE * job.cost)
        return usual if self.job_timeout is None else self.job_timeout or None


DAY = 86400.0
PATIENCE = 100.0
"""How many times as long as was expected a job may take, where that is more than a day."""


@dataclass(frozen=True)
class PlannedJob:
    """A stage, and the job that does it."""

    stage: Stage
    job: Job


@dataclass(frozen=True)
class Elsewhere:
    """Where the costs of a plan were measured, if not on this machine: its shards ran on others."""

    machines: Mapping[str, str]
    """By variant, the digest of the machine that measured it."""
    unavailable: Mapping[str, str | None]
    """By cost, why it could not be measured there; None where it could."""
    memory_bytes: int
    """Of the device."""


@dataclass
class Plan:
    """Everything that a run will do."""

    suite: Suite
    options: Options
    setting: Setting
    """Of the first seed, on which all is done that is done once; ``setting.of`` has those of the others."""
    task: Task
    """Of the first seed."""
    seeds: list[int]
    pools: dict[int, dict[str, PoolPlan]]
    variants: dict[int, dict[str, VariantPlan]]
    studies: list[Study]
    jobs: list[PlannedJob] = field(default_factory=list)
    """As ``graph.planned_jobs`` has them."""
    compares: bool = True
    """Whether variants are compared with the reference; a candidate has nothing beside it that it could be."""
    part: Part | None = None
    """Where its jobs are only those of a shard: which."""
    elsewhere: Elsewhere | None = None

    def missing(self) -> list[PlannedJob]:
        """The jobs whose artefacts are not all in the store."""
        with self.store.listed():
            return [planned for planned in self.jobs if not planned.stage.is_done()]

    def draw(self) -> None:
        """Copy here what a shared place has of all that the jobs leave: results are read from it."""
        with self.store.listed():
            self.store.draw(key for planned in self.jobs for key in planned.stage.artefacts())

    @property
    def meters(self) -> torch.device | Mapping[str, str | None]:
        """What says which costs can be measured (``cost.choosing.Meters``)."""
        return torch.device(self.setting.device) if self.elsewhere is None else self.elsewhere.unavailable

    def machine_of(self, variant: VariantPlan) -> Setting:
        """The setting of a variant's seed, of the machine that measures what it costs."""
        own = self.setting.of(variant.seed)
        return own if self.elsewhere is None else replace(own, machine=self.elsewhere.machines[variant.name])

    @property
    def store(self) -> Store:
        return self.setting.store

    def reference(self, seed: int) -> VariantPlan:
        """The suite's reference on a seed: what the main pool is compared with, and costs are ratios of."""
        return self.variants[seed][self.suite.file.reference]

    def reference_of(self, variant: VariantPlan) -> VariantPlan:
        """What a variant is compared with: the reference of its own pool, on its seed."""
        return self.variants[variant.seed][self.suite.reference_of(variant.pool.name)]

    def over_seeds(self, name: str) -> tuple[VariantPlan, ...]:
        """One variant on each seed."""
        return tuple(self.variants[seed][name] for seed in self.seeds)
