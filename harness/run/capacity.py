"""What fits: the memory that a suite's pools will need, and the largest batch and ensemble within a budget of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from harness import environment
from harness.cost.forecast import Need, need
from harness.keys import Key
from harness.models.architectures import code_of
from harness.pools.pool import member_digests
from harness.run.plan import Plan
from harness.run.stages.variant import VariantPlan
from harness.store import read_json, write_json
from harness.systems.rules import Linear
from harness.systems.systems import runs_members_once, saved_rule
from harness.types import Architecture


@dataclass(frozen=True)
class Budget:
    """Bytes that may be used, and those that a process takes before it holds any model."""

    bytes: int
    source: str
    process: int

    @property
    def room(self) -> int:
        return self.bytes - self.process


@dataclass(frozen=True)
class Capacity:
    """What the models of one pool need, and what fits within the budget; their largest architecture counts for all."""

    pool: str
    models: int
    batch: int
    """Inputs of a full batch of the suite."""
    need: Need
    largest_batch_of_one: int
    largest_batch_of_all: int
    largest_ensemble: int
    """Models that fit on full batches."""

    @property
    def bytes_of_one(self) -> int:
        return self.need.bytes(1, self.batch)

    @property
    def bytes_of_all(self) -> int:
        return self.need.bytes(self.models, self.batch)


def budget_of(plan: Plan, process: int, asked: int | None = None) -> Budget:
    """What was asked for on the command line, else the suite's ``memory_budget``, else the memory of the device.

    ``process`` is what ``MeasureProcess`` read.
    """
    if asked is not None:
        return Budget(asked, "as asked", process)
    if budget := plan.suite.file.cost.memory_budget:
        return Budget(budget, "the suite's memory_budget", process)
    if plan.elsewhere is not None:
        return Budget(plan.elsewhere.memory_bytes, "all of the device", process)
    is_gpu = plan.setting.device.startswith("cuda")
    device = environment.devices()[torch.device(plan.setting.device).index or 0] if is_gpu else environment.machine()
    return Budget(device["memory_bytes"], "all of the device", process)


def unpredicted(plan: Plan, found: Sequence[Capacity]) -> list[str]:
    """The pools whose needs are only known once their models have run."""
    return [name for name in plan.pools[plan.seeds[0]] if name not in {one.pool for one in found}]


def capacities(plan: Plan, budget: Budget) -> Iterator[Capacity]:
    """One for each pool whose needs can be predicted, in the suite's order."""
    for name, pool in plan.pools[plan.seeds[0]].items():
        models = len(member_digests(pool))
        batch = min(plan.task.test.batch, len(plan.task.test.inputs))
        found = [of for member in pool.members if (of := needed(plan, member.architecture))]
        if len(found) < len(pool.members):
            continue
        largest = max(found, key=lambda one: one.bytes(models, batch))
        yield Capacity(
            name,
            models,
            batch,
            largest,
            largest.largest_batch(1, budget.room),
            largest.largest_batch(models, budget.room),
            largest.largest_ensemble(batch, budget.room),
        )


def needed(plan: Plan, architecture: Architecture) -> Need | None:
    """What models of an architecture need on the suite's full batches; None where torch needs values for it.

    Kept in the store, since it takes seconds.
    """
    batch = plan.task.test.full_batch
    device, inputs = torch.device(plan.setting.device), [list(batch.shape), str(batch.dtype)]
    code = ("harness.cost.forecast", *code_of(architecture))
    key = Key.of("need", code=code, architecture=str(architecture), inputs=inputs, device=device.type)
    if not plan.store.has(key):
        try:
            record = asdict(need(architecture, batch, device))
        except RuntimeError:  # an operation whose result depends on values
            record = {}
        except Exception:  # no prediction fails a run, and a fault of ours is not kept
            return None
        with plan.store.write(key) as folder:
            write_json(folder / "need.json", record)
    record = read_json(plan.store.read(key) / "need.json")
    return Need(**record) if record else None


def predicted(plan: Plan, variant: VariantPlan, parameters: float) -> int | None:
    """Working memory of a variant that is one model, or a linear ensemble of models, of its pool's one architecture.

    None for every other: what a gate or a student needs is not known before it is built, and other rules hold more or
    less of the predictions at a time, which of language models are most of the memory.

    Args:
        plan: the run's.
        variant: one of its variants.
        parameters: how many it turned out to store.
    """
    architectures = {source.architecture for source in variant.sources}
    is_model = variant.declared.family in ("single", "weights")
    folder = plan.store.read(variant.build_key)
    plain = is_model or (runs_members_once(folder) and isinstance(saved_rule(folder), Linear))
    if not plain or len(architectures) > 1 or not (one := needed(plan, architectures.pop())):
        return None
    models, rest = divmod(parameters, one.parameters)
    batch = min(plan.task.test.batch, len(plan.task.test.inputs))
    return one.bytes(int(models), batch) if models and not rest else None


def as_record(budget: Budget, found: Sequence[Capacity], untold: Sequence[str] = ()) -> dict[str, Any]:
    """JSON values for run.json; ``untold`` are pools without a prediction."""
    pools = {
        one.pool: {
            "models": one.models,
            "batch": one.batch,
            "model_bytes": one.need.weights,
            "input_bytes": one.need.one,
            "bytes_of_one": one.bytes_of_one,
            "bytes_of_all": one.bytes_of_all,
            "largest_batch_of_one": one.largest_batch_of_one,
            "largest_batch_of_all": one.largest_batch_of_all,
            "largest_ensemble": one.largest_ensemble,
        }
        for one in found
    }
    known = {"budget_bytes": budget.bytes, "budget_source": budget.source, "process_bytes": budget.process}
    return {**known, "pools": pools, "untold": list(untold)}
