"""Measuring what built variants cost, in processes of their own, with nothing else running."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from harness.cost.cost import Bench, Cost, Figures
from harness.cost.measuring import NotGiven, cost_key, keep, kept, measure, once_key, unmeasured
from harness.cost.runnable import why_not_timed
from harness.exhausted import is_out_of_memory
from harness.keys import Key
from harness.registry import COSTS
from harness.run.stages.build import Build
from harness.run.stages.setting import task_of
from harness.run.stages.stage import Stage
from harness.run.stages.variant import VariantPlan, is_built, is_inapplicable, load_built
from harness.systems.systems import dense_network


@dataclass(frozen=True, eq=False)
class MeasureOnce(Stage):
    """What a cost measures once for all variants (``Cost.once``); without it they are measured all the same."""

    cost: str
    """Its name: a declaration holds functions, which cannot be sent to a worker."""

    group = "measure"
    place = "alone"

    @property
    def label(self) -> str:
        return f"measure {self.cost} once"

    def key(self) -> Key:
        """The artefact."""
        setting, test = self.setting, task_of(self.setting).test
        return once_key(
            COSTS.get(self.cost),
            device=setting.device,
            test=test.digest,
            batch=test.batch,
            machine=setting.machine,
        )

    def artefacts(self) -> tuple[Key, ...]:
        return (self.key(),)

    def seconds(self) -> float:
        return COSTS.get(self.cost).seconds

    def run(self) -> None:
        once = COSTS.get(self.cost).once
        assert once is not None
        figures = once(torch.device(self.setting.device), task_of(self.setting).test)
        if figures is not None:  # else the next run tries again
            keep(self.setting.store, self.key(), figures)

    def read(self) -> dict[str, Any] | None:
        """Its figures, where it has any."""
        return kept(self.setting.store, self.key())


@dataclass(frozen=True, eq=False)
class Measure(Stage):
    """Costs of one variant that are measured in one process.

    What a meter did not give this time is not kept, so that the next run tries again: the stage fails with the reasons
    once all of its costs have had their turn.
    """

    variant: VariantPlan
    reference: VariantPlan
    costs: tuple[str, ...]
    """Their names."""
    again: bool = False
    """Whether another process measures other costs of the same variant."""

    group = "measure"
    place = "alone"

    @property
    def label(self) -> str:
        what = f"{self.costs[0]} of " if self.again else ""
        return f"seed {self.variant.seed}: measure {what}{self.variant.name}"

    def artefacts(self) -> tuple[Key, ...]:
        store = self.setting.store
        if is_inapplicable(store, self.variant):
            return ()
        lost = is_inapplicable(store, self.reference)
        return tuple(self.key(cost.name) for cost in self._declared if not (lost and cost.beside_reference))

    def key(self, cost: str) -> Key:
        """The artefact of one cost; once it is built, that of all that are the same network, but of the reference."""
        declared, build, store = COSTS.get(cost), self.variant.build_key, self.setting.store
        shared = None
        if declared.by_network and build != self.reference.build_key and store.has(build):
            shared = dense_network(store.read(build))
        return cost_key(
            declared,
            build=shared or build.digest,
            test=self.variant.data.test,
            batch=self.variant.data.batch,
            machine=self.setting.machine,
            reference=self.reference.build_key.digest,
        )

    @property
    def _declared(self) -> list[Cost]:
        return [COSTS.get(cost) for cost in self.costs]

    def needs(self) -> tuple[Stage, ...]:
        return (Build(self.setting, self.variant),)

    def after(self) -> tuple[Stage, ...]:
        once = (MeasureOnce(self.setting, cost.name) for cost in self._declared if cost.once)
        return (Build(self.setting, self.reference), *once)

    def seconds(self) -> float:
        return sum(cost.seconds for cost in self._declared)

    def run(self) -> None:
        store = self.setting.store
        if not is_built(store, self.variant):
            return
        problems: list[str] = []
        first: Exception | None = None
        for cost in self._declared:
            key = self.key(cost.name)
            if store.has(key):
                continue
            if cost.beside_reference and is_inapplicable(store, self.reference):
                continue  # nor is it among the artefacts
            if cost.beside_reference and not is_built(store, self.reference):
                problems.append(f"{cost.name} is measured beside {self.reference.name}, which has no result")
                continue
            try:
                keep(store, key, self._figures(cost))
            except NotGiven as reason:
                problems.append(str(reason))
            except Exception as error:  # a fault of one cost takes no other cost with it
                problems.append(self._why_not(cost, error))
                first = first or error
        if problems:
            raise RuntimeError("; ".join(problems)) from first

    def _why_not(self, cost: Cost, error: Exception) -> str:
        said = f"{type(error).__name__}: {error}"
        if not is_out_of_memory(error):
            return f"{cost.name}: {said}"
        batch = len(task_of(self.setting).test.full_batch)
        return f"{cost.name}: no memory for a batch of {batch}, as stated, and no other batch is measured ({said})"

    def _figures(self, cost: Cost) -> Figures:
        """Figures of one cost, or why there are none."""
        setting, test = self.setting, task_of(self.setting).test
        involved = (self.variant, self.reference) if cost.beside_reference else (self.variant,)
        for plan in involved:
            # one model that a method made reads the task's inputs: it is not loaded to see that
            if plan.runs_members and (reason := why_not_timed(load_built(setting, plan), test)):
                return unmeasured(cost, reason)
        load = partial(load_built, setting, self.variant)
        beside = partial(load_built, setting, self.reference) if cost.beside_reference else None
        once = MeasureOnce(setting, cost.name).read() if cost.once else None
        return measure(cost, Bench(load, beside, test, torch.device(setting.device), once or {}))

    def read(self, cost: str) -> dict[str, Any] | None:
        """The figures of one cost, where it was measured."""
        return kept(self.setting.store, self.key(cost))
