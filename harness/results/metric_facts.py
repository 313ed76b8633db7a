"""What is known of a metric: its direction, its range, whether every example has its value."""

from __future__ import annotations

import math

from harness.results.columns import METRICS

PAIRED = ("accuracy", "nll", "brier")
"""The metrics of which examples.parquet has the value of every example."""


BITS = "bits_per_byte"


HIGHER_IS_BETTER = frozenset(
    {"accuracy", "macro_f1", "diff_vs_reference", "throughput_per_s", "throughput_parallel_per_s"}
)


NO_DIRECTION = frozenset({"temperature", "mcnemar_p", "gpu_utilisation"})


HIGHER_OF_TASKS = frozenset({"accuracy", "acc", "acc_norm", "acc_bytes", "exact_match", "f1", "mcc"})
"""Of a task or view ("acc/sciq"). Of other metrics of lm-eval the policy's word is taken for what is better."""


LOWER_OF_TASKS = frozenset({BITS, "perplexity", "word_perplexity", "byte_perplexity"})


MEASURED = frozenset(
    {"latency_ms_p50", "latency_ms_p95", "latency_ratio_p50", "latency_parallel_ms_p50", "throughput_per_s",
     "throughput_ratio", "throughput_parallel_per_s", "peak_memory_bytes", "working_memory_bytes",
     "energy_j_per_example", "energy_net_j_per_example", "energy_j_per_correct", "gpu_utilisation",
     "money_per_million_examples", "build_seconds", "members_train_seconds"}
)  # fmt: skip
"""Metrics that another machine would give otherwise: compared on the same hardware only, unless a rule says ignore."""


SHARES = frozenset(
    {"accuracy", "macro_f1", "ece", "adaptive_ece", "ece_calibrated", "aurc", "mcnemar_p", "acc", "acc_norm",
     "acc_bytes", "exact_match"}
)  # fmt: skip
"""Metrics between 0 and 1, of the whole or of a task or view."""


def is_of_a_part(metric: str) -> bool:
    """Whether a metric is of one of lm-eval's tasks or of a view: "acc/sciq", "accuracy/inverted"."""
    return "/" in metric


def has_outcomes(metric: str) -> bool:
    """Whether a run keeps a metric's value of every example or document, so that two runs can be paired."""
    return metric in PAIRED or metric == BITS or is_of_a_part(metric)


def higher_is_better(metric: str) -> bool | None:
    """None where it is not known."""
    if is_of_a_part(metric):
        kind = metric.split("/")[0]
        return None if kind not in HIGHER_OF_TASKS | LOWER_OF_TASKS else kind in HIGHER_OF_TASKS
    return None if metric not in METRICS or metric in NO_DIRECTION else metric in HIGHER_IS_BETTER


def range_of(metric: str) -> tuple[float, float]:
    """The least and the most that a metric can be."""
    if metric.split("/")[0] in SHARES:
        return 0.0, 1.0
    if is_of_a_part(metric):
        return -math.inf, math.inf
    return {"brier": (0.0, 2.0), "diff_vs_reference": (-1.0, 1.0)}.get(metric, (0.0, math.inf))
