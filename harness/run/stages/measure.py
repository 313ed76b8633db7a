"""Measuring what built variants cost, in processes of their own, with nothing else running."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.cost.energy import WINDOW_SECONDS
from harness.run import measuring
from harness.run.measuring import Cost
from harness.run.stages.build import Build
from harness.run.stages.stage import Stage
from harness.run.stages.variant import VariantPlan, is_inapplicable
from harness.store import Key, read_json

SECONDS_PER_COST: dict[Cost, float] = {"memory": 0.3, "latency": 0.7, "energy": WINDOW_SECONDS + 1}


@dataclass(frozen=True, eq=False)
class MeasureIdle(Stage):
    """The power of the idle device, once for all variants."""

    group = "measure"
    place = "alone"
    label = "idle power"

    def artefacts(self) -> tuple[Key, ...]:
        return (measuring.idle_key(self.setting),)

    def seconds(self) -> float:
        return WINDOW_SECONDS

    def run(self) -> None:
        measuring.measure_idle(self.setting)


@dataclass(frozen=True, eq=False)
class MeasureProcess(Stage):
    """What a worker takes before it holds any model."""

    group = "measure"
    place = "alone"
    label = "size of a process"

    def artefacts(self) -> tuple[Key, ...]:
        return (measuring.process_key(self.setting),)

    def seconds(self) -> float:
        return 0.5

    def run(self) -> None:
        measuring.measure_process(self.setting)

    def read(self) -> int | None:
        """Bytes; None where they are not known."""
        (key,), store = self.artefacts(), self.setting.store
        return int(read_json(store.path(key) / "process.json")["bytes"]) if store.has(key) else None


@dataclass(frozen=True, eq=False)
class Measure(Stage):
    """These costs of one variant."""

    variant: VariantPlan
    reference: VariantPlan
    costs: tuple[Cost, ...]
    once: tuple[Stage, ...] = ()

    group = "measure"
    place = "alone"

    @property
    def label(self) -> str:
        return f"seed {self.variant.seed}: measure {self.variant.name}"

    def artefacts(self) -> tuple[Key, ...]:
        store = self.setting.store
        if is_inapplicable(store, self.variant):
            return ()
        without = {"latency"} if is_inapplicable(store, self.reference) else set()
        return tuple(self.key(cost) for cost in self.costs if cost not in without)

    def key(self, cost: Cost) -> Key:
        """The artefact of one cost."""
        return measuring.key(cost, self.variant, self.reference)

    def needs(self) -> tuple[Stage, ...]:
        return (Build(self.setting, self.variant),)

    def after(self) -> tuple[Stage, ...]:
        return (Build(self.setting, self.reference), *self.once)

    def seconds(self) -> float:
        return sum(SECONDS_PER_COST[cost] for cost in self.costs)

    def run(self) -> None:
        measuring.measure_variant(self.setting, self.variant, self.reference, self.costs)

    def read(self, cost: Cost) -> dict[str, Any] | None:
        """The figures of one cost, where it was measured."""
        store, key = self.setting.store, self.key(cost)
        if not store.has(key):
            return None
        figures: dict[str, Any] = read_json(store.path(key) / f"{cost}.json")
        return figures
