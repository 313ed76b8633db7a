"""The jobs of a run that measure what a built variant costs: memory, time and energy, in a process of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import torch

from harness.combinations import OutputCombination
from harness.cost import energy, latency, memory
from harness.cost.meters import Reading
from harness.cost.parallel import AtOnce, can_run_at_once
from harness.jobs import Setting, VariantPlan, is_built, load_built, machine, task_of, why_not_run
from harness.store import Key, Store, read_json, write_json
from harness.types import Combination

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
    reason = why_not_run(setting, plan) or why_not_run(setting, reference)
    problems: list[str] = []
    for cost in costs:
        if store.has(key(cost, plan, reference)):
            continue
        if reason:
            record: dict[str, Any] = {} if cost == "latency" else {f"{cost}_source": f"unavailable: {reason}"}
        elif cost == "memory":
            record = _memory(setting, plan)
        elif cost == "latency":
            record = _latency(setting, plan, reference)
        else:
            record = _energy(setting, plan)
        if GIVEN.get(cost, "") in record and record[GIVEN[cost]] is None:
            problems.append(record[f"{cost}_source"])
            continue
        with store.write(key(cost, plan, reference)) as folder:
            write_json(folder / f"{cost}.json", record)
    if problems:
        raise RuntimeError("; ".join(problems))


def _memory(setting: Setting, plan: VariantPlan) -> dict[str, Any]:
    """Peak memory while this process loads the variant and runs a full batch."""
    test = task_of(setting).test
    batch = test.inputs[: test.batch]

    def work() -> None:
        combination = load_built(setting, plan)
        with torch.inference_mode():
            combination.log_probs(batch)

    found = memory.peak_memory(work, torch.device(setting.device), warm_up=work)
    return {
        "peak_memory_bytes": found.peak_bytes,
        "working_memory_bytes": found.working_bytes,
        "memory_source": found.source,
    }


def _latency(setting: Setting, plan: VariantPlan, reference: VariantPlan) -> dict[str, Any]:
    """Times beside the reference, of one example alone and of a full batch."""
    device, test = torch.device(setting.device), task_of(setting).test
    batch = test.inputs[: test.batch]
    measure = partial(
        latency.measure, partial(load_built, setting, plan), partial(load_built, setting, reference), device=device
    )
    alone = measure(test.inputs[:1], seconds=0.15)
    full = measure(batch, seconds=0.25) if len(batch) > 1 else alone
    at_once: dict[str, Any] = {}
    if can_run_at_once(load_built(setting, plan), device):
        measure = partial(
            latency.measure, partial(_load_at_once, setting, plan), partial(load_built, setting, plan), device=device
        )
        at_once["latency_parallel_ms_p50"] = measure(test.inputs[:1], seconds=0.15).p50_ms
        at_once["throughput_parallel_per_s"] = len(batch) / measure(batch, seconds=0.25).p50_ms * 1000
    return {
        **at_once,
        "latency_ms_p50": alone.p50_ms,
        "latency_ms_p95": alone.p95_ms,
        "latency_ratio_p50": alone.ratio,
        "latency_ratio_low": alone.ratio_low,
        "latency_ratio_high": alone.ratio_high,
        "throughput_per_s": len(batch) / full.p50_ms * 1000,
        "throughput_ratio": full.ratio,
        "throughput_ratio_low": full.ratio_low,
        "throughput_ratio_high": full.ratio_high,
        "rounds": alone.rounds,
        "clock": alone.clock,
        "batch": len(batch),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        **latency.conditions(device),
    }


def _load_at_once(setting: Setting, plan: VariantPlan) -> Combination:
    ensemble = load_built(setting, plan)
    assert isinstance(ensemble, OutputCombination)
    return AtOnce(ensemble, torch.device(setting.device))


def why_no_energy(setting: Setting) -> str | None:
    """Why the energy of a run's device cannot be measured; None if it can."""
    return energy.why_unavailable(torch.device(setting.device))


def idle_key(setting: Setting) -> Key:
    """The key of the power that the run's device uses when idle."""
    return Key.of("idle", code="harness.cost.energy", device=setting.device, machine=machine())


def measure_idle(setting: Setting) -> None:
    """Power of the idle device over one window: once for all variants, before any of them is measured."""
    found = energy.idle_watts(torch.device(setting.device))
    if found.value is None:  # not kept, so that the next run tries again; variants are measured all the same
        return
    with Store(setting.store).write(idle_key(setting)) as folder:
        write_json(folder / "idle.json", {"watts": found.value, "source": found.source, "note": found.note})


def process_key(setting: Setting) -> Key:
    """The key of what a worker takes before it holds any model."""
    about = {"device": setting.device, "machine": machine(), "task": setting.task.kind}
    return Key.of("process", code="harness.cost.memory", **about)


def measure_process(setting: Setting) -> None:
    """Memory of a fresh worker that has loaded the task, or of its context on a GPU: once for all suites of a kind."""
    _ = task_of(setting).test
    taken = memory.process_bytes(torch.device(setting.device))
    with Store(setting.store).write(process_key(setting)) as folder:
        write_json(folder / "process.json", {"bytes": taken})


def _energy(setting: Setting, plan: VariantPlan) -> dict[str, Any]:
    """Energy of one example in full batches, over a window of some seconds, and how busy the device was."""
    store, device = Store(setting.store), torch.device(setting.device)
    idle = Reading(None, "W", "unavailable", "see the job 'idle power'")
    if store.has(idle_key(setting)):
        known = read_json(store.path(idle_key(setting)) / "idle.json")
        idle = Reading(known["watts"], "W", known["source"], known["note"])
    combination, test = load_built(setting, plan), task_of(setting).test
    batch = test.inputs[: test.batch]

    def work() -> None:
        with torch.inference_mode():
            combination.log_probs(batch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

    busy = energy.utilisation_meter_for(device)
    if busy:
        busy.start()
    found = energy.per_example(energy.meter_for(device), idle, work, len(batch))
    return {
        "energy_j_per_example": found.gross,
        "energy_net_j_per_example": found.net,
        "gpu_utilisation": busy.stop().value if busy else None,
        "energy_source": found.source,
    }
