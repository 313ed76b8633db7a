"""Scoring a combination on test's own inputs, for kinds of task where these are what is scored."""

from __future__ import annotations

from harness.evaluate import predictions, scores
from harness.evaluate.predictions import CachedPredictions
from harness.kinds.kind import Evaluation
from harness.tasks.task import Task
from harness.types import Combination


def evaluate_on_inputs(combination: Combination, task: Task, cached: CachedPredictions) -> Evaluation:
    """What a combination says on test, and how well a temperature that is fitted on held-out calibrates it."""
    on_test, on_heldout = (predictions.run(combination, split, cached) for split in (task.test, task.heldout))
    calibrated = scores.calibrated(on_test.log_probs, task.test.labels, on_heldout.log_probs, task.heldout.labels)
    record = {"combine_seconds": on_test.combine_seconds + on_heldout.combine_seconds, **calibrated}
    return Evaluation(on_test.log_probs.numpy(), on_test.calls.numpy(), record)
