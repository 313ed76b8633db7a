"""Scores of variants, on one seed and over all."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from harness.evaluate import by_stage, outcomes, scores
from harness.keys import Key
from harness.run import evaluating
from harness.run.stages.build import Build
from harness.run.stages.evaluate import Pass, evaluate_variants, outcomes_of
from harness.run.stages.setting import Setting, documents_of
from harness.run.stages.stage import Stage
from harness.run.stages.variant import VariantPlan, is_built, is_inapplicable
from harness.store import read_json, write_json

Plans = tuple[VariantPlan, ...]
"""One variant on each seed."""


@dataclass(frozen=True, eq=False)
class _Table(Stage):
    """A record of numbers from the evaluations of variants; there is none unless all of them apply."""

    group = "score"

    @abstractmethod
    def variants(self) -> Plans:
        """Those that it is about."""

    @abstractmethod
    def key(self) -> Key:
        """The artefact."""

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """The numbers."""

    def artefacts(self) -> tuple[Key, ...]:
        store = self.setting.store
        return () if any(is_inapplicable(store, plan) for plan in self.variants()) else (self.key(),)

    def run(self) -> None:
        store = self.setting.store
        if all(is_built(store, plan) for plan in self.variants()):
            record = self.record()
            with store.write(self.key()) as folder:
                write_json(folder / f"{self.key().kind}.json", record)

    def read(self) -> dict[str, Any] | None:
        """The numbers, where there are any."""
        key, store = self.key(), self.setting.store
        if not store.has(key):
            return None
        record: dict[str, Any] = read_json(store.read(key) / f"{key.kind}.json")
        return record


@dataclass(frozen=True, eq=False)
class Score(_Table):
    """Aggregates of one variant and seed, with intervals; it is evaluated first where no pass has done that."""

    variant: VariantPlan
    passed: Pass | None = None

    @property
    def label(self) -> str:
        return f"seed {self.variant.seed}: score {self.variant.name}"

    def variants(self) -> Plans:
        return (self.variant,)

    def needs(self) -> tuple[Stage, ...]:
        return (Build(self.setting, self.variant),)

    def after(self) -> tuple[Stage, ...]:
        return (self.passed,) if self.passed else ()

    def seconds(self) -> float:
        return 0.05 + 8e-6 * len(documents_of(self.setting).ids)  # on one core of 2024

    def key(self) -> Key:
        return Key.of("score", code=scores.makers(), evaluation=self.variant.evaluation_key.digest)

    def record(self) -> dict[str, Any]:
        if self.setting.kind.in_one_pass:
            evaluate_variants(self.setting, (self.variant,))
        record = scores.score(outcomes_of(self.setting, self.variant))
        return record | {"measures": _score_measures(self.setting, (self.variant,))}


@dataclass(frozen=True, eq=False)
class Summarise(_Table):
    """Means of one variant over the seeds, with intervals over seeds and examples."""

    plans: Plans

    @property
    def label(self) -> str:
        return f"summary of {self.plans[0].name}"

    def variants(self) -> Plans:
        return self.plans

    def needs(self) -> tuple[Stage, ...]:
        return tuple(Score(self.setting.of(plan.seed), plan) for plan in self.plans)

    def seconds(self) -> float:
        return 0.02 + 2e-5 * len(self.plans) * len(documents_of(self.setting).ids)

    def key(self) -> Key:
        return Key.of("summary", code=scores.makers(), evaluations=[plan.evaluation_key.digest for plan in self.plans])

    def record(self) -> dict[str, Any]:
        record = scores.score_over_seeds([outcomes_of(self.setting.of(plan.seed), plan) for plan in self.plans])
        return record | {"measures": _score_measures(self.setting, self.plans)}


def _score_measures(setting: Setting, seeds: Plans) -> dict[str, dict[str, float | None]]:
    """Scores of tasks and views of one variant over its seeds."""
    store, keys = setting.store, [plan.evaluation_key for plan in seeds]
    ids = [documents_of(setting.of(plan.seed)).ids for plan in seeds]
    measures, documents = [evaluating.read_measures(store, key) for key in keys], documents_of(setting)
    clusters = dict(documents.measured)
    if documents.clusters and not outcomes.differ(ids):
        clusters |= dict.fromkeys(by_stage.names_in(measures[0]), documents.clusters)
    means = scores.score_measures(measures, ids, clusters)
    return means | scores.score_aggregates([evaluating.read_aggregates(store, key) for key in keys], ids)
