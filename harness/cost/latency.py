"""Latency beside a reference: both run in turn in one process, and their ratio is the figure to trust."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.types import Combination


@dataclass(frozen=True)
class Latency:
    """Times of one combination and its ratio to the reference, over the rounds that were measured."""

    rounds: int
    p50_ms: float
    p95_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float


def measure(candidate: Combination, reference: Combination, batch: Tensor, *, rounds: int, seconds: float) -> Latency:
    """Run reference and candidate in turn, ``rounds`` times or until the time is used up (at least 5 rounds).

    The ratio is the median over the rounds of candidate/reference, with a bootstrap interval over the rounds. The two
    neighbours of a round meet the same machine, so slow spells cancel.
    """
    for system in (reference, candidate):
        _timed(system, batch)  # the first call loads weights and chooses kernels
    times: list[tuple[float, float]] = []
    begin = time.perf_counter()
    while len(times) < rounds and (len(times) < 5 or time.perf_counter() - begin < seconds):
        pair = (reference, candidate) if len(times) % 2 == 0 else (candidate, reference)
        found = {id(system): _timed(system, batch) for system in pair}
        times.append((found[id(reference)], found[id(candidate)]))
    base, own = np.array(times).T
    ratios = own / base
    picks = np.random.default_rng(0).integers(0, len(ratios), size=(2000, len(ratios)))
    low, high = np.quantile(np.median(ratios[picks], axis=1), [0.025, 0.975])
    p50, p95 = np.quantile(own * 1000, [0.5, 0.95])
    return Latency(len(times), float(p50), float(p95), float(np.median(ratios)), float(low), float(high))


def _timed(system: Combination, batch: Tensor) -> float:
    with torch.inference_mode():
        begin = time.perf_counter()
        system.log_probs(batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - begin
