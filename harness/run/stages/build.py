"""Building variants: a method is run on its ingredients, and what it returns is run on test where that stands alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from harness.evaluate.predictions import CachedPredictions
from harness.keys import Key
from harness.pools.source import MemberPlan
from harness.run import building
from harness.run.stages.evaluate import keep_evaluation
from harness.run.stages.prepare import preparations
from harness.run.stages.setting import documents_of, task_of
from harness.run.stages.stage import Stage
from harness.run.stages.variant import VariantPlan, is_built, is_inapplicable, load_built, members_of
from harness.types import Ingredients


@dataclass(frozen=True, eq=False)
class Build(Stage):
    """One variant on one seed; a method that does not apply leaves its reason."""

    variant: VariantPlan

    group = "build"

    @property
    def label(self) -> str:
        return f"seed {self.variant.seed}: build {self.variant.name}"

    def artefacts(self) -> tuple[Key, ...]:
        key = self.variant.build_key
        if self.setting.kind.in_one_pass or is_inapplicable(self.setting.store, self.variant):
            return (key,)
        return (key, self.variant.evaluation_key)

    def needs(self) -> tuple[Stage, ...]:
        variant = self.variant
        made = partial(preparations, self.setting, variant.sources, variant.pool.name, variant.seed)
        return variant.once(("stages", self.setting, variant.seed), lambda used: made())

    def reads(self) -> tuple[MemberPlan, ...]:
        return self.variant.sources

    def seconds(self) -> float:
        parameters = self.variant.parameters
        if "epochs" in parameters:
            inputs = len(task_of(self.setting).train.inputs)
            return float(parameters["epochs"]) * inputs * self.setting.kind.seconds_per_input + 1
        return self.variant.declared.seconds

    def run(self) -> None:
        setting, plan, store = self.setting, self.variant, self.setting.store
        task = task_of(setting, plan.pool.groups)
        cached = CachedPredictions(store, setting.device)
        if not store.has(plan.build_key):
            needs, device = plan.declared.needs, torch.device(setting.device)
            pool = members_of(setting, plan)
            ingredients = Ingredients(pool, task.train, task.heldout, cached, plan.method_seed, needs, device)
            written = plan.declared.writes and documents_of(setting).written
            given = plan.build_key, plan.declared, ingredients, plan.parameters, cached
            building.build(store, *given, written=written)
        if not setting.kind.in_one_pass and is_built(store, plan):
            combination = load_built(setting, plan)
            (evaluation,) = setting.kind.evaluate([combination], task_of(setting), task, cached)
            keep_evaluation(setting, plan, combination, evaluation)
