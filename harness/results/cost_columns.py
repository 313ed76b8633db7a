"""TEMPORARY: the columns of measured costs, to be deleted once ``harness/cost/*`` declare them."""

from __future__ import annotations

from harness.results.metric import Column

MEASURED = (
    Column(
        "latency_ms_p50",
        "median time of one example alone, milliseconds (first seed)",
        better="lower",
        unit="ms",
        source="timer",
        elsewhere=True,
    ),
    Column(
        "latency_ms_p95",
        "the same, 95th percentile",
        better="lower",
        unit="ms",
        source="timer",
        elsewhere=True,
    ),
    Column(
        "latency_ratio_p50",
        "time of one example divided by the reference's, both in turn: median over blocks of rounds; 95 % interval "
        "over the blocks",
        better="lower",
        interval="latency_ratio",
        source="timer",
        elsewhere=True,
    ),
    Column(
        "throughput_per_s",
        "examples per second in full batches",
        better="higher",
        unit="1/s",
        source="timer",
        elsewhere=True,
    ),
    Column(
        "throughput_ratio",
        "time of a full batch divided by the reference's, both in turn",
        better="lower",
        source="timer",
        elsewhere=True,
    ),
    Column(
        "latency_parallel_ms_p50",
        "of an ensemble on a GPU: one example with all members at once, on streams of their own",
        better="lower",
        unit="ms",
        source="timer",
        elsewhere=True,
    ),
    Column(
        "throughput_parallel_per_s",
        "examples per second in full batches, with all members at once",
        better="higher",
        unit="1/s",
        source="timer",
        elsewhere=True,
    ),
    Column(
        "peak_memory_bytes",
        "peak memory of a fresh process that only runs this",
        better="lower",
        unit="bytes",
        source="memory_source",
        elsewhere=True,
    ),
    Column(
        "working_memory_bytes",
        "the part of it above the idle process",
        better="lower",
        unit="bytes",
        source="memory_source",
        elsewhere=True,
    ),
    Column(
        "energy_j_per_example",
        "joules per example in full batches, all that the device used (first seed)",
        better="lower",
        unit="J",
        source="energy_source",
        elsewhere=True,
    ),
    Column(
        "energy_net_j_per_example",
        "less what the idle device uses in the same time",
        better="lower",
        unit="J",
        source="energy_source",
        elsewhere=True,
    ),
    Column(
        "gpu_utilisation",
        "per cent of that time in which a kernel ran",
        unit="%",
        source="energy_source",
        elsewhere=True,
    ),
)
