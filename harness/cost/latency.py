"""Latency beside a reference: both run in turn in one process, and their ratio is the figure to trust."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.special import bdtr
from torch import Tensor

from harness.cost.cost import Bench, Context, Figures, Load, cost
from harness.cost.gpu import clocks
from harness.cost.meters import CpuTime, Meter, WallTime
from harness.cost.parallel import AtOnce, can_run_at_once
from harness.results.metric import Column
from harness.systems.systems import OutputCombination
from harness.types import Combination, Split

Time = dict[str, float]
"""Seconds of one call, by clock."""
Timed = Callable[[Combination], list[Time]]
"""Of one call for each batch."""
CPU = torch.device("cpu")
BLOCKS = 12
FEWEST_BLOCKS = 6
"""So many observations have a distribution-free 95 % interval for their median."""
SECONDS_ALONE, SECONDS_FULL = 0.15, 0.25
"""For which one example, and a full batch, are timed."""
EXAMPLES_ALONE = 20
"""So many are timed, each alone, where they do not all call the same models."""


@dataclass(frozen=True)
class Latency:
    """Times of one combination over all rounds, and its ratio to the reference over the blocks of rounds."""

    rounds: int
    clock: str
    """Of the ratio: "processor" or "wall"; the times themselves are on the wall."""
    p50_ms: float
    p95_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float


_TIMED: dict[str, Any] = {"source": "timer", "elsewhere": True}
COLUMNS = (
    Column(
        "latency_ms_p50",
        "median time of one example alone, milliseconds (first seed); to tokenise or decode raw examples is part of it",
        "lower",
        "ms",
        **_TIMED,
    ),
    Column("latency_ms_p95", "95th percentile of the same", "lower", "ms", **_TIMED),
    Column(
        "latency_ratio_p50",
        "time of one example divided by the reference's, both in turn: median over blocks of rounds, with its 95 % "
        "interval over the blocks",
        "lower",
        interval="latency_ratio",
        **_TIMED,
    ),
    Column("throughput_per_s", "examples per second in full batches", "higher", "1/s", **_TIMED),
    Column("throughput_ratio", "time of a full batch divided by the reference's, likewise", "lower", **_TIMED),
    Column(
        "latency_parallel_ms_p50",
        "of an ensemble on a GPU: one example with all members at once, on streams of their own",
        "lower",
        "ms",
        **_TIMED,
    ),
    Column("throughput_parallel_per_s", "the same in full batches", "higher", "1/s", **_TIMED),
    Column(
        "money_per_million_examples",
        "from throughput and the suite's price_per_gpu_hour, on a GPU",
        "lower",
        **_TIMED,
    ),
)
WORDS = (
    ("latency_verdict", "faster, slower, reference; unclear where the interval is not beyond the noise of run.json"),
)


def derive(figures: Figures, context: Context) -> Figures:
    """The verdict of the ratio, and what a million examples cost."""
    return {
        "latency_verdict": _judge(figures, context),
        "money_per_million_examples": _price(figures["throughput_per_s"], context),
    }


def _judge(figures: Figures, context: Context) -> str:
    if context.is_reference:
        return "reference"
    if not context.reference:
        return "unclear"
    noise = context.reference["latency_ratio_low"], context.reference["latency_ratio_high"]
    return verdict(figures["latency_ratio_low"], figures["latency_ratio_high"], noise)


def _price(per_second: float, context: Context) -> float | None:
    """The price of a million examples; None without a price, or without the GPU that it is for."""
    if context.price_per_gpu_hour is None or context.device.type != "cuda":
        return None
    return context.price_per_gpu_hour / 3600 / per_second * 1e6


def noise_record(reference: Figures | None) -> dict[str, Any] | None:
    """The field ``noise`` of run.json, from the times of the reference beside itself; None where there are none."""
    if not reference:
        return None
    names = {
        "latency_ratio": "latency_ratio_p50",
        "low": "latency_ratio_low",
        "high": "latency_ratio_high",
        "throughput_ratio": "throughput_ratio",
        "throughput_low": "throughput_ratio_low",
        "throughput_high": "throughput_ratio_high",
        "rounds": "rounds",
        "clock": "clock",
    }
    known = ("batch", "threads", "cores", "sm_mhz", "memory_mhz", "measured")
    return {name: reference[of] for name, of in names.items()} | {
        name: reference[name] for name in known if name in reference
    }


def _meters(device: torch.device) -> Mapping[str, Meter]:
    return {"wall time": WallTime(), "processor time": CpuTime()}


@cost(
    "latency",
    columns=COLUMNS,
    words=WORDS,
    seconds=0.7,
    meters=_meters,
    derive=derive,
    beside_reference=True,
    usual=True,
    by_network=True,
)
def measure_beside(bench: Bench) -> Figures:
    """Times beside the reference, of one example alone and of a full batch: the columns, and the conditions."""
    assert bench.reference is not None
    candidate, reference, test, device = bench.load, bench.reference, bench.test, bench.device
    batch = test.full_batch
    alone = measure(
        candidate, reference, *_alone(candidate, reference, batch), seconds=SECONDS_ALONE, device=device
    )
    full = alone
    if len(batch) > 1:
        full = measure(candidate, reference, batch, seconds=SECONDS_FULL, device=device)
    return {
        **_at_once(candidate, test, device),
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
        **conditions(device),
    }


def _alone(candidate: Load, reference: Load, batch: Tensor) -> list[Tensor]:
    """Single examples [1, ...] of a batch to time: one, or several where it depends on the example which models run.

    These are taken at even steps from all in order of their calls, so that their mean is about that of the batch.
    """
    varying = [system for system in (reference(), candidate()) if system.calls_vary]
    if not varying:
        return [batch[:1]]
    with torch.inference_mode():
        calls = [system.run(batch)[1].sum(dim=1).cpu().numpy() for system in varying]
    steps = (np.arange(min(EXAMPLES_ALONE, len(batch))) + 0.5) / min(EXAMPLES_ALONE, len(batch))
    return [batch[row : row + 1] for row in np.lexsort(calls)[(steps * len(batch)).astype(int)]]


def _at_once(candidate: Load, test: Split, device: torch.device) -> dict[str, float | None]:
    """The same of an ensemble with all its members at once, where there is anything to run at once."""
    if not can_run_at_once(candidate(), device):
        return {"latency_parallel_ms_p50": None, "throughput_parallel_per_s": None}
    batch = test.full_batch

    def load() -> Combination:
        loaded = candidate()
        assert isinstance(loaded, OutputCombination)
        return AtOnce(loaded, device)

    alone = measure(load, candidate, test.inputs[:1], seconds=SECONDS_ALONE, device=device)
    full = measure(load, candidate, batch, seconds=SECONDS_FULL, device=device)
    return {"latency_parallel_ms_p50": alone.p50_ms, "throughput_parallel_per_s": len(batch) / full.p50_ms * 1000}


def measure(
    candidate: Load, reference: Load, *batches: Tensor, seconds: float, device: torch.device = CPU
) -> Latency:
    """Run reference and candidate in turn for about so long, loading included: 12 blocks of rounds, at least 6.

    A block's ratio is that of the two fastest calls, since whatever disturbs a call only adds to it. The ratio is the
    median over the blocks, with the interval of ``median_interval``. Every block loads both anew, in alternating order:
    where in memory weights lie makes one of two equal models faster by a per cent or two for as long as it lives
    (Mytkowicz et al. 2009, "Producing wrong data without doing anything obviously wrong!"). Systems of which one
    call takes as long as a block are loaded once, and a block is one round of them.

    On a CPU with one thread the ratio is that of processor times: they differ from those on the wall by the waits for
    a core that others use, which on a shared machine may be several times as long as the work.

    Of several batches a round runs each: the ratio is of the times of a whole round, the times are of every call.
    """
    clock = "wall" if device.type == "cuda" or torch.get_num_threads() > 1 else "processor"
    loads = {"reference": reference, "candidate": candidate}
    begin = time.perf_counter()
    timed = partial(_timed, batches=batches, device=device)
    systems = {name: _warm(load, timed) for name, load in loads.items()}
    slow = sum(_total(timed(system), clock) for system in systems.values()) > seconds / BLOCKS
    ratios: list[float] = []
    own: list[list[float]] = []
    while len(ratios) < BLOCKS and (len(ratios) < FEWEST_BLOCKS or time.perf_counter() - begin < seconds):
        order = list(loads) if len(ratios) % 2 == 0 else list(reversed(loads))
        if not slow:
            systems.clear()  # so that the next are loaded into the same memory, in the other order
            systems = {name: _warm(loads[name], timed) for name in order}
        times = _block(systems, order, timed, 0.0 if slow else seconds / BLOCKS)
        fastest = {name: min(_total(calls, clock) for calls in rounds) for name, rounds in times.items()}
        ratios.append(fastest["candidate"] / fastest["reference"])
        own += [[call["wall"] * 1000 for call in calls] for calls in times["candidate"]]
    low, high = median_interval(ratios)
    p50, p95 = np.quantile(own, [0.5, 0.95])
    return Latency(len(own), clock, float(p50), float(p95), float(np.median(ratios)), low, high)


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the median by order statistics, whatever the distribution; all of fewer than 6 values."""
    ordered = sorted(values)
    chances = bdtr(np.arange(len(ordered) + 1.0), len(ordered), 0.5)  # of so many values below the median or fewer
    outside = int(np.searchsorted(chances, 0.025))  # values below the interval, and above it
    return ordered[max(outside - 1, 0)], ordered[-max(outside, 1)]


def verdict(low: float, high: float, noise: tuple[float, float]) -> str:
    """In words, from a ratio's interval and that of the reference against itself.

    "unclear" unless the whole interval is farther from 1 than the noise reaches.
    """
    reach = max(abs(math.log(end)) for end in noise)
    if math.log(low) > reach:
        return "slower"
    return "faster" if math.log(high) < -reach else "unclear"


def conditions(device: torch.device) -> dict[str, Any]:
    """What times were taken under: threads, the cores that this process may use, and a GPU's clocks in MHz."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "cores": cores}
    return found | (clocks(device) if device.type == "cuda" else {})


def _warm(load: Load, timed: Timed) -> Combination:
    system = load()
    timed(system)  # the first call loads weights and chooses kernels
    return system


def _block(
    systems: dict[str, Combination], order: Sequence[str], timed: Timed, seconds: float
) -> dict[str, list[list[Time]]]:
    """Times of both systems in one round or more, each round in the other order than the one before."""
    times: dict[str, list[list[Time]]] = {name: [] for name in order}
    begin = time.perf_counter()
    while not times[order[0]] or time.perf_counter() - begin < seconds:
        for name in order:
            times[name].append(timed(systems[name]))
        order = list(reversed(order))
    return times


def _timed(system: Combination, batches: Sequence[Tensor], device: torch.device) -> list[Time]:
    times = []
    with torch.inference_mode():
        for batch in batches:
            wall, processor = time.perf_counter(), time.process_time()
            system.log_probs(batch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append({"processor": time.process_time() - processor, "wall": time.perf_counter() - wall})
    return times


def _total(calls: Sequence[Time], clock: str) -> float:
    return sum(call[clock] for call in calls)
