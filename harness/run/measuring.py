"""The jobs of a run that measure what a built variant costs: memory, time and energy, in a process of its own."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch

from harness.cost import energy, latency, memory
from harness.cost.meters import Reading
from harness.environment import machine_digest
from harness.run.jobs import Setting, VariantPlan, is_built, load_built, task_of, why_not_timed
from harness.store import Key, Store, read_json, write_json

Cost = Literal["memory", "latency", "energy"]
"""What is measured, in this order: a process has a peak of memory to tell of only as long as it is fresh."""
GIVEN: dict[Cost, str] = {"memory": "peak_memory_bytes", "energy": "energy_j_per_example"}
"""The figure that a meter gives, or fails to."""


def key(cost: Cost, plan: VariantPlan, reference: VariantPlan) -> Key:
    """The key of one measured cost of a variant."""
    keys = {"memory": plan.memory_key, "latency": plan.latency_key(reference), "energy": plan.energy_key}
    return keys[cost]


def measure_variant(setting: Setting, plan: VariantPlan, reference: VariantPlan, costs: tuple[Cost, ...]) -> None:
    """Measure these costs of a variant, but for those that are in the store already.

    What a meter did not give this time is not kept, so that the next run tries again: the job fails with the reasons
    once all of its costs have had their turn.
    """
    store = Store(setting.store)
    if not is_built(store, plan):
        return
    problems: list[str] = []
    for cost in costs:
        if store.has(key(cost, plan, reference)):
            continue
        if cost == "latency" and not is_built(store, reference):
            problems.append(f"times are taken in turn with {reference.name}, which has no result")
            continue
        record = _measured(setting, cost, plan, reference)
        if GIVEN.get(cost, "") in record and record[GIVEN[cost]] is None:
            problems.append(record[f"{cost}_source"])
            continue
        with store.write(key(cost, plan, reference)) as folder:
            write_json(folder / f"{cost}.json", record)
    if problems:
        raise RuntimeError("; ".join(problems))


def _measured(setting: Setting, cost: Cost, plan: VariantPlan, reference: VariantPlan) -> dict[str, Any]:
    """One cost: the columns of ``variants.csv``, or why there are none."""
    if reason := why_not_timed(setting, plan):
        return {} if cost == "latency" else {f"{cost}_source": f"unavailable: {reason}"}
    device, test = torch.device(setting.device), task_of(setting).test
    load = partial(load_built, setting, plan)
    if cost == "memory":
        return memory.measure(load, test, device)
    if cost == "energy":
        return energy.measure(load, test, device, _idle(setting))
    if why_not_timed(setting, reference):
        return {}
    return latency.measure_beside(load, partial(load_built, setting, reference), test, device)


def why_no_energy(setting: Setting) -> str | None:
    """Why the energy of a run's device cannot be measured; None if it can."""
    return energy.why_unavailable(torch.device(setting.device))


def idle_key(setting: Setting) -> Key:
    """The key of the power that the run's device uses when idle."""
    return Key.of("idle", code="harness.cost.energy", device=setting.device, machine=machine_digest())


def measure_idle(setting: Setting) -> None:
    """Power of the idle device over one window: once for all variants, before any of them is measured."""
    found = energy.idle_watts(torch.device(setting.device))
    if found.value is None:  # not kept, so that the next run tries again; variants are measured all the same
        return
    with Store(setting.store).write(idle_key(setting)) as folder:
        write_json(folder / "idle.json", {"watts": found.value, "source": found.source, "note": found.note})


def process_key(setting: Setting) -> Key:
    """The key of what a worker takes before it holds any model."""
    about = {"device": setting.device, "machine": machine_digest(), "task": setting.task.kind}
    return Key.of("process", code="harness.cost.memory", **about)


def measure_process(setting: Setting) -> None:
    """Memory of a fresh worker that has loaded the task, or of its context on a GPU: once for all suites of a kind."""
    _ = task_of(setting).test
    taken = memory.process_bytes(torch.device(setting.device))
    with Store(setting.store).write(process_key(setting)) as folder:
        write_json(folder / "process.json", {"bytes": taken})


def _idle(setting: Setting) -> Reading:
    """The power of the idle device, as far as it is known."""
    store = Store(setting.store)
    if not store.has(idle_key(setting)):
        return Reading(None, "W", "unavailable", "see the job 'idle power'")
    known = read_json(store.path(idle_key(setting)) / "idle.json")
    return Reading(known["watts"], "W", known["source"], known["note"])
