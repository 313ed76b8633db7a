"""The settings of a staged system's dial on test: what its curve of quality against cost is drawn of."""

from __future__ import annotations

from dataclasses import dataclass

from harness.cost import dials
from harness.cost.dials import Settings, settings_of
from harness.evaluate.predictions import CachedPredictions
from harness.keys import Key
from harness.run.stages.build import Build
from harness.run.stages.score import Score
from harness.run.stages.setting import task_of
from harness.run.stages.stage import Stage
from harness.run.stages.variant import VariantPlan, is_built, is_inapplicable, load_built


@dataclass(frozen=True, eq=False)
class Dial(Stage):
    """Every setting of one variant on one seed; a variant without any leaves an empty table."""

    variant: VariantPlan

    group = "score"

    @property
    def label(self) -> str:
        return f"seed {self.variant.seed}: settings of {self.variant.name}"

    def needs(self) -> tuple[Stage, ...]:
        return (Build(self.setting, self.variant),)

    def after(self) -> tuple[Stage, ...]:
        return (Score(self.setting, self.variant),)  # whose predictions are there then

    def key(self) -> Key:
        """The artefact."""
        plan = self.variant
        code, data = dials.makers(), plan.data
        return Key.of("settings", code=code, build=plan.build_key.digest, test=data.scored, batch=data.batch)

    def artefacts(self) -> tuple[Key, ...]:
        return () if is_inapplicable(self.setting.store, self.variant) else (self.key(),)

    def run(self) -> None:
        store = self.setting.store
        if is_built(store, self.variant):
            combination = load_built(self.setting, self.variant)
            found = settings_of(combination, task_of(self.setting).test, CachedPredictions(store, self.setting.device))
            with store.write(self.key()) as folder:
                found.save(folder)

    def read(self) -> Settings | None:
        """The settings; None where there are none."""
        store = self.setting.store
        found = Settings.load(store.read(self.key())) if store.has(self.key()) else None
        return found if found is not None and len(found) else None
