"""Energy of a system that works for some seconds: all that the device used, and less what the idle device uses."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from harness.cost.cost import Bench, Context, Figures, cost
from harness.cost.gpu import DeviceEnergy, Utilisation
from harness.cost.meters import Meter, Reading
from harness.cost.rapl import PackageEnergy
from harness.results.metric import Column
from harness.types import Split

WINDOW_SECONDS = 5.0
"""Counters move in steps of up to 100 ms, of which 5 s are fifty."""


@dataclass(frozen=True)
class Energy:
    """Joules for one example; None where the meter gave none."""

    gross: float | None
    """All that the device used."""
    net: float | None
    """Less what the idle device uses in the same time."""
    source: str


def meter_for(device: torch.device) -> Meter:
    """The meter that covers what runs on this device."""
    return DeviceEnergy(device) if device.type == "cuda" else PackageEnergy()


def utilisation_meter_for(device: torch.device) -> Meter | None:
    """The meter that says how busy this device is, if its kind has one."""
    return Utilisation(device) if device.type == "cuda" else None


@lru_cache
def why_unavailable(device: torch.device) -> str | None:
    """Why the energy of this device cannot be measured; None if it can. It takes no time to find out."""
    reading = window(meter_for(device), lambda: None, seconds=0)[0]
    return reading.note if reading.value is None else None


def idle_watts(device: torch.device) -> Reading:
    """What the device uses while this process does nothing, over one window."""
    reading, seconds, _ = window(meter_for(device), lambda: time.sleep(0.1))
    value = None if reading.value is None else reading.value / seconds
    return Reading(value, "W", reading.source, reading.note)


def window(meter: Meter, work: Callable[[], object], seconds: float = WINDOW_SECONDS) -> tuple[Reading, float, int]:
    """Repeat ``work`` for at least so many seconds: the meter's reading, the seconds it took, and how often."""
    times = 0
    meter.start()
    begin = time.perf_counter()
    while not times or time.perf_counter() - begin < seconds:
        work()
        times += 1
    spent = time.perf_counter() - begin
    reading = meter.stop()
    if reading.value == 0 and seconds:
        note = f"the counter of {reading.source} did not move in {spent:.1f} s"
        reading = Reading(None, reading.unit, "unavailable", note)
    return reading, spent, times


_METERED: dict[str, Any] = {"source": "energy_source", "elsewhere": True}
COLUMNS = (
    Column(
        "energy_j_per_example",
        "joules per example in full batches, all that the device used (first seed)",
        "lower",
        "J",
        **_METERED,
    ),
    Column("energy_net_j_per_example", "less what the idle device uses in the same time", "lower", "J", **_METERED),
    Column(
        "energy_j_per_correct",
        "divided by the accuracy; of images only, where both have the same examples",
        "lower",
        "J",
        **_METERED,
    ),
    Column("gpu_utilisation", "per cent of that time in which a kernel ran", None, "%", **_METERED),
)
WORDS = (("energy_source", "where the energy figure comes from, or why there is none"),)


def derive(figures: Figures, context: Context) -> Figures:
    """Joules for each right answer, where answers are to the examples that were measured."""
    joules, accuracy = figures["energy_j_per_example"], context.row.get("accuracy")
    return {"energy_j_per_correct": joules / accuracy if accuracy and context.scores_test else None}


def idle_power(device: torch.device, test: Split) -> Figures | None:
    """What the idle device uses, in watts, and by which meter; None where that gave none."""
    reading = idle_watts(device)
    return None if reading.value is None else {"watts": reading.value, "source": reading.source, "note": reading.note}


def _meters(device: torch.device) -> Mapping[str, Meter]:
    busy = utilisation_meter_for(device)
    return {"energy": meter_for(device), **({"utilisation": busy} if busy else {})}


@cost(
    "energy",
    columns=COLUMNS,
    words=WORDS,
    seconds=WINDOW_SECONDS + 1,
    meters=_meters,
    unavailable=why_unavailable,
    once=idle_power,
    derive=derive,
    usual=True,
    by_network=True,
)
def measure(bench: Bench) -> Figures:
    """Energy of one example in full batches, over a window of some seconds, and how busy the device was."""
    combination, batch, device = bench.load(), bench.test.full_batch, bench.device
    idle = Reading(None, "W", "unavailable", "it was not measured before the variants")
    if bench.once:
        idle = Reading(bench.once["watts"], "W", bench.once["source"], bench.once["note"])

    def work() -> None:
        with torch.inference_mode():
            combination.log_probs(batch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

    busy = utilisation_meter_for(device)
    if busy:
        busy.start()
    found = per_example(meter_for(device), idle, work, len(batch))
    return {
        "energy_j_per_example": found.gross,
        "energy_net_j_per_example": found.net,
        "gpu_utilisation": busy.stop().value if busy else None,
        "energy_source": found.source,
    }


def per_example(meter: Meter, idle: Reading, work: Callable[[], object], examples: int,
                seconds: float = WINDOW_SECONDS) -> Energy:  # fmt: skip
    """Energy of one of the ``examples`` that each call of ``work`` processes.

    ``work`` returns when the device has done it (it synchronises). ``idle`` is in watts, of the same meter.
    """
    work()  # the first call loads weights and chooses kernels
    found, spent, times = window(meter, work, seconds)
    if found.value is None:
        return Energy(None, None, found.words)
    gross = found.value / (times * examples)
    if idle.value is None:
        return Energy(gross, None, f"{found.words}; idle power {idle.words}")
    net = (found.value - idle.value * spent) / (times * examples)
    return Energy(gross, net, f"{found.words}; idle {idle.value:.1f} W; window of {spent:.1f} s")
