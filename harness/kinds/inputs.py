"""Scoring a combination on test's own inputs, for kinds of task where these are what is scored."""

from __future__ import annotations

import time

import numpy as np
from torch import Tensor

from harness.evaluate import scores
from harness.evaluate.predictions import CachedPredictions, predict
from harness.kinds.kind import Evaluation
from harness.systems.systems import OutputCombination
from harness.tasks.task import Task
from harness.types import Combination, Split


def evaluate_on_inputs(combination: Combination, task: Task, cached: CachedPredictions) -> Evaluation:
    """What a combination says on test, and how well a temperature that is fitted on held-out calibrates it."""
    (on_test, seconds), (on_heldout, more) = (run_on(combination, split, cached) for split in (task.test, task.heldout))
    calibrated = scores.calibrated(on_test, task.test.labels, on_heldout, task.heldout.labels)
    calls = np.ones((len(on_test), len(combination.parts())))
    return Evaluation(on_test.numpy(), calls, {"combine_seconds": seconds + more, **calibrated})


def run_on(combination: Combination, split: Split, cached: CachedPredictions) -> tuple[Tensor, float]:
    """Predictions [N, C], and the seconds that went into combining those of the members."""
    if not isinstance(combination, OutputCombination):
        return predict(combination.log_probs, split), 0.0
    stacked = cached.stacked(combination.parts(), split)
    begin = time.perf_counter()
    return combination.combine(stacked), time.perf_counter() - begin
