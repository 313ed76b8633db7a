"""The jobs of a run that measure what a built variant costs: time, memory and energy."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from harness.cost import energy, latency, memory
from harness.jobs import Setting, VariantPlan, is_built, load_built, task_of, why_not_run
from harness.store import Store, write_json


def measure_latency(setting: Setting, plan: VariantPlan, reference: VariantPlan) -> None:
    """Time a variant beside the reference, one example alone and a full batch."""
    store = Store(setting.store)
    if not is_built(store, plan):
        return
    if why_not_run(setting, plan) or why_not_run(setting, reference):
        with store.write(plan.latency_key(reference)) as folder:
            write_json(folder / "latency.json", {})
        return
    loads = partial(load_built, setting, plan), partial(load_built, setting, reference)
    test = task_of(setting).test
    batch = test.inputs[: test.batch]
    alone = latency.measure(*loads, test.inputs[:1], seconds=0.15)
    full = latency.measure(*loads, batch, seconds=0.25) if len(batch) > 1 else alone
    with store.write(plan.latency_key(reference)) as folder:
        found = {
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
        }
        write_json(folder / "latency.json", found)


def measure_memory(setting: Setting, plan: VariantPlan) -> None:
    """Peak memory of this process, which is fresh, while it loads the variant and runs two full batches."""
    store = Store(setting.store)
    if not is_built(store, plan):
        return
    test = task_of(setting).test
    batches = test.inputs[: 2 * test.batch].split(test.batch)

    def work() -> None:
        combination = load_built(setting, plan)
        with torch.inference_mode():
            for batch in batches:
                combination.log_probs(batch)

    if reason := why_not_run(setting, plan):
        record: dict[str, Any] = {"memory_source": f"unavailable: {reason}"}
    else:
        found = memory.peak_memory(work, torch.device(setting.device))
        record = {
            "peak_memory_bytes": found.peak_bytes,
            "working_memory_bytes": found.working_bytes,
            "memory_source": found.source,
        }
    with store.write(plan.memory_key) as folder:
        write_json(folder / "memory.json", record)


def why_no_energy(setting: Setting) -> str | None:
    """Why the energy of a run's device cannot be measured; None if it can."""
    return energy.why_unavailable(torch.device(setting.device))


def measure_energy(setting: Setting, plan: VariantPlan) -> None:
    """Energy of one example in full batches, over a window of some seconds, and how busy the device was."""
    store, device = Store(setting.store), torch.device(setting.device)
    if not is_built(store, plan):
        return
    if reason := why_not_run(setting, plan):
        record: dict[str, Any] = {"energy_source": f"unavailable: {reason}"}
    else:
        idle = energy.idle_watts(device)  # before the variant is loaded, and once for all of them
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
        record = {
            "energy_j_per_example": found.gross,
            "energy_net_j_per_example": found.net,
            "gpu_utilisation": busy.stop().value if busy else None,
            "energy_source": found.source,
        }
    with store.write(plan.energy_key) as folder:
        write_json(folder / "energy.json", record)
